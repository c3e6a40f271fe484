"""Our training step beside that of timm's train.py: same networks, images, batch and precision.

Both take turns, each in a process of its own. timm's side is the inner loop of its script made of
timm's own parts under its flags --channels-last, --amp --amp-dtype bfloat16 and --opt-kwargs
fused=True; with --torchcompile, and always on CUDA, under that flag as well. On the CPU it takes
the cores that it is given:

    taskset -c 0,1 python -m benchmarks.timm_loop
"""

import argparse
import itertools
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import repeat
from multiprocessing.connection import Connection
from typing import Any

import torch
from timm import create_model
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from torch import Tensor

from ablations import PAPER, get_regime
from benchmarks.measure import RESULTS, interleaved, spread, write
from data.loader import Batch
from models.builder import build
from training.autotune import Work, choose
from training.device import autocast, set_up, wait_for
from training.execution import ComputeOptions
from training.recipe import Precision, Recipe
from training.update import TrainState, update

NETWORKS = {"resnet50": "baseline", "convnext_tiny": "separate-downsampling"}
RECIPE = Recipe(epochs=300, batch_size=4096)


def timm_step(
    network: str,
    images: Tensor,
    labels: Tensor,
    *,
    amp: bool,
    channels_last: bool,
    fused: bool,
    compiled: bool = False,
) -> Callable[[], None]:
    device = images.device
    model = create_model(network, num_classes=1000, drop_path_rate=RECIPE.drop_path).to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    kwargs: dict[str, Any] = {"fused": True} if fused else {}
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=1e-4, weight_decay=RECIPE.weight_decay, **kwargs
    )
    forward: Callable[[Tensor], Tensor] = torch.compile(model) if compiled else model
    loss_of = LabelSmoothingCrossEntropy(RECIPE.label_smoothing)
    contiguous_images = images.contiguous()

    def step() -> None:
        given = (
            contiguous_images.contiguous(memory_format=torch.channels_last)
            if channels_last
            else contiguous_images
        )
        with autocast("bf16" if amp else "fp32", device):
            loss = loss_of(forward(given), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(
    step: str, images: Tensor, labels: Tensor, precision: Precision, compiled: bool
) -> tuple[Callable[[], None], ComputeOptions]:
    """The update that runs make, by a trial's options; compiled only where timm's may be."""
    device, batch = images.device, len(images)
    architecture = PAPER.architecture(step, get_regime("tiny"))
    recipe = replace(RECIPE, batch_size=batch)
    if step == "baseline":
        recipe = replace(recipe, layer_scale=None)
    work = Work(architecture, recipe, images.shape[2], precision, device)
    options, _ = choose(work, 10**6 // batch, may_compile=compiled)
    model = build(architecture, drop_path=recipe.drop_path, layer_scale=recipe.layer_scale)
    train_state = TrainState(model, recipe, options, device, precision)
    data = Batch(images, labels, labels, torch.ones(batch, device=device), torch.arange(batch))

    def ours() -> None:
        with options.applied():
            update(train_state, 0, repeat(data), lr=1e-4)

    return ours, options


def theirs(
    network: str, images: Tensor, labels: Tensor, compiled: bool
) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """timm's defaults and every combination of its flags."""
    flags: dict[str, Any] = {"amp": False, "channels_last": False, "fused": False}
    steps = {"timm": timm_step(network, images, labels, **flags)}
    for amp, last, whole in itertools.product((False, True), repeat=3):
        if whole and not compiled:
            continue
        name = "timm" + " amp" * amp + " channels-last" * last + " fused" + " compiled" * whole
        steps[name] = timm_step(
            network, images, labels, amp=amp, channels_last=last, fused=True, compiled=whole
        )
    return steps, {}


def ours(
    network: str, images: Tensor, labels: Tensor, compiled: bool
) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """Our update in both precisions, and the options that were chosen."""
    steps: dict[str, Callable[[], None]] = {}
    chosen: dict[str, str] = {}
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        set_up(images.device, precision)
        step, options = our_step(NETWORKS[network], images, labels, precision, compiled)
        steps[f"ours {precision}"], chosen[precision] = step, str(options)
    return steps, chosen


def serve(
    side: Callable[..., Any], network: str, size: tuple[int, int], compiled: bool, pipe: Connection
) -> None:
    """Build one side's steps and do those that the pipe asks for, until it asks for none."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    resolution, batch = size
    images = torch.randn(batch, 3, resolution, resolution).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch,)).to(device)
    steps, chosen = side(network, images, labels, compiled)
    pipe.send((list(steps), chosen))
    while name := pipe.recv():
        steps[name]()
        wait_for(device)
        pipe.send(name)


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    add, sizes = parser.add_argument, ["64x8", "64x16", "96x4", "128x8", "224x2"]
    add("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    add("--sizes", nargs="+", default=sizes, help="pixels x batch")
    add("--rounds", type=int, default=9, help="timings of each setting")
    add("--seconds", type=float, default=15, help="limit for the timings of one size")
    add("--torchcompile", action="store_true", help="timm's flag too: half a minute more a setting")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compiled = options.torchcompile or device.type == "cuda"
    rows = []
    for network, size in itertools.product(options.networks, options.sizes):
        resolution, batch = map(int, size.split("x"))
        rates, chosen = _timed(network, (resolution, batch), compiled, options)
        median = {name: rate["median"] for name, rate in rates.items()}
        plain = [v for k, v in median.items() if k.startswith("timm") and "amp" not in k]
        half = [v for k, v in median.items() if "amp" in k]
        ratios = {
            "fp32": round(median["ours fp32"] / max(plain), 3),
            "bf16": round(median["ours bf16"] / max(half), 3),
            "bf16 of defaults": round(median["ours bf16"] / median["timm"], 3),
        }
        size_of = {"network": network, "resolution": resolution, "batch": batch}
        rows.append({**size_of, "options": chosen, "ratios": ratios, "images_per_second": rates})
        print(f"{network:<14} {size:>7}  of timm's best: {ratios}   {median}", flush=True)
    names = rows[0]["ratios"]
    summary = {name: spread([row["ratios"][name] for row in rows]) for name in names}
    print(summary)
    cores = torch.get_num_threads() if device.type == "cpu" else 1
    kind = "-torchcompile" * options.torchcompile + f"-{device.type}"
    path = RESULTS / f"timm-loop{kind}{f'-{cores}-cores' * (cores > 1)}.json"
    write(path, device, {"options": vars(options), "summary": summary, "rows": rows}, "timm")


def _timed(
    network: str, size: tuple[int, int], compiled: bool, options: argparse.Namespace
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Rates of all settings at one size, and our chosen options.

    A process for each side: ours changes how its process keeps memory, and gets what runner.py sets
    of torch's threads (docs/decisions.md#spin).
    """
    processes = multiprocessing.get_context("spawn")
    steps: dict[str, Callable[[], object]] = {}
    chosen: dict[str, str] = {}
    pipes = []
    for side in (theirs, ours):
        pipe, far = processes.Pipe()
        before = os.environ.get("GOMP_SPINCOUNT")
        if side is ours:
            os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        arguments = (side, network, size, compiled, far)
        processes.Process(target=serve, args=arguments, daemon=True).start()
        if before is None:
            os.environ.pop("GOMP_SPINCOUNT", None)
        names, found = pipe.recv()
        steps |= {name: partial(_ask, pipe, name) for name in names}
        chosen |= found
        pipes.append(pipe)
    rates = interleaved(steps, size[1], options.rounds, options.seconds)
    for pipe in pipes:
        pipe.send("")
    return rates, chosen


def _ask(pipe: Connection, name: str) -> None:
    pipe.send(name)
    pipe.recv()


if __name__ == "__main__":
    main()
