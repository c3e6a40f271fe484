"""Which runs a study's folder holds, by what they are: rows that ask for the same run share it. No
torch here."""

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studies.study import read_records

RunState = Literal["finished", "shared", "to resume", "to train"]
"""Of a run that is asked for; shared: its results are, or will be, another row's."""
_SEED = re.compile(r"seed-(\d{1,10})")


@dataclass(frozen=True)
class KnownRun:
    """A run's folder, and what its records state."""

    folder: Path
    number: int | None
    """Of its step."""
    standing: RunState

    @property
    def step(self) -> str:
        return self.folder.parent.name


class Index:
    """The runs in a study's folder. One whose records contradict each other is nobody's."""

    def __init__(self, study: Path) -> None:
        self._by_digest: defaultdict[str, list[KnownRun]] = defaultdict(list)
        self._by_folder: dict[Path, str] = {}
        for folder in run_folders(study):
            records = list(read_records(folder))
            if len({record.get("digest") for record in records}) == 1:
                self._by_folder[folder] = digest = str(records[0].get("digest"))
                self._by_digest[digest].append(
                    KnownRun(folder, records[0].get("number"), standing_of(folder))
                )

    def find(
        self, digest: str, step: str = "", keep: Callable[[KnownRun], bool] = lambda _: True
    ) -> KnownRun | None:
        """What there is of the run: finished rather than begun, `step`'s rather than another's;
        None for no update."""
        found = [
            run
            for run in self._by_digest.get(digest, ())
            if run.standing != "to train" and keep(run)
        ]
        return min(
            found, key=lambda run: (run.standing != "finished", run.step != step), default=None
        )

    def home(self, folder: Path) -> Path:
        """The folder that holds the results of the run whose records lie in `folder`: most often
        itself."""
        digest = self._by_folder.get(folder)
        if digest is None or standing_of(folder) == "finished":
            return folder
        found = self.find(digest)
        return found.folder if found and found.standing == "finished" else folder


def run_folders(study: Path) -> list[Path]:
    """Every folder of a study that is named as a run's, by the names of their steps and then by
    their seeds."""
    found = [
        (folder.parent.name, int(match[1]), folder)
        for folder in study.glob("*/seed-*")
        if (match := _SEED.fullmatch(folder.name)) and folder.is_dir()
    ]
    return [folder for _, _, folder in sorted(found)]


def standing_of(folder: Path) -> RunState:
    """How far the run in a folder is."""
    if (folder / "result.json").exists():
        return "finished"
    begun = any((folder / name).exists() for name in ("checkpoint.pt", "checkpoint.pt.previous"))
    return "to resume" if begun else "to train"
