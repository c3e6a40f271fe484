"""How fast a row of the roadmap trains on a device, from images to the optimizer, and how fast
timm's loop does."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ablations import PAPER, get_regime, paper_row
from benchmarks.jobs import Finding
from benchmarks.measure import VarianceComponents, interleaved
from benchmarks.timm_loop import timm_step
from data.augmentation import Augmentation
from data.loader import train_batches
from models.builder import build
from models.complexity import architecture_complexity
from training.autotune import Work, choose
from training.device import find_device, set_up
from training.execution import ComputeOptions
from training.monitor import Clock
from training.recipe import Precision, Recipe
from training.spec import short_side
from training.update import TrainState, update

TIMM = {
    "baseline": "resnet50",
    "training-recipe": "resnet50",
    "separate-downsampling": "convnext_tiny",
}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s (two for a multiply-add) of the SXM cards, from NVIDIA's data sheets."""


@dataclass(frozen=True)
class Rates:
    """What is timed."""

    regime: str
    resolution: int
    """Pixels."""
    batch: int
    """Images per update."""
    precision: Precision
    workers: int
    warm: int
    """Updates before the clock starts."""
    updates: int
    """Timed ones."""
    trial: bool = True
    """Whether a trial chooses the layout, as in a run."""
    seconds: float = 30
    """Limit for the timings of timm's settings."""


def measure(step_name: str, rates: Rates, device: torch.device) -> dict[str, object]:
    """One row: the updates of a run, from augmented images to the optimizer."""
    recipe = Recipe(epochs=300, batch_size=rates.batch)
    architecture = PAPER.architecture(step_name, get_regime(rates.regime), 1000)
    options, tried = ComputeOptions(threads=torch.get_num_threads()), dict[ComputeOptions, float]()
    if rates.trial:
        work = Work(architecture, recipe, rates.resolution, rates.precision, device)
        options, tried = choose(work, 10**7 // rates.batch, may_compile=device.type != "cpu")
    torch.manual_seed(0)
    model = build(architecture, drop_path=0.1, layer_scale=recipe.layer_scale)
    train_state = TrainState(model, recipe, options, device, rates.precision)
    store = VarianceComponents(
        (rates.warm + rates.updates) * rates.batch, short_side(rates.resolution)
    )
    batches = train_batches(
        store,
        Augmentation(),
        rates.resolution,
        seed=0,
        epoch=0,
        batch_size=rates.batch,
        workers=rates.workers,
        device=device,
    )
    with options.applied():
        for number in range(rates.warm + rates.updates):
            if number == rates.warm:
                train_state.monitor.drain()
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                started, train_state.clock = time.perf_counter(), Clock()
            update(train_state, number, batches, recipe.peak_lr)
        train_state.monitor.drain()
    seconds, waiting = time.perf_counter() - started, train_state.clock.read()["data"]
    batches.close()
    rate = rates.updates * rates.batch / seconds
    row: dict[str, object] = {
        "step": step_name,
        "layout": str(options),
        "updates": rates.updates,
        "images_per_second": round(rate, 1),
        "without_images": {str(each): round(rate, 1) for each, rate in tried.items()},
        "share_of_peak_flops": _share_of_peak(step_name, rates, rate, device),
        "peak_memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 2)
        if device.type == "cuda"
        else "not measured",
        "waiting_for_data": round(waiting / seconds, 4),
    }
    if network := TIMM.get(step_name) if rates.regime == "tiny" else None:
        del train_state, model
        row["timm"] = timm = _timm(network, rates, device)
        row["of_timms_best"] = round(rate / max(each["median"] for each in timm.values()), 3)
    return row


def found(step_name: str, rates: Rates, device_name: str, cpu_threads: int) -> Iterator[Finding]:
    """`measure`, as a job of the check."""
    torch.set_num_threads(cpu_threads)
    device = find_device(device_name)
    set_up(device, rates.precision)
    row = measure(step_name, rates, device)
    beside = f", {row['of_timms_best']} of timm's best" if "of_timms_best" in row else ""
    said = (
        f"{row['images_per_second']} images/s ({row['layout']}){beside}, waiting "
        f"{row['waiting_for_data']:.1%}"
    )
    yield Finding(
        f"rate of {step_name}, {rates.precision}",
        None,
        f"{said}, {row['peak_memory_gib']} GiB",
        row,
    )


def _share_of_peak(step_name: str, rates: Rates, rate: float, device: torch.device) -> float | str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((value for card, value in PEAK.items() if card in name), None)
    if peak is None:
        return "not known for this device"
    paper = paper_row(rates.regime, step_name)
    if rates.resolution == 224 and paper is not None and paper.gflops_recount is not None:
        flops = 1e9 * paper.gflops_recount
    else:
        architecture = PAPER.architecture(step_name, get_regime(rates.regime), 1000)
        flops = architecture_complexity(architecture, rates.resolution).flops_paper_convention
    return round(
        rate * 6 * flops / peak, 3
    )  # two for a multiply-add; forward pass, and a backward pass of two


def _timm(network: str, rates: Rates, device: torch.device) -> dict[str, dict[str, float]]:
    """timm's loop with its best flags and the images already on the device.

    Channels last or not, and the faster of the two compiled as well: torch.compile chooses the
    memory formats of convolutions itself.
    """
    images = torch.randn(rates.batch, 3, rates.resolution, rates.resolution).to(device)
    labels = torch.randint(1000, (rates.batch,)).to(device)
    half = rates.precision == "bf16"

    def time_of(last: bool, compiled: bool) -> tuple[str, dict[str, float]]:
        name = "amp" * half + " fused" + " channels-last" * last + " compiled" * compiled
        step: Callable[[], None] = timm_step(
            network, images, labels, amp=half, channels_last=last, fused=True, compiled=compiled
        )
        found = interleaved({name.strip(): step}, rates.batch, rates.updates, rates.seconds / 3)
        return name.strip(), found[name.strip()]

    timed = dict([time_of(False, False), time_of(True, False)])
    if device.type == "cuda":
        last = max(timed, key=lambda name: timed[name]["median"]).endswith("channels-last")
        timed |= dict([time_of(last, True)])
    return timed
