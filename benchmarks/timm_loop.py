"""Our training step beside that of timm's train.py, on the same networks, images, batch and
precision.

Both take turns, each in a process of its own. timm's side is the inner loop of its script made of
timm's own parts (create_model, create_optimizer_v2, LabelSmoothingCrossEntropy) under its flags
--channels-last, --amp --amp-dtype bfloat16 and --opt-kwargs fused=True; with --torchcompile, and
always on CUDA, under that flag of its as well. On the
CPU it takes the cores that it is given: taskset -c 0 python -m benchmarks.timm_loop for one,
    taskset -c 0,1 for two.
"""

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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
from benchmarks.measure import interleaved, write
from data.loader import Batch
from models.builder import build
from training.autotune import Work, choose
from training.device import autocast, set_up
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
    step: str, images: Tensor, labels: Tensor, precision: Precision, classic: bool
) -> tuple[Callable[[], None], ComputeOptions]:
    """The update that runs make, in the layout that a trial chose."""
    device, batch = images.device, len(images)
    architecture = PAPER.architecture(step, get_regime("tiny"))
    recipe = replace(RECIPE, layer_scale=None) if classic else RECIPE
    recipe = replace(recipe, batch_size=batch)
    work = Work(architecture, recipe, images.shape[2], precision, device)
    layout, _ = choose(work, 10**6 // batch, may_compile=False)
    model = build(architecture, drop_path=recipe.drop_path, layer_scale=recipe.layer_scale)
    train_state = TrainState(model, recipe, layout, device, precision)
    data = Batch(images, labels, labels, torch.ones(batch, device=device), torch.arange(batch))

    def ours() -> None:
        with layout.applied():
            update(train_state, 0, repeat(data), lr=1e-4)

    return ours, layout


def theirs(
    network: str, images: Tensor, labels: Tensor, compiled: bool = False
) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """timm's defaults and every combination of its flags, if `compiled` with --torchcompile and
    without."""
    steps = {
        "timm": timm_step(network, images, labels, amp=False, channels_last=False, fused=False)
    }
    for amp in (False, True):
        for last in (False, True):
            for whole in (False, True) if compiled else (False,):
                name = (
                    "timm" + " amp" * amp + " channels-last" * last + " fused" + " compiled" * whole
                )
                steps[name] = timm_step(
                    network, images, labels, amp=amp, channels_last=last, fused=True, compiled=whole
                )
    return steps, {}


def ours(
    network: str, images: Tensor, labels: Tensor
) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """Our update in both precisions, and the layouts that were chosen."""
    steps: dict[str, Callable[[], None]] = {}
    layouts: dict[str, str] = {}
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        set_up(images.device, precision)
        step, layout = our_step(NETWORKS[network], images, labels, precision, network == "resnet50")
        steps[f"ours {precision}"], layouts[precision] = step, str(layout)
    return steps, layouts


def serve(
    side: Callable[..., Any], network: str, resolution: int, batch: int, seed: int, pipe: Connection
) -> None:
    """Build one side's steps and do those that the pipe asks for, until it asks for none."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    images = (
        torch.randn(batch, 3, resolution, resolution)
        .to(device)
        .contiguous(memory_format=torch.channels_last)
    )
    labels = torch.randint(1000, (batch,)).to(device)
    steps, layouts = side(network, images, labels)
    pipe.send((list(steps), layouts))
    while name := pipe.recv():
        steps[name]()
        if device.type == "cuda":
            torch.cuda.synchronize()
        pipe.send(name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=["64x8", "64x16", "96x4", "128x8", "224x2"],
        help="pixels x batch",
    )
    parser.add_argument("--rounds", type=int, default=9, help="timings of each setting")
    parser.add_argument(
        "--seconds", type=float, default=15, help="limit for the timings of one size"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--torchcompile", action="store_true", help="timm's flag too: half a minute more a setting"
    )
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compiled = options.torchcompile or device.type == "cuda"
    processes = multiprocessing.get_context("spawn")
    rows = []
    for network in options.networks:
        for size in options.sizes:
            resolution, batch = map(int, size.split("x"))
            # A process for each side: ours changes how its process keeps memory
            # (training.device.keep_memory).
            steps: dict[str, Callable[[], object]] = {}
            layouts: dict[str, str] = {}
            pipes = []
            for side in (partial(theirs, compiled=compiled), ours):
                pipe, far = processes.Pipe()
                with _as_runner_has_it() if side is ours else nullcontext():
                    processes.Process(
                        target=serve,
                        args=(side, network, resolution, batch, options.seed, far),
                        daemon=True,
                    ).start()
                names, found = pipe.recv()
                steps |= {name: partial(_ask, pipe, name) for name in names}
                layouts |= found
                pipes.append(pipe)
            rates = interleaved(steps, batch, options.rounds, options.seconds)
            for pipe in pipes:
                pipe.send("")
            median = {name: rate["median"] for name, rate in rates.items()}
            of_best = {
                "fp32": median["ours fp32"]
                / max(v for k, v in median.items() if k[:4] == "timm" and "amp" not in k),
                "bf16": median["ours bf16"] / max(v for k, v in median.items() if "amp" in k),
            }
            ratios = {**of_best, "bf16 of defaults": median["ours bf16"] / median["timm"]}
            rows.append(
                {
                    "network": network,
                    "resolution": resolution,
                    "batch": batch,
                    "layouts": layouts,
                    "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
                    "images_per_second": rates,
                }
            )
            print(
                f"{network:<14} {size:>7}  of timm's best: fp32 {ratios['fp32']:.2f}, bf16 "
                f"{ratios['bf16']:.2f};"
                f" bf16 of its defaults {ratios['bf16 of defaults']:.2f}   {median}",
                flush=True,
            )

    summary = {}
    for name in ("fp32", "bf16", "bf16 of defaults"):
        values = [row["ratios"][name] for row in rows]
        summary[name] = {
            "min": min(values),
            "median": statistics.median(values),
            "max": max(values),
        }
        print(f"{name}: {summary[name]}")
    print(_table(rows))
    cores = torch.get_num_threads() if device.type == "cpu" else 1
    name = (
        "timm-loop"
        + "-torchcompile" * options.torchcompile
        + f"-{device.type}"
        + f"-{cores}-cores" * (cores > 1)
    )
    write(name, device, {"options": vars(options), "summary": summary, "rows": rows}, "timm")


@contextmanager
def _as_runner_has_it() -> Iterator[None]:
    """For processes started within the block, what runner.py sets of torch's threads
    (docs/decisions.md#spin)."""
    before = os.environ.get("GOMP_SPINCOUNT")
    os.environ["GOMP_SPINCOUNT"] = before or "10000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["GOMP_SPINCOUNT"]


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """The ratios in Markdown, a row a size, ours over timm's best flags."""
    lines = [
        "| network | pixels | images | fp32 | bf16 | bf16 of timm's defaults |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratios = " | ".join(f"{ratio:.2f}" for ratio in row["ratios"].values())
        lines.append(f"| {row['network']} | {row['resolution']} | {row['batch']} | {ratios} |")
    return "\n".join(lines)


def _ask(pipe: Connection, name: str) -> None:
    pipe.send(name)
    pipe.recv()


if __name__ == "__main__":
    main()
