"""All 17 rows on a CUDA device: images/s, share of the peak FLOPs, peak memory, time waiting for data; timm beside.

Without a CUDA device it writes "not measured"; --cpu runs it with whatever settings on the CPU, to show that it works.
Run as: python -m benchmarks.gpu --help
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ablations import PAPER, get_regime
from benchmarks.measure import interleaved, write
from benchmarks.timm_loop import timm_step
from data import Augmentation, train_batches
from models.builder import build
from models.complexity import architecture_complexity
from training.clock import Clock
from training.device import set_up, threads
from training.layout import lay_out
from training.recipe import Recipe
from training.trial import Work, choose
from training.update import Learner, update

TIMM = {"baseline": "resnet50", "training-recipe": "resnet50", "separate-downsampling": "convnext_tiny"}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s (two for a multiply-add) of the SXM cards, from NVIDIA's data sheets."""


class Noise:
    """Seeded uint8 pictures of 256 x 256 pixels in memory, as a decoded store has them."""

    def __init__(self, count: int, side: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pictures = torch.randint(0, 256, (64, side, side, 3), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, 10, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Tensor:
        return self.pictures[index % 64]


def measure(step_name: str, options: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """One row: the updates of a run, from augmented pictures to the optimizer."""
    regime, recipe = get_regime(options.regime), Recipe(epochs=300, batch_size=options.batch)
    architecture = PAPER.architecture(step_name, regime, 1000)
    work = Work(architecture, options.resolution, options.batch, options.precision, 0.1, True, 0.1)
    choice = choose(work, device, 10**7 // options.batch, None, patient=device.type == "cpu")
    torch.manual_seed(0)
    model = build(architecture, drop_path=0.1, layer_scale=recipe.layer_scale).to(device)
    learner = Learner(lay_out(model, choice.layout), recipe, choice.layout, device, options.precision)
    warm, updates = options.warm, options.updates
    store = Noise((warm + updates) * options.batch, round(options.resolution / 0.875))
    batches = train_batches(
        store, Augmentation(), options.resolution, seed=0, epoch=0, batch_size=options.batch,
        workers=options.workers, device=device,
    )  # fmt: skip
    with threads(choice.layout.threads):
        for number in range(warm + updates):
            if number == warm:
                learner.watch.drain()
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                started, learner.clock = time.perf_counter(), Clock()
            update(learner, number, batches, recipe.peak_lr)
        learner.watch.drain()
    seconds, waiting = time.perf_counter() - started, learner.clock.read()["data"]
    batches.close()  # type: ignore[attr-defined]
    rate = updates * options.batch / seconds
    flops = 6 * architecture_complexity(architecture, options.resolution).flops_paper_convention  # forward, backward
    peak = next((value for name, value in PEAK.items() if name in _name(device)), None)
    row: dict[str, object] = {
        "step": step_name, "layout": str(choice.layout), "updates": updates, "images_per_second": round(rate, 1),
        "share_of_peak_flops": round(rate * flops / peak, 3) if peak else "not known for this device",
        "peak_memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        if device.type == "cuda" else "not measured",
        "waiting_for_data": round(waiting / seconds, 4),
    }  # fmt: skip
    if network := TIMM.get(step_name) if options.regime == "tiny" else None:
        row["timm"] = _timm(network, options, device)
    return row


def _timm(network: str, options: argparse.Namespace, device: torch.device) -> dict[str, dict[str, float]]:
    """timm's loop with its best flags and the pictures already on the device; channels last or not, compiled or not."""
    images = torch.randn(options.batch, 3, options.resolution, options.resolution).to(device)
    labels = torch.randint(1000, (options.batch,)).to(device)
    steps: dict[str, Callable[[], None]] = {}
    for last in (False, True):
        for compiled in (False, True) if device.type == "cuda" else (False,):
            name = "amp" * (options.precision == "bf16") + " fused" + " channels-last" * last + " compiled" * compiled
            steps[name.strip()] = timm_step(
                network, images, labels, amp=options.precision == "bf16", channels_last=last, fused=True,
                compiled=compiled,
            )  # fmt: skip
    return interleaved(steps, options.batch, options.updates, 30)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="run on the CPU, with small settings, to see that it works")
    parser.add_argument("--regime", default="tiny", choices=["pocket", "tiny", "base"])
    parser.add_argument("--resolution", type=int, default=224, help="pixels")
    parser.add_argument("--batch", type=int, default=256, help="pictures per update")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--workers", type=int, default=12, help="processes that prepare pictures")
    parser.add_argument("--warm", type=int, default=10, help="updates before the clock starts")
    parser.add_argument("--updates", type=int, default=40, help="timed updates")
    parser.add_argument("--steps", nargs="*", help="names or numbers; all 17 rows if none is given")
    parser.add_argument("--minutes", type=float, default=9, help="rows begun after this are left out")
    options = parser.parse_args()

    regime = get_regime(options.regime)
    chosen = [PAPER.step(name, regime) for name in options.steps or ()] or [
        step for step in PAPER.rows(regime) if not step.reference
    ]
    device = torch.device("cpu" if options.cpu or not torch.cuda.is_available() else "cuda")
    set_up(device, options.precision)
    rows: list[dict[str, object]] = []
    end = time.monotonic() + 60 * options.minutes
    for step in chosen:
        if device.type == "cpu" and not options.cpu:
            rows.append({"step": step.name, "images_per_second": "not measured"})
        elif time.monotonic() > end:
            rows.append({"step": step.name, "images_per_second": "not measured: out of time"})
        else:
            rows.append(measure(step.name, options, device))
        print(rows[-1], flush=True)
    arguments = {**vars(options), "steps": [step.name for step in chosen]}
    write("gpu" if not options.cpu else "gpu-shown-on-cpu", device, {"options": arguments, "rows": rows})


if __name__ == "__main__":
    main()
