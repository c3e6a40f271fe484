"""What a study costs in time and disk, estimated first and corrected as its runs finish."""

import contextlib
import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import torch

from data.augmentation import Augmentation
from data.loader import batches_per_epoch, train_batches
from data.sizes import Sizes
from models import Architecture
from models.builder import outline
from studies.run import Run, RunState
from studies.study import read_result
from training.autotune import Work, micro_batches_that_fit
from training.device import (
    device_name,
    empty_cache,
    first_line,
    is_out_of_memory,
    set_up,
    wait_for,
)
from training.execution import ComputeOptions, Execution
from training.recipe import Recipe
from training.update import gradients, step
from utils.files import require_free
from utils.text import duration, plural, readable_bytes

_TRIES = 3
"""How often each network is timed, in turn with the others; a busy moment spoils one try of few."""
_TIMING_SECONDS = 6.0
"""What timing may take on a CPU, the first network apart. Those that are left are counted."""
_TRY_SECONDS = 1.0
"""What one update may take in a try. Where it would take longer, fewer images are timed."""
_IMAGES_SECONDS = 0.1
"""How long the augmentation is timed."""
_FORWARD_SHARE = 3
"""An update costs about three times the forward pass that evaluation needs."""
_DISAGREE, _POWER = 0.2, 2.8
"""Share of the test images that two runs classify differently, and the standard errors of a
difference that a test at 5 % finds with 80 % power."""
_SHARED_CORES = 1.3
"""About how much longer a run takes where others train on the other cores."""
_DONE: tuple[RunState, ...] = ("finished", "shared")
"""States of runs that are not going to be trained."""


@dataclass(frozen=True)
class Rate:
    """How fast a network trains."""

    images_per_second: float
    source: str
    """measured now, estimated now (with fewer images at once than the run has), by FLOPs (and the
    networks that were timed), or from a finished run"""


class CostEstimate:
    """The cost of the runs that are still to be trained.

    Rows with finished runs take as long as these did. Other rows take what is estimated by timed
    updates, times the ratio of actual to estimated time that finished runs of this command had.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        sizes: Sizes,
        execution: Execution,
        overwrite: Collection[str] = (),
        jobs: int = 1,
    ) -> None:
        """Read what finished runs of this study and device took, and time updates of other rows.

        `jobs` processes share the runs. torch's number of threads here is that of each of them.

        Raises:
            ValueError: the images of a micro-batch do not fit into the device's memory, or there
                are fewer training images than a batch. The message says what would do.
        """
        study, device = runs[0].study, execution.device
        set_up(device, study.config.precision, search=False)  # as runs do, in fewer shapes
        self.runs, self.sizes, self.processes = list(runs), sizes, execution.processes.count
        self.jobs = jobs
        self.device = device
        self.device_name = device_name(device, self.processes)
        self.states = [run.state(overwrite) for run in runs]
        partly = {"finished": 1.0, "shared": 1.0, "to train": 0.0}
        self.done = [partly.get(state, run.done_share) for run, state in zip(runs, self.states)]
        self.rates: dict[str, Rate] = {}
        self.params: dict[str, int] = {}
        self.took: defaultdict[str, list[float]] = defaultdict(list)
        self._compared: list[tuple[float, float]] = []
        """Estimated and actual seconds of runs that finished under this estimate."""
        to_time: dict[object, list[Run]] = {}
        unfinished = [run for run, state in zip(runs, self.states) if state not in _DONE]
        for run in {run.step: run for run in unfinished}.values():
            batches_per_epoch(sizes.train, run.recipe.batch_size)
            if run.step not in overwrite and self._read_finished(study.folder / run.step):
                self.params[run.step] = _count_params(run)
            else:
                to_time.setdefault(_cost(run), []).append(run)
        self._time(to_time, execution)
        augmentations = dict.fromkeys(run.recipe.augmentation for run in runs)
        preparing = {each: self._images_per_second(each) for each in augmentations}
        self.image_rate = min(preparing.values())
        self.expected = [
            self._seconds(run, preparing[run.recipe.augmentation], execution.workers)
            for run in runs
        ]

    def _read_finished(self, folder: Path) -> bool:
        """Note what finished runs in a row's folder took on this device, if there are any."""
        for path in sorted(folder.glob("seed-*/result.json")):
            with contextlib.suppress(ValueError):  # a damaged result is reported by its run
                result = read_result(path.parent)
                if result and result.get("device") == self.device_name:
                    self.took[folder.name].append(result["seconds"]["total"])
                    rate = result["images_per_second"]
                    self.rates[folder.name] = Rate(rate, "from a finished run")
        return folder.name in self.rates

    def _time(self, to_time: dict[object, list[Run]], execution: Execution) -> None:
        """Time updates of a run of each kind: the best of several tries spread over all kinds.

        On a CPU only while there is time for it; the other kinds take as long for a FLOP. On a GPU
        each is tried once, because it has to fit into the memory.
        """
        if to_time:
            networks = plural(len(to_time), "network")
            print(f"timing {networks} on {self.device_name} ...", file=sys.stderr, flush=True)
        best: dict[object, Rate] = {}
        started = time.monotonic()
        for attempt in range(_TRIES):
            for kind, (run, *_others) in to_time.items():
                late = best and time.monotonic() - started > _TIMING_SECONDS
                if late and (attempt or execution.device.type == "cpu"):
                    continue
                rate = _time_updates(run, execution)
                if kind not in best or rate.images_per_second > best[kind].images_per_second:
                    best[kind] = rate
        if len(best) < len(to_time):
            flops = {kind: _flops(runs[0]) for kind, runs in to_time.items()}
            speed = mean(rate.images_per_second * flops[kind] for kind, rate in best.items())
            best = {kind: Rate(speed / flops[kind], "by FLOPs") for kind in to_time} | best
        for kind, runs in to_time.items():
            params = _count_params(runs[0])
            for run in runs:
                self.rates[run.step], self.params[run.step] = best[kind], params

    def _images_per_second(self, augmentation: Augmentation) -> float:
        """Training images that one process prepares from decoded images of the data set's size."""
        resolution, count, started = self.runs[0].study.config.resolution, 0, time.perf_counter()
        image = torch.randint(0, 256, (self.sizes.height, self.sizes.width, 3), dtype=torch.uint8)
        store = _GreyImages(image, torch.zeros(4096, dtype=torch.int64))
        for _ in train_batches(store, augmentation, resolution, seed=0, epoch=0, batch_size=16):
            count += 16
            if time.perf_counter() - started > _IMAGES_SECONDS:
                break
        return count / (time.perf_counter() - started)

    def _seconds(self, run: Run, image_rate: float, workers: int) -> float:
        """Estimated seconds of a whole run."""
        if run.step not in self.rates:
            return 0.0
        rate = self.rates[run.step].images_per_second
        images = self._images(run)
        training, preparing = images / rate, images / image_rate / self.processes
        training = max(training, preparing / workers) if workers else training + preparing
        evaluated = run.recipe.epochs * self.sizes.validation + self.sizes.test
        return training + evaluated / (_FORWARD_SHARE * rate)

    @property
    def ratio(self) -> float:
        """Actual over estimated time of the runs that finished under this estimate."""
        expected, actual = (sum(column) for column in zip(*self._compared, (0.0, 0.0)))
        if expected:
            return float(actual / expected)
        return _SHARED_CORES if self.jobs > 1 and self.device.type == "cpu" else 1.0

    @property
    def left(self) -> int:
        """How many runs are not finished."""
        return sum(state not in _DONE for state in self.states)

    def seconds_left(self) -> float:
        """Seconds that the unfinished runs will take, with all processes."""
        return sum(map(self._left, range(len(self.runs))), 0.0) / self.jobs

    def _left(self, index: int) -> float:
        took = self.took.get(self.runs[index].step)
        whole = mean(took) if took else self.expected[index] * self.ratio
        return whole * (1 - self.done[index])

    def progress(self) -> list[str]:
        """Note which runs have finished since the last call, in any process: a line for each, with
        the time that is left."""
        lines = []
        for index, run in enumerate(self.runs):
            with contextlib.suppress(ValueError):
                if self.states[index] not in _DONE and (result := read_result(run.folder)):
                    seconds = result["seconds"]["total"]
                    if result.get("device") == self.device_name:
                        self.took[run.step].append(seconds)
                        self._compared.append((self.expected[index], seconds))
                    self.states[index], self.done[index] = "finished", 1.0
                    lines.append(f"{finished_line(run, result)}; {self.time_left()}")
        return lines

    def time_left(self, passed: float = 0.0) -> str:
        """How many runs are left, and about how long they take, `passed` seconds after the last
        one finished."""
        if not self.left:
            return "the run is finished" if len(self.runs) == 1 else "all runs are finished"
        seconds = max(0.0, self.seconds_left() - passed)
        return f"{plural(self.left, 'run')} left, about {duration(seconds)}"

    def disk(self) -> int:
        """Bytes that the unfinished runs will write."""
        return sum(
            run_bytes(self.params[run.step], run.recipe, self.sizes.test)
            for run, state in zip(self.runs, self.states)
            if state not in _DONE
        )

    def require_disk(self, data_dir: Path, cache: Path, runs: Path) -> None:
        """Raise OSError unless the data set, its cache and the runs fit on the disks."""
        needs: dict[int, list[tuple[Path, int, str]]] = {}
        for path, amount, what in (
            (data_dir, self.sizes.download, "the data set"),
            (cache, self.sizes.cache, "the image cache"),
            (runs, self.disk(), "the runs, with their checkpoints,"),
        ):
            place = next(p for p in (path, *path.absolute().parents) if p.exists())
            needs.setdefault(place.stat().st_dev, []).append((place, amount, what))
        for on_disk in needs.values():
            what = on_disk[0][2] if len(on_disk) == 1 else "the study (images and runs)"
            require_free(on_disk[-1][0], sum(amount for _, amount, _ in on_disk), what)

    @property
    def expectation(self) -> str:
        """Two lines: what is trained, how long it takes and where its results will be; and what so
        many updates, test images and seeds can show."""
        config, left = self.runs[0].study.config, self.seconds_left()
        networks = plural(len({(run.architecture, run.recipe) for run in self.runs}), "network")
        machine = "this CPU" if self.device.type == "cpu" else "this machine"
        time_left = f"about {duration(left)} of training on {machine}" if left else "all trained"
        updates = {self._images(run) // run.recipe.batch_size for run in self.runs}
        test, seeds = self.sizes.test, len({run.seed for run in self.runs})
        gap = 100 * _POWER * math.sqrt(_DISAGREE / (test * max(2, seeds)))
        found = f"differences above about {gap:.{0 if gap > 9.5 else 1}f} points"
        found = found if gap < 100 else "no difference"
        two = "one seed gives no verdict, two" if seeds == 1 else f"{seeds} seeds"
        return (
            f"{networks} on {self.sizes.train:,} images of {config.dataset}, "
            f"{config.resolution}x{config.resolution}: {time_left}; in "
            f"{self.runs[0].study.folder}\n"
            f"{' or '.join(f'{count:,}' for count in sorted(updates))} update"
            f"{'s' * (updates != {1})} a run; chance is "
            f"{100 / self.sizes.classes:.2g} %; {two} on {test:,} test images find {found}"
        )

    def _images(self, run: Run) -> int:
        return run.recipe.images_seen(self.sizes.train)

    def __str__(self) -> str:
        """A table: images, disk, device, and for each row its rate, time left and runs."""
        counts = ((self.states.count(state), state) for state in get_args(RunState))
        total = ", ".join(f"{count} {state}" for count, state in counts if count)
        images = [self._images(run) for run in self.runs]
        to_come = sum(round(count * (1 - done)) for count, done in zip(images, self.done))
        lines = [
            f"{self.runs[0].study.folder}: {plural(len(self.runs), 'run')}, {total}",
            f"images: {' or '.join(f'{count:,}' for count in dict.fromkeys(images))} a run in "
            f"training, {to_come:,} in all still to come",
            f"disk: {readable_bytes(self.sizes.download)} of data set to come, "
            f"{readable_bytes(self.sizes.cache)} of decoded images, "
            f"{readable_bytes(self.disk())} of weights and checkpoints",
            f"device: {self.device_name}; one process prepares {self.image_rate:,.0f} images/s",
        ]
        for name in dict.fromkeys(run.step for run in self.runs):
            of_row = [index for index, run in enumerate(self.runs) if run.step == name]
            states = [f"seed {self.runs[index].seed} {self.states[index]}" for index in of_row]
            speed, left = "", sum(map(self._left, of_row))
            if rate := self.rates.get(name):
                speed = f"{rate.images_per_second:>9,.1f} images/s {rate.source:<19} "
            time_left = f"{duration(left)}, " if left else ""
            lines.append(f"  {name:<22} {speed}{time_left}{', '.join(states)}")
        return "\n".join([*lines, f"expected in total: {duration(self.seconds_left())}"])


def finished_line(run: Run, result: Mapping[str, Any]) -> str:
    """The result of a run in one line."""
    top1, images = result["top1"], result["test_images"]
    took, why = duration(result["seconds"]["total"]), result.get("collapsed")
    collapsed = f" (collapsed: {why})" if why else ""
    return f"{run.title}: top-1 {top1:.2f} % on {images:,} test images in {took}{collapsed}"


def run_bytes(params: int, recipe: Recipe, test_images: int) -> int:
    """Bytes of a run's folder at its largest: the weights twice, and three checkpoints of weights,
    their average and the optimizer's moments."""
    copies = 2 + 3 * ((3 if recipe.optimizer == "adamw" else 2) + (recipe.ema is not None))
    return params * 4 * copies + 60 * test_images


@dataclass(frozen=True)
class _GreyImages:
    """Images of one size, to time the augmentation on."""

    image: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> torch.Tensor:
        return self.image


def memory_advice(run: Run, device: torch.device) -> str:
    """What to do where the images of one part of a batch do not fit into memory, found by trying.

    To be called when nothing holds the memory of the failed attempt any more.
    """
    recipe, config = run.recipe, run.study.config
    images = f"{recipe.batch_size // recipe.micro_batches} images at once do not fit"
    parts = micro_batches_that_fit(Work.of(run.spec, device))
    if parts is None:
        return f"{images}, nor does any smaller part: choose a lower --resolution or another device"
    # The batch belongs to the modern recipe or to the classic one, not to the step.
    batch = recipe.batch_size, recipe.micro_batches
    modern = batch == (config.recipe.batch_size, config.recipe.micro_batches)
    option = "--micro-batches" if modern else "--classic.micro-batches"
    return f"{images}: give {option} {parts}, parts of {recipe.batch_size // parts}"


def _cost(run: Run) -> object:
    """What the time of an update depends on: equal for rows that differ by a learning rate."""
    recipe = run.recipe
    arithmetic = recipe.optimizer, recipe.drop_path, recipe.layer_scale is None, recipe.ema is None
    return run.architecture, recipe.batch_size, recipe.micro_batches, arithmetic


def _count_params(run: Run) -> int:
    model = outline(run.architecture, layer_scale=run.recipe.layer_scale)
    return sum(parameter.numel() for parameter in model.parameters())


def _flops(run: Run) -> int:
    """Count the FLOPs of a network on one image, without computing anything."""
    # On import torch warns if triton is missing, as it is in builds for CPUs.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)
    from torch.utils.flop_counter import FlopCounterMode

    model, side = outline(run.architecture), run.study.config.resolution
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, 3, side, side, device="meta"))
    return int(counter.get_total_flops())


def _time_updates(run: Run, execution: Execution) -> Rate:
    """One try: the rate with the faster of the compute options that the run is likely to get."""
    try:
        rate = _time_with(run, execution, execution.options)
        if (
            execution.trial
            and rate.source == "measured now"
            and isinstance(run.architecture, Architecture)
        ):
            other = _time_with(run, execution, ComputeOptions(rewritten=True))
            rate = max(rate, other, key=lambda rate: rate.images_per_second)
        return rate
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        words = first_line(error)
    finally:
        empty_cache(execution.device)
    advice = memory_advice(run, execution.device)
    raise ValueError(f"{run.step} ran out of memory: {advice} (torch: {words})")


def _time_with(run: Run, execution: Execution, options: ComputeOptions) -> Rate:
    """The rate of updates on random images: two images first, then a part of the batch, or as many
    of it as can be timed."""
    work, device = Work.of(run.spec, execution.device), execution.device
    train_state = work.train_state(options, work.precision)
    for group in train_state.optimizer.param_groups:
        group["lr"] = 0.0  # weights that diverge make numbers that are slow to compute with

    def update(count: int) -> tuple[float, float]:
        """Seconds of the gradients of `count` images, and of the optimizer's step."""
        batch = work.noise(count)
        wait_for(device)
        started = time.perf_counter()
        gradients(train_state, 0, repeat(batch))
        wait_for(device)
        between = time.perf_counter()
        step(train_state)
        wait_for(device)
        return between - started, time.perf_counter() - between

    count = min(2, work.images)
    with options.applied():
        seconds, stepping = update(count)
        if seconds < _TRY_SECONDS:
            seconds, stepping = min((seconds, stepping), update(count))
        affordable = count * _TRY_SECONDS / max(seconds, 1e-9)
        if work.images > count:
            largest = 2 ** max(1, int(math.log2(affordable + 1)))
            count = work.images if work.images <= affordable else min(largest, work.images)
        if count > 2:
            seconds, stepping = min(update(count), update(count))
    parts = math.ceil(run.recipe.micro_batches / execution.processes.count)
    rate = run.recipe.batch_size / (parts * seconds * work.images / count + stepping)
    return Rate(rate, "measured now" if count == work.images else "estimated now")
