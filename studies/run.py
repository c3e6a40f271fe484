"""One run of a study, and which runs a study's folder already holds. Needs no torch.

Rows that are the same network under the same recipe share a run: it is trained in the folder of one
of them, and the others are its aliases.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from models import parts
from models.architecture import Architecture, SwinArchitecture
from studies.identity import Identity
from studies.study import OVERWRITTEN, Study, read_records
from training.recipe import Recipe
from training.spec import CONFIG, RESULT, RunSpec, short_side
from utils.files import recall
from utils.text import first_few

RunState = Literal["finished", "shared", "to resume", "to train"]
"""shared: the results are, or will be, another row's."""
_SEED = re.compile(r"seed-(\d{1,10})")


@dataclass(frozen=True)
class Run:
    """One network of a study, to be trained once."""

    study: Study
    step: str
    number: int | None
    seed: int
    architecture: Architecture | SwinArchitecture
    recipe: Recipe
    init_weights: Path | None = None
    """The file of initial weights that the study's config describes."""
    alias_of: str | None = None
    """The step in whose folder the run is, where it is not this one's."""

    @cached_property
    def identity(self) -> Identity:
        config = self.study.config
        start = None
        if initial := config.init_weights:
            start = initial.sha256 if initial.key is None else f"{initial.sha256} {initial.key}"
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
        """The digest by which the run is known (see `studies.identity`)."""
        return self.identity.digest

    @property
    def folder(self) -> Path:
        return self.study.run_folder(self.step, self.seed)

    @property
    def maker(self) -> str:
        """The step in whose folder the run is."""
        return self.alias_of or self.step

    @property
    def result_dir(self) -> Path:
        return self.study.run_folder(self.maker, self.seed)

    @property
    def title(self) -> str:
        return f"{self.step} seed {self.seed}"

    def from_scratch(self, overwrite: Collection[str]) -> bool:
        """Whether a command with this `overwrite` discards what the run's folder holds."""
        if self.step not in overwrite:
            return False
        return not (self.folder / OVERWRITTEN).exists() or bool(self._differences())

    def state(self, overwrite: Collection[str] = ()) -> RunState:
        """The state of the run for a command with this `overwrite`."""
        if self.alias_of:
            return "shared"
        return "to train" if self.from_scratch(overwrite) else state_of(self.folder)

    @property
    def done_share(self) -> float:
        """The share of an unfinished run that is done, by the epochs in its metrics."""
        path = self.folder / "metrics.jsonl"
        epochs = len(path.read_bytes().splitlines()) if path.is_file() else 0
        return min(1.0, epochs / self.recipe.epochs)

    def check_records(self, overwrite: Collection[str] = ()) -> None:
        """Raise ValueError where the run's folder holds another run that `overwrite` keeps."""
        begun = state_of(self.folder) != "to train"
        different = self._differences() if begun else []
        if different and not self.from_scratch(overwrite):
            raise ValueError(
                f"{self.folder} holds another run: {first_few(different)}; train it from scratch "
                f"with --overwrite {self.step}, or give this study a name of its own with --study "
                "NAME"
            )

    def _differences(self) -> list[str]:
        """What the records in the run's folder state otherwise than this run."""
        return next(filter(None, map(self.identity.difference, read_records(self.folder))), [])

    def check_processes(self, count: int) -> None:
        """Raise ValueError where so many processes cannot share the parts of a batch."""
        if count > self.recipe.micro_batches:
            raise ValueError(
                f"{count} processes are to share the parts of a batch, and {self.step} has "
                f"{self.recipe.micro_batches} (--micro-batches): start so many or fewer, or give "
                f"--micro-batches {count} or more, which makes it a study of its own (--study NAME)"
            )


def run_folders(study: Path) -> list[Path]:
    """All folders of a study that are named as a run's, by step and seed."""
    matches = [
        (folder.parent.name, int(match[1]), folder)
        for folder in study.glob("*/seed-*")
        if (match := _SEED.fullmatch(folder.name)) and folder.is_dir()
    ]
    return [folder for _, _, folder in sorted(matches)]


def state_of(folder: Path) -> RunState:
    """How far the run in a folder is."""
    if (folder / RESULT).exists():
        return "finished"
    begun = any((folder / name).exists() for name in ("checkpoint.pt", "checkpoint.pt.previous"))
    return "to resume" if begun else "to train"


class Index:
    """The runs in a study's folder by digest, but for runs whose records contradict each other."""

    def __init__(self, study: Path) -> None:
        self._digests: dict[Path, str] = {}
        self._folders: dict[str, list[Path]] = {}
        for folder in run_folders(study):
            digests = {str(record.get("digest")) for record in read_records(folder)}
            if len(digests) == 1:
                self._digests[folder] = digest = digests.pop()
                self._folders.setdefault(digest, []).append(folder)

    def find(self, digest: str, step: str = "", overwrite: Collection[str] = ()) -> Path | None:
        """The folder of a run that has begun: a finished one first, then `step`'s.

        Runs that a command with this `overwrite` discards do not count.
        """
        best = None
        for folder in self._folders.get(digest, ()):
            name, state = folder.parent.name, state_of(folder)
            discarded = name in overwrite and not (folder / OVERWRITTEN).exists()
            if state != "to train" and not discarded:
                order = state != "finished", name != step
                best = min(best or (order, folder), (order, folder))
        return best and best[1]

    def result_dir(self, folder: Path) -> Path:
        """The folder with the results of the run whose records are in `folder`, most often the same
        one."""
        digest = self._digests.get(folder)
        if digest is None or state_of(folder) == "finished":
            return folder
        found = self.find(digest)
        return found if found and state_of(found) == "finished" else folder


def deduplicate(runs: Sequence[Run], overwrite: Collection[str] = ()) -> list[Run]:
    """Mark as aliases those of `runs` that are the same as earlier ones, or as runs in their study.

    A row that has begun such a run and was not requested is put before its alias. Runs of steps in
    `overwrite` have nothing to share yet.
    """
    index = Index(runs[0].study.folder)
    makers, unique = dict[str, str](), dict[tuple[str, int], Run]()
    for run in runs:
        match = index.find(run.digest, run.step, overwrite)
        if match and state_of(match) == "finished":
            maker = match.parent.name
        else:
            maker = makers.setdefault(run.digest, match.parent.name if match else run.step)
            if match and match.parent.name == maker:
                number = recall(match / CONFIG).get("number")
                unique.setdefault((maker, run.seed), replace(run, step=maker, number=number))
        unique[run.step, run.seed] = run if maker == run.step else replace(run, alias_of=maker)
    return list(unique.values())
