"""What one run is: a network of a study, a seed, a recipe, the images, and the machine it is
carried out on."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from models import Architecture, SwinArchitecture, parts
from studies.identity import Identity
from studies.index import Index, KnownRun, RunState, standing_of
from studies.study import Study, must_begin_anew, read_records, read_result
from training.recipe import Recipe
from training.spec import RunSpec, short_side
from utils.text import first_few


@dataclass(frozen=True)
class Run:
    """One network of a study, to be trained once: planned, being made or finished."""

    study: Study
    step: str
    number: int | None
    seed: int
    architecture: Architecture | SwinArchitecture
    recipe: Recipe
    init_weights: Path | None = None
    """Where the file lies that the study's config names as its start."""
    made_as: str | None = None
    """The step whose folder holds the results, where another row than this one made the run, or is
    to."""

    @cached_property
    def identity(self) -> Identity:
        config = self.study.config
        start = None if config.init_weights is None else config.init_weights.sha256
        return Identity(
            self.architecture,
            self.recipe,
            self.study.images,
            config.resolution,
            config.precision,
            start,
            self.seed,
            parts.sources(self.architecture),
        )

    @cached_property
    def spec(self) -> RunSpec:
        """The run as `training` takes it."""
        study, config = self.study, self.study.config
        return RunSpec(
            self.folder,
            self.step,
            self.number,
            self.seed,
            self.architecture,
            self.recipe,
            config.resolution,
            short_side(config.resolution, config.recipe.augmentation.crop_scale),
            config.precision,
            study.name,
            study.hash,
            self.identity.record(),
            self.init_weights,
            config.init_weights,
        )

    @property
    def digest(self) -> str:
        """By which the run is known (see `studies.identity`)."""
        return self.identity.digest

    @property
    def folder(self) -> Path:
        return self.study.run_folder(self.step, self.seed)

    @property
    def home(self) -> Path:
        """Where its results are, most often in its own folder."""
        return self.study.run_folder(self.maker, self.seed)

    @property
    def maker(self) -> str:
        """The step under whose name the run is made, its own most often."""
        return self.made_as or self.step

    @property
    def title(self) -> str:
        return f"{self.step} seed {self.seed}"

    @property
    def result(self) -> dict[str, Any] | None:
        """result.json of a finished run, else None."""
        return read_result(self.home)

    def begins_anew(self, overwrite: Collection[str]) -> bool:
        """Whether a command with this `overwrite` is to throw away what the run's folder holds."""
        return self.step in overwrite and (
            must_begin_anew(self.folder) or bool(self._differences())
        )

    def check_records(self, overwrite: Collection[str] = ()) -> None:
        """Raise ValueError, in a sentence that names what differs, where the run's folder holds
        another run.

        One that a command with this `overwrite` throws away is no obstacle.
        """
        begun = standing_of(self.folder) != "to train"
        if begun and (found := self._differences()) and not self.begins_anew(overwrite):
            raise ValueError(
                f"{self.folder} holds another run: {first_few(found)}; make it again with "
                f"--overwrite {self.step}, or "
                "give this study a name of its own with --study NAME"
            )

    def check_parts(self, processes: int) -> None:
        """Raise ValueError where so many processes cannot share the parts of a batch."""
        parts = self.recipe.micro_batches
        if processes > parts:
            raise ValueError(
                f"{processes} processes are to share the parts of a batch, and {self.step} has "
                f"{parts} "
                f"(--micro-batches): start {parts} or fewer, or give --micro-batches {processes} "
                "or more, which makes "
                "it a study of its own (--study NAME)"
            )

    def _differences(self) -> list[str]:
        """What the records in the run's folder state that is not so of this run."""
        return next(filter(None, map(self.identity.difference, read_records(self.folder))), [])

    def standing(self, overwrite: Collection[str] = ()) -> RunState:
        """What a command with this `overwrite` finds."""
        if self.made_as:
            return "shared"
        return "to train" if self.begins_anew(overwrite) else standing_of(self.folder)

    @property
    def done_share(self) -> float:
        """How much of an unfinished run is done: epochs in its metrics."""
        path = self.folder / "metrics.jsonl"
        return (
            min(1.0, len(path.read_bytes().splitlines()) / self.recipe.epochs)
            if path.is_file()
            else 0.0
        )


def share(runs: Sequence[Run], overwrite: Collection[str] = ()) -> list[Run]:
    """`runs`, none of them to be trained that is one of the others or is in their study already,
    under whatever row.

    A run that another row has made or begun, or that a row before it asks for, gets that row's name
    in `made_as`. A row that has begun it and was not asked is put before it. Steps named in
    `overwrite` have nothing to share yet.
    """
    index, makers, asked = (
        Index(runs[0].study.folder),
        dict[str, str](),
        dict[tuple[str, int], Run](),
    )

    def stays(found: KnownRun) -> bool:
        return not (found.step in overwrite and must_begin_anew(found.folder))

    for run in runs:
        found = index.find(run.digest, run.step, stays)
        if found and found.standing == "finished":
            maker = found.step
        else:
            maker = makers.setdefault(run.digest, found.step if found else run.step)
            if found and found.step == maker:
                asked.setdefault((maker, run.seed), replace(run, step=maker, number=found.number))
        asked[run.step, run.seed] = run if maker == run.step else replace(run, made_as=maker)
    return list(asked.values())
