"""What a study will cost, said before it starts and corrected as its runs end: runs, images, disk,
hours."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from data.loader import batches_per_epoch
from data.sizes import Sizes
from models import Architecture
from models.builder import build
from studies import speed
from studies.index import RunState
from studies.run import Run
from studies.speed import Speed
from training.device import device_name, is_out_of_memory, set_up
from training.execution import ComputeOptions, Execution
from training.recipe import Recipe
from training.spec import RESULT
from training.update import TrainState, noise
from utils.files import require_free
from utils.text import duration, plural, readable_bytes

_FORWARD_SHARE = 3
"""Evaluation is a forward pass, a training step about three of them."""

_DONE: tuple[RunState, ...] = ("finished", "shared")
"""Standings of runs that are not to be trained."""


class CostEstimate:
    """The cost of the runs that are still to be made, to be corrected by `finished` as they end."""

    def __init__(
        self,
        runs: Sequence[Run],
        sizes: Sizes,
        execution: Execution,
        overwrite: Collection[str] = (),
    ) -> None:
        """Look at what is finished or remembered, and measure the rest (at most seconds a network).

        `runs` are of one study and will be made as `execution` says.

        Raises:
            ValueError: a network does not fit into the device's memory, or the
                training images are fewer than a batch; the sentence says what would do.
        """
        study, device = runs[0].study, execution.device
        precision, resolution = study.config.precision, study.config.resolution
        self.processes = execution.processes.count
        set_up(device, precision)  # as runs do, before they are measured
        self.sizes, self.device_name, self.runs = (
            sizes,
            device_name(device, self.processes),
            list(runs),
        )
        self.standings = [run.standing(overwrite) for run in runs]
        self.done = [
            1.0 if what in _DONE else run.done_share if what == "to resume" else 0.0
            for run, what in zip(runs, self.standings, strict=True)
        ]
        self.speeds: dict[str, Speed] = {}
        self.params: dict[str, int] = {}
        remembered = speed.remembered(study.folder, self.device_name)
        measured: dict[object, Speed] = {}
        for run in {run.step: run for run in runs}.values():
            recipe = run.recipe
            batches_per_epoch(sizes.train, recipe.batch_size)
            if all(
                what in _DONE for other, what in zip(runs, self.standings) if other.step == run.step
            ):
                continue
            try:
                model = _train_state(run, device, execution.options).model
                self.params[run.step] = sum(parameter.numel() for parameter in model.parameters())
                self.speeds[run.step] = (
                    (
                        None
                        if run.step in overwrite
                        else speed.of_a_finished_run(study.folder, run.step, self.device_name)
                    )
                    or remembered.get(run.step)
                    or measured.get(_cost(run))
                    or measured.setdefault(_cost(run), _measure(run, execution))
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise ValueError(
                    f"{run.step} runs out of memory, even with two images: choose a lower "
                    "--resolution or another device"
                ) from None
        rates = {
            augmentation: speed.measure_images(augmentation, resolution, sizes)
            for augmentation in dict.fromkeys(run.recipe.augmentation for run in runs)
        }
        self.image_rate = min(rates.values())
        shared: set[tuple[Recipe, int]] = set()
        self.expected = []
        for run in runs:
            first = (run.recipe, run.seed) not in shared
            shared.add((run.recipe, run.seed))
            self.expected.append(
                self._seconds(run, rates[run.recipe.augmentation], execution.workers, first)
            )
        self.factor = 1.0
        self._actual: dict[str, list[float]] = {}
        self._told: list[
            tuple[float, float]
        ] = []  # expected and taken, of the runs made under this bill

    def _seconds(self, run: Run, image_rate: float, workers: int, first: bool) -> float:
        """Seconds of the whole run."""
        known = self.speeds.get(run.step)
        if known is None:
            return 0.0
        if known.per_run is not None:
            return known.per_run
        made = run.recipe.images_seen(self.sizes.train)
        training = made / known.images_per_second
        preparing = made / image_rate / self.processes
        if workers:
            training = max(training, preparing / workers)
        elif (
            first or made * run.study.config.resolution**2 * 3 > 2**30
        ):  # else runs before left them in memory
            training += preparing
        evaluated = run.recipe.epochs * self.sizes.validation + self.sizes.test
        return training + evaluated / (_FORWARD_SHARE * known.images_per_second)

    def seconds_left(self) -> float:
        """Of the runs that are not finished, by the latest correction."""
        return sum(self._left(index) for index in range(len(self.runs)))

    def _left(self, index: int) -> float:
        actual = self._actual.get(self.runs[index].step)
        whole = sum(actual) / len(actual) if actual else self.expected[index] * self.factor
        return whole * (1 - self.done[index])

    def finished(self, step: str, seed: int, seconds: float) -> str:
        """Note that a run ended after `seconds` in this process; the corrected forecast as a
        sentence."""
        mine = next(i for i, run in enumerate(self.runs) if (run.step, run.seed) == (step, seed))
        share = 1 - self.done[mine]
        self._told.append((self.expected[mine] * share, seconds))
        for index, run in enumerate(self.runs):  # other processes may have finished some meanwhile
            if index == mine or (
                self.standings[index] not in _DONE and (run.folder / RESULT).exists()
            ):
                self.done[index], self.standings[index] = 1.0, "finished"
        if share == 1:
            self._actual.setdefault(step, []).append(seconds)
        expected, taken = (sum(column) for column in zip(*self._told, strict=True))
        self.factor = taken / expected if expected else 1.0
        left = sum(what not in _DONE for what in self.standings)
        if not left:
            return (
                "the run is finished"
                if len(self.standings) == 1
                else f"all {len(self.standings)} runs are finished"
            )
        return (
            f"{plural(left, 'run')} left, about {duration(self.seconds_left())} "
            f"(runs take {self.factor:.2f} times what was forecast)"
        )

    def disk(self) -> int:
        """Bytes that the unfinished runs will write: weights, two checkpoints and one being
        written."""
        total = 0
        for run, what in zip(self.runs, self.standings, strict=True):
            if what not in _DONE:
                total += run_bytes(self.params[run.step], run.recipe, self.sizes.test)
        return total

    def require_disk(self, data_dir: Path, cache: Path, runs: Path) -> None:
        """Raise OSError unless the disks of images and of runs can take what is to be written."""
        needs: dict[int, list[tuple[Path, int, str]]] = {}
        for path, amount, what in (
            (data_dir, self.sizes.download, "the data set"),
            (cache, self.sizes.cache, "the image cache"),
            (runs, self.disk(), "the runs, with their checkpoints,"),
        ):
            place = next(p for p in (path, *path.absolute().parents) if p.exists())
            needs.setdefault(place.stat().st_dev, []).append((place, amount, what))
        for shared in needs.values():
            what = shared[0][2] if len(shared) == 1 else "the study (images and runs)"
            require_free(shared[-1][0], sum(amount for _, amount, _ in shared), what)

    @property
    def expectation(self) -> str:
        """For who begins: what is trained, how long it takes and where the report will be, in a
        line."""
        runs, config, left = self.runs, self.runs[0].study.config, self.seconds_left()
        networks = len({(run.architecture, run.recipe) for run in runs})
        what = (
            f"{networks} network{'s' * (networks != 1)} on {self.sizes.train:,} images of "
            f"{config.dataset}"
        )
        time = (
            f"about {duration(left)} of training on this machine{self._sureness()}"
            if left
            else "all trained"
        )
        return (
            f"{what}, {config.resolution}x{config.resolution}: {time}; the report: "
            f"{runs[0].study.folder / 'report'}"
        )

    def __str__(self) -> str:
        sizes, runs = self.sizes, self.runs
        lines = [f"{runs[0].study.folder}: {plural(len(runs), 'run')}, {self._totals()}"]
        by_recipe = {run.recipe: run.recipe.images_seen(sizes.train) for run in runs}
        per_run = " or ".join(f"{made:,}" for made in dict.fromkeys(by_recipe.values()))
        to_come = sum(
            round(by_recipe[run.recipe] * (1 - done))
            for run, done in zip(runs, self.done, strict=True)
        )
        lines.append(f"images: {per_run} a run in training, {to_come:,} in all still to come")
        lines.append(
            f"disk: {_amount(sizes.download)} of data set to come, {_amount(sizes.cache)} of "
            "decoded images, "
            f"{_amount(self.disk())} of weights and checkpoints"
        )
        lines.append(
            f"device: {self.device_name}; one process prepares {self.image_rate:,.0f} images/s"
        )
        for step in dict.fromkeys(run.step for run in runs):
            mine = [index for index, run in enumerate(runs) if run.step == step]
            states = ", ".join(f"seed {runs[index].seed} {self.standings[index]}" for index in mine)
            known = self.speeds.get(step)
            rate = (
                ""
                if known is None
                else f"{known.images_per_second:>9,.1f} images/s {known.source:<19} "
            )
            rest = sum(self._left(index) for index in mine)
            lines.append(f"  {step:<22} {rate}{duration(rest) + ', ' if rest else ''}{states}")
        lines.append(f"expected in total: {duration(self.seconds_left())}{self._sureness()}")
        return "\n".join(lines)

    def _sureness(self) -> str:
        """How wrong the total may be, in words. What is wrong with one rate is with the others, so
        errors add up."""
        left = [
            (run.step, seconds)
            for index, run in enumerate(self.runs)
            if (seconds := self._left(index))
        ]
        if not left:
            return ""
        error = sum(seconds * self.speeds[step].error for step, seconds in left) / sum(
            seconds for _, seconds in left
        )
        steps = {step for step, _ in left}
        rough = sum(self.speeds[step].source == "estimated now" for step in steps)
        why = (
            f"; {rough} of {len(steps)} rates are estimated, for their batches take too long to try"
            if rough
            else ""
        )
        return f", give or take {error:.0%}{why}"

    def _totals(self) -> str:
        counts = ((self.standings.count(what), what) for what in get_args(RunState))
        return ", ".join(f"{count} {what}" for count, what in counts if count)


def run_bytes(params: int, recipe: Recipe, test_images: int) -> int:
    """Bytes of a run's folder at its largest: the weights twice, three checkpoints of weights,
    average and moments."""
    copies = 2 + 3 * ((3 if recipe.optimizer == "adamw" else 2) + (recipe.ema is not None))
    return params * 4 * copies + 60 * test_images


def _amount(count: int) -> str:
    return readable_bytes(count) if count else "nothing"


def _cost(run: Run) -> object:
    """What an update costs: equal for rows that differ by a learning rate or the like."""
    recipe = run.recipe
    arithmetic = recipe.optimizer, recipe.drop_path, recipe.layer_scale is None, recipe.ema is None
    return run.architecture, recipe.batch_size, recipe.micro_batches, arithmetic


def _train_state(run: Run, device: torch.device, layout: ComputeOptions) -> TrainState:
    torch.manual_seed(0)
    recipe = replace(run.recipe, micro_batches=1)
    model = build(
        run.architecture, drop_path=recipe.drop_path, layer_scale=recipe.layer_scale, init="he"
    )
    return TrainState(model, recipe, layout, device, run.study.config.precision)


def _measure(run: Run, execution: Execution) -> Speed:
    device = execution.device
    layouts = [execution.options]
    if execution.trial and isinstance(run.architecture, Architecture):
        layouts.append(ComputeOptions(rewritten=True))
    train_states = (_train_state(run, device, layout) for layout in layouts)
    resolution, classes = run.study.config.resolution, run.architecture.num_classes
    images = partial(noise, resolution=resolution, classes=classes, device=device)
    return speed.measure(train_states, run.recipe, images, execution.processes.count)
