"""How fast a network trains and images are prepared: measured, remembered, or read from a finished
run."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import torch

from data.augmentation import Augmentation
from data.loader import Batch, train_batches
from data.sizes import Sizes
from studies.study import read_result
from training.device import is_out_of_memory, threads, wait_for
from training.recipe import Recipe
from training.update import TrainState, gradients, step
from utils.files import recall, write_json

SPEEDS = "speeds.json"
"""In a study's folder: measured training rates by device and step."""

_SECONDS = 4.0
"""What the measurement of a network may take, roughly; two sizes of its parts are timed whatever
they take."""
_COUNTED_SECONDS = 0.1
"""For the updates of one size that count, of which there are two at least."""
_IMAGES_SECONDS = 0.1
"""What the measurement of an augmentation takes."""
_CALLS = 3
"""Of an update of one size, at least: a cold one (allocations, choice of kernels) and two that
count."""
_NOISE = 0.05
"""Of a timing, at least, relative."""
_SURE, _ROUGH = 0.15, 0.3
"""Relative error of a forecast by a rate measured at the run's own parts (docs/decisions.md#cost-estimate),
and by another."""


@dataclass(frozen=True)
class Speed:
    """A step's training rate on a device, and how it is known."""

    images_per_second: float
    source: str
    """measured now, estimated now (on fewer images at once than a part of the run's batch),
    remembered, or from a finished run"""
    per_run: float | None = None
    """Seconds that a whole run took, where one is finished."""
    error: float = _SURE
    """By which a forecast with it may be wrong, relative."""


def measure(
    train_states: Iterator[TrainState],
    recipe: Recipe,
    images: Callable[[int], Batch],
    processes: int = 1,
) -> Speed:
    """The training rate of a network under `recipe`, by updates on random images.

    Of `processes` that share a batch's parts the slowest counts; the time in which they add up is
    not known.

    `train_states` are the network in one layout or several, of which the fastest counts, each with
    a recipe of one part; `images` makes a batch of so many. The images at once grow from two to a
    part of the recipe's batch, in one stride where that is quick enough. Where it is not, or where
    it does not fit into memory, the time of a part is continued from the last two sizes on a
    straight line, for an update has a cost that does not depend on its images.
    """
    part = recipe.batch_size // recipe.micro_batches
    train_state, spent = next(train_states), 0.0
    seen = [
        _Timing(0, 0.0, 0.0, 0.0, 0.0)
    ]  # no images take no time: a line through one size begins there
    rows: int | None = min(2, part)
    while rows is not None:
        try:
            seen.append(_time(train_state, images(rows)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(seen) == 1:
                raise
            break
        spent += seen[-1].took
        rows = _next_rows(seen, part, _SECONDS - spent)
    before, last = seen[-2:]
    others = [_time(other, images(last.rows)) for other in train_states]
    best = min([last, *others], key=lambda timing: timing.gradients + timing.step)
    seconds = best.gradients / last.gradients * _continued(seen, part)
    rate = recipe.batch_size / (math.ceil(recipe.micro_batches / processes) * seconds + best.step)
    if last.rows == part:
        return Speed(rate, "measured now", error=max(_SURE, best.spread))
    # What noise in the last two timings does to the line's end.
    wrong = math.hypot(
        *(timing.gradients * max(timing.spread, _NOISE) for timing in (before, last))
    )
    reach = (part - last.rows) / (last.rows - before.rows)
    return Speed(rate, "estimated now", error=max(_ROUGH, wrong * reach / _continued(seen, part)))


@dataclass(frozen=True)
class _Timing:
    """Of updates of one size."""

    rows: int
    """Images at once."""
    gradients: float
    """Seconds, the median."""
    step: float
    """Seconds of the optimizer's step, the median."""
    spread: float
    """Of the seconds of gradients, relative."""
    took: float
    """Seconds in all, as if none had been cold."""


def _time(train_state: TrainState, batch: Batch) -> _Timing:
    train_state.model.train()
    for group in train_state.optimizer.param_groups:
        group["lr"] = 0.0  # weights that wander off make numbers that are slow to compute with
    times: list[tuple[float, float]] = []
    with threads(train_state.options.threads):
        while len(times) < _CALLS or (
            len(times) < 20 and sum(map(sum, times[1:])) < _COUNTED_SECONDS
        ):
            started = time.perf_counter()
            gradients(train_state, 0, repeat(batch))
            wait_for(train_state.device)
            between = time.perf_counter()
            step(train_state)
            wait_for(train_state.device)
            times.append((between - started, time.perf_counter() - between))
    own, steps = zip(*times[1:], strict=True)
    median = statistics.median(own)
    spread = statistics.stdev(own) / median if median else 0.0
    took = len(times) * statistics.mean(map(sum, times[1:]))
    return _Timing(batch.valid, median, statistics.median(steps), spread, took)


def _next_rows(seen: Sequence[_Timing], part: int, seconds: float) -> int | None:
    """The largest size up to `part` that can be timed in `seconds`; None if there is none, and two
    have been seen."""
    last = seen[-1]
    if last.rows == part:
        return None
    rows = part
    while rows > 2 * last.rows and _CALLS * (_continued(seen, rows) + last.step) > seconds:
        rows = 2 ** math.ceil(math.log2(rows) - 1)  # the next smaller power of two
    rows = min(max(rows, 2 * last.rows), part)
    affordable = _CALLS * (_continued(seen, rows) + last.step) <= seconds
    return rows if affordable or len(seen) == 2 else None


def _continued(seen: Sequence[_Timing], rows: int) -> float:
    """Seconds of the gradients of `rows` images, on the line through the last two sizes."""
    before, last = seen[-2:]
    slope = max(last.gradients - before.gradients, 0.0) / (last.rows - before.rows)
    # A fixed cost is no less than nothing, whatever the noise.
    return last.gradients + min(slope, last.gradients / last.rows) * (rows - last.rows)


@dataclass(frozen=True)
class _Images:
    """Grey images of one size, to time the augmentation on."""

    image: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> torch.Tensor:
        return self.image


def measure_images(augmentation: Augmentation, resolution: int, sizes: Sizes) -> float:
    """Training images that one process prepares a second, from decoded images of the data set's
    size."""
    noise = torch.randint(0, 256, (sizes.height, sizes.width, 3), dtype=torch.uint8)
    store, made, started = (
        _Images(noise, torch.zeros(4096, dtype=torch.int64)),
        0,
        time.perf_counter(),
    )
    for _ in train_batches(store, augmentation, resolution, seed=0, epoch=0, batch_size=16):
        made += 16
        if time.perf_counter() - started > _IMAGES_SECONDS:
            break
    return made / (time.perf_counter() - started)


def remember(folder: Path, device: str, speeds: Mapping[str, Speed]) -> None:
    """Keep what was measured now in the study's folder, for the next bill. Only a study that exists
    is touched."""
    new = {
        step: speed.images_per_second
        for step, speed in speeds.items()
        if speed.source == "measured now"
    }
    if new and (folder / "study.json").exists():
        old = {step: speed.images_per_second for step, speed in remembered(folder, device).items()}
        write_json(folder / SPEEDS, {**recall(folder / SPEEDS), device: {**old, **new}})


def remembered(folder: Path, device: str) -> dict[str, Speed]:
    """Rates by step that `remember` kept of this device."""
    try:
        rates = recall(folder / SPEEDS).get(device, {}).items()
        return {
            step: Speed(float(rate), "remembered")
            for step, rate in rates
            if 0 < float(rate) < math.inf
        }
    except (ValueError, TypeError, AttributeError):
        return {}


def of_a_finished_run(folder: Path, step: str, device: str) -> Speed | None:
    """That of a run of the step which ended on this device, if there is one."""
    for path in sorted((folder / step).glob("seed-*/result.json")):
        with contextlib.suppress(ValueError):  # the run itself will say that it is damaged
            result = read_result(path.parent)
            if result and result.get("device") == device:
                rate, seconds = (
                    float(result["images_per_second"]),
                    float(result["seconds"]["total"]),
                )
                if 0 < rate < math.inf and 0 <= seconds < math.inf:
                    return Speed(rate, "from a finished run", seconds, _NOISE)
    return None
