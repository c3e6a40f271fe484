"""How fast a network trains and pictures are prepared: measured, remembered, or read from a finished run."""

import contextlib
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from data.augmentation import Augmentation
from data.loader import train_batches
from data.sizes import Sizes
from training import memory
from training.device import autocast, wait_for
from training.optimization import make_optimizer
from training.recipe import Precision, Recipe
from training.study import read_json, read_result, write_json

SPEEDS = "speeds.json"
"""In a study's folder: measured training rates by device and step."""

_SECONDS = {"cpu": 0.06, "cuda": 0.3}
"""What a measurement may take, roughly, once it is warm."""


@dataclass(frozen=True)
class Speed:
    """A step's training rate on a device, and how it is known."""

    images_per_second: float
    source: str
    """measured now, remembered, or from a finished run"""
    per_run: float | None = None
    """Seconds that a whole run took, where one is finished."""


def measure(model: nn.Module, recipe: Recipe, resolution: int, precision: Precision, device: torch.device) -> float:
    """Training pictures per second of updates on random pixels, in well under a second for a network that is quick.

    The number of pictures at once grows towards the recipe's micro-batch until the next size would take longer than
    the measurement may, or no longer fits into memory. What a micro-batch takes is then continued from the last two
    sizes on a straight line, for an update has a cost that does not depend on its pictures. The optimizer's share is
    counted at the recipe's batch.
    """
    model.train()
    optimizer, budget = make_optimizer(model, recipe, device), _SECONDS.get(device.type, 0.5)
    most = max(recipe.batch_size // recipe.micro_batches, 1)
    rows, seen = min(4, most), list[tuple[int, float]]()
    while not seen or (seen[-1][0] < most and 4 * seen[-1][1] < budget):
        images = torch.rand(rows, 3, resolution, resolution, device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(rows, dtype=torch.int64, device=device)

        def update() -> None:
            with autocast(precision, device):
                loss = F.cross_entropy(model(images).float(), labels)  # noqa: B023
            torch.autograd.backward(loss)

        try:
            times = [_timed(update, device)]  # cold: allocations, choice of kernels
            while len(times) < 3 or (sum(times[1:]) < budget / 4 and len(times) < 20):
                times.append(_timed(update, device))
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error) or not seen:
                raise
            break
        seen.append((rows, statistics.median(times[1:])))
        rows = min(4 * rows, most)
    (few, quick), (many, slow) = (seen[-2] if len(seen) > 1 else (0, 0.0)), seen[-1]
    per_picture = max((slow - quick) / (many - few), slow / many / 2)  # no less than half, whatever the noise
    whole = slow + per_picture * (most - many)
    step = _timed(optimizer.step, device)
    return 1 / (whole / most + min(step, _timed(optimizer.step, device)) / recipe.batch_size)


def _timed(work: Any, device: torch.device) -> float:
    started = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - started


@dataclass(frozen=True)
class _Pictures:
    """Grey pictures of one size, to time the augmentation on."""

    picture: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> torch.Tensor:
        return self.picture


def measure_pictures(augmentation: Augmentation, resolution: int, sizes: Sizes, seconds: float = 0.1) -> float:
    """Training pictures that one process prepares a second, from decoded pictures of the data set's size."""
    noise = torch.randint(0, 256, (sizes.height, sizes.width, 3), dtype=torch.uint8)
    store, made, started = _Pictures(noise, torch.zeros(4096, dtype=torch.int64)), 0, time.perf_counter()
    for _ in train_batches(store, augmentation, resolution, seed=0, epoch=0, batch_size=16):
        made += 16
        if time.perf_counter() - started > seconds:
            break
    return made / (time.perf_counter() - started)


def _read(folder: Path) -> dict[str, Any]:
    """speeds.json; nothing if it is missing or damaged, for a note of the past is no reason to stop."""
    try:
        return read_json(folder / SPEEDS)
    except ValueError:
        return {}


def remember(folder: Path, device: str, speeds: Mapping[str, Speed]) -> None:
    """Keep what was measured now in the study's folder, for the next bill. Only a study that exists is touched."""
    new = {step: speed.images_per_second for step, speed in speeds.items() if speed.source == "measured now"}
    if new and (folder / "study.json").exists():
        old = {step: speed.images_per_second for step, speed in remembered(folder, device).items()}
        write_json(folder / SPEEDS, {**_read(folder), device: {**old, **new}})


def remembered(folder: Path, device: str) -> dict[str, Speed]:
    """Rates by step that `remember` kept of this device."""
    try:
        rates = _read(folder).get(device, {}).items()
        return {step: Speed(float(rate), "remembered") for step, rate in rates if 0 < float(rate) < math.inf}
    except (ValueError, TypeError, AttributeError):
        return {}


def of_a_finished_run(folder: Path, step: str, device: str) -> Speed | None:
    """That of a run of the step which ended on this device, if there is one."""
    for path in sorted((folder / step).glob("seed-*/result.json")):
        with contextlib.suppress(ValueError):  # the run itself will say that it is damaged
            result = read_result(path.parent)
            if result and result.get("device") == device:
                rate, seconds = float(result["images_per_second"]), float(result["seconds"]["total"])
                if 0 < rate < math.inf and 0 <= seconds < math.inf:
                    return Speed(rate, "from a finished run", seconds)
    return None
