"""How fast a row of the roadmap trains on a device, what each option is worth, and timm's rate."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import torch

from ablations import PAPER, get_regime, paper_row
from benchmarks.jobs import NOT_MEASURED, Finding
from benchmarks.measure import DrawnImages, interleaved
from benchmarks.timm_loop import timm_step
from data.augmentation import Augmentation
from data.loader import train_batches
from models.builder import build
from models.complexity import architecture_complexity
from training.autotune import Work, choose
from training.checkpoint import on_host
from training.device import (
    can_record,
    depthwise_kernels,
    find_device,
    first_line,
    forget_peak,
    peak_memory,
    set_up,
    wait_for,
)
from training.execution import ComputeOptions
from training.monitor import Clock
from training.recipe import Precision, Recipe
from training.spec import short_side
from training.update import TrainState, noise, update

TIMM = {
    "baseline": "resnet50",
    "training-recipe": "resnet50",
    "separate-downsampling": "convnext_tiny",
}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s (two for a multiply-add) of the SXM cards, from NVIDIA's data sheets."""
_PARTS = 4
"""Parts of the batch in which options are compared: of 64 images, as in food101."""


@dataclass(frozen=True)
class Rates:
    """What is timed."""

    device: str
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
    threads: int
    """CPU threads of a job."""

    def start(self) -> torch.device:
        torch.set_num_threads(self.threads)
        device = find_device(self.device)
        set_up(device, self.precision)
        return device

    def architecture(self, step: str, classes: int = 1000) -> Any:
        return PAPER.architecture(step, get_regime(self.regime), classes)


def rate(step: str, rates: Rates) -> Iterator[Finding]:
    """One row: the updates of a run, from augmented images to the optimizer, and timm's beside."""
    device = rates.start()
    recipe, images = Recipe(epochs=300, batch_size=rates.batch), rates.resolution
    architecture = rates.architecture(step)
    options = ComputeOptions(threads=rates.threads)
    if device.type != "cpu":
        work = Work(architecture, recipe, images, rates.precision, device)
        options, _ = choose(work, 10**7 // rates.batch)
    torch.manual_seed(0)
    model = build(architecture, drop_path=0.1, layer_scale=recipe.layer_scale)
    train_state = TrainState(model, recipe, options, device, rates.precision)
    store = DrawnImages((rates.warm + rates.updates) * rates.batch, short_side(images))
    batches = train_batches(
        store,
        Augmentation(),
        images,
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
                forget_peak(device)
                started, train_state.clock = time.perf_counter(), Clock()
            update(train_state, number, batches, recipe.peak_lr)
        train_state.monitor.drain()
    seconds = time.perf_counter() - started
    waiting = train_state.clock.read()["data"] / seconds
    batches.close()
    speed, peak = rates.updates * rates.batch / seconds, peak_memory(device)
    memory = NOT_MEASURED if peak is None else f"{peak / 2**30:.2f} GiB"
    figures: dict[str, Any] = {
        "options": str(options),
        "images_per_second": round(speed, 1),
        "share_of_peak_flops": _share_of_peak(step, rates, speed, device),
        "peak_memory": memory,
        "waiting_for_data": round(waiting, 4),
    }
    beside = ""
    if network := TIMM.get(step) if rates.regime == "tiny" else None:
        del train_state, model
        figures["timm"] = timm = _timm(network, rates, device)
        ratio = speed / max(each["median"] for each in timm.values())
        figures["of_timms_best"], beside = round(ratio, 3), f", {ratio:.2f} of timm's best"
    text = f"{speed:.1f} images/s ({options}){beside}, waiting {waiting:.1%}, memory {memory}"
    yield Finding(f"{step}, {rates.precision}", None, text, figures)


def worth(step: str, rates: Rates) -> Iterator[Finding]:
    """The rate with each option changed alone, images on the device, over that of the defaults."""
    device = rates.start()
    kernels = depthwise_kernels(device)
    gpu, plain = device.type != "cpu", ComputeOptions(threads=rates.threads)
    cases: list[tuple[str, bool, dict[str, Any], int]] = [
        ("defaults, in parts of a quarter", True, {}, _PARTS),
        ("one part, as in food101-h200", True, {}, 1),
        ("contiguous", True, {"channels_last": False}, _PARTS),
        ("weights cast in every part", True, {"cast_once": False}, _PARTS),
        ("cuDNN's depthwise kernels", bool(kernels), {"depthwise": "cudnn"}, _PARTS),
        ("torch's depthwise kernels", bool(kernels), {"depthwise": "native"}, _PARTS),
        ("rewritten convolutions", True, {"rewritten": True}, _PARTS),
        ("compiled", gpu, {"compile": True}, _PARTS),
        # Last, because a recording that fails spoils its process.
        ("recorded (CUDA graphs)", can_record(device), {"recorded": True}, _PARTS),
    ]
    default = None
    for name, possible, changes, parts in cases:
        what = f"{step}, {rates.precision}: {name}"
        if not possible:
            yield Finding(what, None, f"{NOT_MEASURED}: for a GPU")
            continue
        try:
            speed = _speed(step, rates, device, replace(plain, **changes), parts)
        except Exception as error:  # compilers fail in many ways
            yield Finding(what, None, f"{NOT_MEASURED}: {first_line(error)}")
            continue
        default = default or speed
        text = f"{speed:.1f} images/s, {speed / default:.2f} of the defaults"
        yield Finding(what, None, text, {"images_per_second": speed, "worth": speed / default})
    train_state = _train_state(step, rates, device, plain, 1)
    wait_for(device)
    started = time.perf_counter()
    on_host(train_state.state_dict())
    text = f"{time.perf_counter() - started:.3f} s until training goes on"
    yield Finding(f"{step}: a checkpoint, written in a thread", None, text)


def _train_state(
    step: str, rates: Rates, device: torch.device, options: ComputeOptions, parts: int
) -> TrainState:
    recipe = Recipe(batch_size=rates.batch, micro_batches=min(parts, rates.batch // 2))
    model = build(rates.architecture(step), drop_path=0.1, layer_scale=recipe.layer_scale)
    return TrainState(model, recipe, options, device, rates.precision)


def _speed(
    step: str, rates: Rates, device: torch.device, options: ComputeOptions, parts: int
) -> float:
    """Images per second of updates, the best of three times."""
    train_state = _train_state(step, rates, device, options, parts)
    count = rates.batch // train_state.recipe.micro_batches
    batches, times = repeat(noise(count, rates.resolution, 1000, device)), []
    each = max(1, rates.updates // 8)
    with options.applied():
        for number in range(4):
            wait_for(device)
            started = time.perf_counter()
            for _ in range(each):
                update(train_state, number, batches, 0.0)
            wait_for(device)
            times.append((time.perf_counter() - started) / each)
    return round(rates.batch / min(times[1:]), 1)


def _share_of_peak(step: str, rates: Rates, speed: float, device: torch.device) -> float | str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((value for card, value in PEAK.items() if card in name), None)
    if peak is None:
        return "not known for this device"
    paper = paper_row(rates.regime, step)
    if rates.resolution == 224 and paper is not None and paper.gflops_recount is not None:
        flops = 1e9 * paper.gflops_recount
    else:
        architecture = rates.architecture(step)
        flops = architecture_complexity(architecture, rates.resolution).flops_paper_convention
    return round(speed * 6 * flops / peak, 3)  # two for a multiply-add; the backward pass is two


def _timm(network: str, rates: Rates, device: torch.device) -> dict[str, dict[str, float]]:
    """timm's loop with its best flags and the images already on the device.

    Channels last or not, and the faster of the two compiled as well: torch.compile chooses the
    memory formats of convolutions itself.
    """
    images = torch.randn(rates.batch, 3, rates.resolution, rates.resolution).to(device)
    labels = torch.randint(1000, (rates.batch,)).to(device)
    half, timed = rates.precision == "bf16", dict[str, dict[str, float]]()

    def time_with(last: bool, compiled: bool) -> None:
        name = "fused" + " amp" * half + " channels-last" * last + " compiled" * compiled
        step: Callable[[], None] = timm_step(
            network, images, labels, amp=half, channels_last=last, fused=True, compiled=compiled
        )
        timed.update(interleaved({name: step}, rates.batch, rates.updates, 10))

    time_with(False, False)
    time_with(True, False)
    if device.type == "cuda":
        last = max(timed, key=lambda name: timed[name]["median"]).endswith("channels-last")
        time_with(last, True)
    return timed
