"""What a study will cost, said before it starts and corrected as its runs end: runs, pictures, disk, hours."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from data.files import readable_bytes, require_free
from data.loader import batches_per_epoch
from data.sizes import Sizes
from models import Architecture, SwinArchitecture
from models.builder import build
from training import memory, speed
from training.device import set_up
from training.environment import device_name
from training.progress import duration
from training.recipe import Precision, Recipe
from training.speed import Speed
from training.study import Step, must_begin_anew, run_folder

_FORWARD_SHARE = 3
"""Evaluation is a forward pass, a training step about three of them."""


class Job(Protocol):
    """What the bill has to know of a run to come."""

    @property
    def step(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def architecture(self) -> Architecture | SwinArchitecture: ...
    @property
    def recipe(self) -> Recipe: ...


@dataclass(frozen=True)
class Planned:
    """One run of the study to come."""

    step: str
    seed: int
    architecture: Architecture | SwinArchitecture
    recipe: Recipe


def plan(folder: Path, steps: Sequence[Step], seeds: Sequence[int], overwrite: Collection[str] = ()) -> str:
    """What training these steps of a study would find: a line of totals."""
    states = [state(folder, step.name, seed, overwrite) for step in steps for seed in seeds]
    totals = [f"{states.count(state)} {state}" for state in ("finished", "to resume", "to train") if state in states]
    return f"{folder}: {len(states)} runs, {', '.join(totals)}"


def state(folder: Path, step: str, seed: int, overwrite: Collection[str]) -> str:
    """Of a run: finished, to resume, or to train."""
    run = run_folder(folder, step, seed)
    if step in overwrite and must_begin_anew(run):
        return "to train"
    if (run / "result.json").exists():
        return "finished"
    begun = (run / "checkpoint.pt").exists() or (run / "checkpoint.pt.previous").exists()
    return "to resume" if begun else "to train"


def done_share(folder: Path, step: str, seed: int, recipe: Recipe) -> float:
    """How much of an unfinished run is done: epochs in its metrics."""
    path = run_folder(folder, step, seed) / "metrics.jsonl"
    return min(1.0, len(path.read_bytes().splitlines()) / recipe.epochs) if path.is_file() else 0.0


class Bill:
    """The cost of the runs that are still to be made, to be corrected by `finished` as they end."""

    def __init__(
        self, folder: Path, jobs: Sequence[Job], sizes: Sizes, resolution: int,
        precision: Precision, device: torch.device, workers: int, overwrite: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Look at what is finished or remembered, and measure the rest (a fraction of a second a network).

        Raises:
            ValueError: a network's micro-batch does not fit into the device's memory, or the training pictures are
                fewer than a batch; the sentence says what would do.
        """
        set_up(device, precision)  # as runs do, before they are measured
        self.sizes, self.device_name, self.jobs = sizes, device_name(device), list(jobs)
        self.states = [state(folder, job.step, job.seed, overwrite) for job in jobs]
        self.done = [1.0 if what == "finished" else done_share(folder, job.step, job.seed, job.recipe)
                     if what == "to resume" else 0.0 for job, what in zip(jobs, self.states, strict=True)]  # fmt: skip
        self.speeds: dict[str, Speed] = {}
        self.params: dict[str, int] = {}
        remembered = speed.remembered(folder, self.device_name)
        free = memory.available(device)
        for job in {job.step: job for job in jobs}.values():
            recipe = job.recipe
            batches_per_epoch(sizes.train, recipe.batch_size)
            model = _network(job, device)
            self.params[job.step] = sum(parameter.numel() for parameter in model.parameters())
            if all(what == "finished" for other, what in zip(jobs, self.states) if other.step == job.step):
                continue
            per_picture = memory.bytes_per_picture(model, resolution, precision, device)
            memory.require_fit(f"{job.step} at {resolution}x{resolution}", recipe, per_picture,
                               memory.state_bytes(model, recipe), free)  # fmt: skip
            self.speeds[job.step] = (
                (None if job.step in overwrite else speed.of_a_finished_run(folder, job.step, self.device_name))
                or remembered.get(job.step)
                or Speed(speed.measure(model, recipe, resolution, precision, device), "measured now")
            )
        rates = {
            augmentation: speed.measure_pictures(augmentation, resolution, sizes)
            for augmentation in dict.fromkeys(job.recipe.augmentation for job in jobs)
        }
        self.picture_rate = min(rates.values())
        shared: set[tuple[Recipe, int]] = set()
        self.expected = []
        for job in jobs:
            first = (job.recipe, job.seed) not in shared
            shared.add((job.recipe, job.seed))
            self.expected.append(self._seconds(job, rates[job.recipe.augmentation], workers, first, resolution))
        self.factor = 1.0
        self._actual: dict[str, list[float]] = {}
        self._told: list[tuple[float, float]] = []  # expected and taken, of the runs made under this bill

    def _seconds(self, job: Job, picture_rate: float, workers: int, first: bool, resolution: int) -> float:
        """Seconds of the whole run."""
        known = self.speeds.get(job.step)
        if known is None:
            return 0.0
        if known.per_run is not None:
            return known.per_run
        made = pictures_of(job.recipe, self.sizes)
        training = made / known.images_per_second
        preparing = made / picture_rate
        if workers:
            training = max(training, preparing / workers)
        elif first or made * resolution**2 * 3 > 2**30:  # else the runs before have left them in memory
            training += preparing
        evaluated = job.recipe.epochs * self.sizes.validation + self.sizes.test
        return training + evaluated / (_FORWARD_SHARE * known.images_per_second)

    def seconds_left(self) -> float:
        """Of the runs that are not finished, by the latest correction."""
        return sum(self._left(index) for index in range(len(self.jobs)))

    def _left(self, index: int) -> float:
        actual = self._actual.get(self.jobs[index].step)
        whole = sum(actual) / len(actual) if actual else self.expected[index] * self.factor
        return whole * (1 - self.done[index])

    def finished(self, step: str, seed: int, seconds: float) -> str:
        """Note that a run ended after `seconds` in this process; the corrected forecast as a sentence."""
        index = next(i for i, job in enumerate(self.jobs) if (job.step, job.seed) == (step, seed))
        share = 1 - self.done[index]
        self._told.append((self.expected[index] * share, seconds))
        self.done[index], self.states[index] = 1.0, "finished"
        if share == 1:
            self._actual.setdefault(step, []).append(seconds)
        expected, taken = (sum(column) for column in zip(*self._told, strict=True))
        self.factor = taken / expected if expected else 1.0
        left = sum(what != "finished" for what in self.states)
        if not left:
            return f"all {len(self.states)} runs are finished"
        return (
            f"{left} runs left, about {duration(self.seconds_left())} "
            f"(runs take {self.factor:.2f} times what was forecast)"
        )

    def disk(self) -> int:
        """Bytes that the unfinished runs will write: weights, two checkpoints and one being written."""
        total = 0
        for job, what in zip(self.jobs, self.states, strict=True):
            if what != "finished":
                total += run_bytes(self.params[job.step], job.recipe, self.sizes.test)
        return total

    def require_disk(self, data_dir: Path, cache: Path, runs: Path) -> None:
        """Raise OSError unless the disks of pictures and of runs can take what is to be written."""
        needs: dict[int, list[tuple[Path, int, str]]] = {}
        for path, amount, what in (
            (data_dir, self.sizes.download, "the data set"),
            (cache, self.sizes.cache, "the picture cache"),
            (runs, self.disk(), "the runs, with their checkpoints,"),
        ):
            place = next(p for p in (path, *path.absolute().parents) if p.exists())
            needs.setdefault(place.stat().st_dev, []).append((place, amount, what))
        for shared in needs.values():
            what = shared[0][2] if len(shared) == 1 else "the study (pictures and runs)"
            require_free(shared[-1][0], sum(amount for _, amount, _ in shared), what)

    def __str__(self) -> str:
        sizes, lines = self.sizes, []
        by_recipe = {job.recipe: pictures_of(job.recipe, sizes) for job in self.jobs}
        per_run = " or ".join(f"{made:,}" for made in dict.fromkeys(by_recipe.values()))
        to_come = sum(round(by_recipe[job.recipe] * (1 - done)) for job, done in zip(self.jobs, self.done, strict=True))
        lines.append(f"pictures: {per_run} a run in training, {to_come:,} in all still to come")
        lines.append(
            f"disk: {_amount(sizes.download)} of data set to come, {_amount(sizes.cache)} of decoded pictures, "
            f"{_amount(self.disk())} of weights and checkpoints"
        )
        lines.append(f"device: {self.device_name}; one process prepares {self.picture_rate:,.0f} pictures/s")
        for job in {job.step: job for job in self.jobs}.values():
            mine = [index for index, other in enumerate(self.jobs) if other.step == job.step]
            states = ", ".join(f"seed {self.jobs[index].seed} {self.states[index]}" for index in mine)
            known = self.speeds.get(job.step)
            rate = "" if known is None else f"{known.images_per_second:>9,.1f} images/s {known.source:<19} "
            rest = sum(self._left(index) for index in mine)
            lines.append(f"  {job.step:<22} {rate}{duration(rest) + ', ' if rest else ''}{states}")
        lines.append(f"expected in total: {duration(self.seconds_left())}")
        return "\n".join(lines)


def pictures_of(recipe: Recipe, sizes: Sizes) -> int:
    """Training pictures that a run looks at, each counted as often as it is seen."""
    return recipe.epochs * (sizes.train // recipe.batch_size) * recipe.batch_size


def run_bytes(params: int, recipe: Recipe, test_pictures: int) -> int:
    """Bytes of a run's folder at its largest: the weights twice, and three checkpoints of weights and moments."""
    copies = 2 + 3 * (3 if recipe.optimizer == "adamw" else 2)
    return params * 4 * copies + 60 * test_pictures


def _amount(count: int) -> str:
    return readable_bytes(count) if count else "nothing"


def _network(job: Job, device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    recipe = job.recipe
    model = build(job.architecture, drop_path=recipe.drop_path, layer_scale=recipe.layer_scale, init="he")
    return model.to(device).to(memory_format=torch.channels_last)
