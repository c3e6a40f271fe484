"""Our training step beside that of timm's train.py, on the same networks, pictures, batch and precision.

timm's side is the inner loop of its script made of timm's own parts (create_model, create_optimizer_v2,
LabelSmoothingCrossEntropy) under its flags --channels-last, --amp --amp-dtype bfloat16 and --opt-kwargs fused=True.
Run as: python -m benchmarks.timm_loop --help
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace

import torch
from timm import create_model
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from torch import Tensor

from ablations import get_regime
from benchmarks.measure import interleaved, write
from data.loader import Batch
from models.builder import build
from training.device import autocast, set_up, threads
from training.optimization import loss_function, make_optimizer
from training.recipe import Precision, Recipe
from training.run import Layout
from training.trial import Work, choose, forward_of, lay_out
from training.watch import Watch

NETWORKS = {"resnet50": "baseline", "convnext_tiny": "separate-downsampling"}
RECIPE = Recipe(epochs=300, batch_size=4096)


def timm_step(
    network: str, images: Tensor, labels: Tensor, *, amp: bool, channels_last: bool, fused: bool
) -> Callable[[], None]:
    device = images.device
    model = create_model(network, num_classes=1000, drop_path_rate=RECIPE.drop_path).to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    kwargs = {"fused": True} if fused else {}
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-4, weight_decay=RECIPE.weight_decay, **kwargs)
    loss_of = LabelSmoothingCrossEntropy(RECIPE.label_smoothing)
    pictures = images.contiguous()

    def step() -> None:
        given = pictures.contiguous(memory_format=torch.channels_last) if channels_last else pictures
        with autocast("bf16" if amp else "fp32", device):
            loss = loss_of(model(given), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(
    step: str, images: Tensor, labels: Tensor, precision: Precision, classic: bool
) -> tuple[Callable[[], None], Layout]:
    """The body of training.loop's update, in the layout that a trial chose."""
    device, batch = images.device, len(images)
    architecture = get_regime("tiny").architecture(get_regime("tiny").step(step))
    scale = None if classic else RECIPE.layer_scale
    work = Work(architecture, images.shape[2], batch, precision, RECIPE.drop_path, scale is not None, 0.1)
    layout = choose(work, device, 10**6 // batch, None, patient=True).layout
    model = build(architecture, drop_path=RECIPE.drop_path, layer_scale=scale)
    model = lay_out(model.to(device), layout)
    optimizer = make_optimizer(model, replace(RECIPE, lr=1e-4), device)
    forward, watch = forward_of(model, layout), Watch(device)
    data = Batch(images, labels, labels, torch.ones(batch, device=device), batch)

    def update() -> None:
        with threads(layout.threads):
            with autocast(precision, device):
                loss = loss_function(forward(data.images), data, RECIPE.label_smoothing)
            torch.autograd.backward(loss)
            watch.add(0, loss)
            optimizer.step()
            optimizer.zero_grad()

    return update, layout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", default=["64x8", "64x16", "96x8", "128x4"], help="pixels x batch")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each setting")
    parser.add_argument("--seconds", type=float, default=15, help="limit for the timings of one size")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_up(device, "bf16")
    rows = []
    for network in options.networks:
        for size in options.sizes:
            resolution, batch = map(int, size.split("x"))
            torch.manual_seed(options.seed)
            images = torch.randn(batch, 3, resolution, resolution).to(device)
            images = images.contiguous(memory_format=torch.channels_last)
            labels = torch.randint(1000, (batch,)).to(device)
            steps: dict[str, Callable[[], None]] = {
                "timm": timm_step(network, images, labels, amp=False, channels_last=False, fused=False)
            }
            for amp in (False, True):
                for last in (False, True):
                    name = "timm" + " amp" * amp + " channels-last" * last + " fused"
                    steps[name] = timm_step(network, images, labels, amp=amp, channels_last=last, fused=True)
            layouts = {}
            for precision in ("fp32", "bf16"):
                classic = network == "resnet50"
                steps[f"ours {precision}"], layout = our_step(NETWORKS[network], images, labels, precision, classic)  # type: ignore[arg-type]
                layouts[precision] = str(layout)
            rates = interleaved(steps, batch, options.rounds, options.seconds)
            median = {name: rate["median"] for name, rate in rates.items()}
            of_best = {
                "fp32": median["ours fp32"] / max(v for k, v in median.items() if k[:4] == "timm" and "amp" not in k),
                "bf16": median["ours bf16"] / max(v for k, v in median.items() if "amp" in k),
            }
            ratios = {**of_best, "bf16 of defaults": median["ours bf16"] / median["timm"]}
            rows.append(
                {"network": network, "resolution": resolution, "batch": batch, "layouts": layouts,
                 "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()}, "images_per_second": rates}
            )  # fmt: skip
            print(f"{network:<14} {size:>7}  of timm's best: fp32 {ratios['fp32']:.2f}, bf16 {ratios['bf16']:.2f};"
                  f" bf16 of its defaults {ratios['bf16 of defaults']:.2f}   {median}", flush=True)  # fmt: skip

    summary = {}
    for name in ("fp32", "bf16", "bf16 of defaults"):
        values = [row["ratios"][name] for row in rows]
        summary[name] = {"min": min(values), "median": statistics.median(values), "max": max(values)}
        print(f"{name}: {summary[name]}")
    write(f"timm-loop-{device.type}", device, {"options": vars(options), "summary": summary, "rows": rows}, "timm")


if __name__ == "__main__":
    main()
