"""A study's folder: the config all its runs share, and where each run lives. No torch here."""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from studies.identity import hexdigest
from training.recipe import StudyConfig
from utils.files import one_writer, read_bytes, write_json
from utils.text import first_few, flat

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Study:
    """A study, made already or yet to be."""

    folder: Path
    config: StudyConfig
    images: str
    """The data set's fingerprint; empty where the study is not made yet."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def hash(self) -> str:
        """Of the config and the images, wherever they lie: two runs may be compared only if theirs
        are equal."""
        return hexdigest({"config": replace(self.config, dataset=""), "images": self.images})

    def run_folder(self, step: str, seed: int) -> Path:
        """Where the run of a step and a seed lives."""
        return self.folder / step / f"seed-{seed}"


MADE_AGAIN = ".made-again"
"""In a run's folder while a command with --overwrite that has begun it anew is not done."""


def must_begin_anew(run: Path) -> bool:
    """Whether a command that names the run in --overwrite is to throw it away, or has done so
    before."""
    return not (run / MADE_AGAIN).exists()


def study_folder(name: str, runs: Path) -> Path:
    """The folder in `runs` of the study of that name. Raises ValueError unless it can be a folder's
    name everywhere."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the study's name is {name!r}: give up to 100 letters, digits, dots, dashes and "
            "underscores"
        )
    return runs / name


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError, naming the file, where there is none."""
    try:
        content = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): restore it, or choose another --study"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: restore it, or choose another --study")
    return content


def read_result(run: Path) -> dict[str, Any] | None:
    """The result.json of a finished run, None of another. Raises ValueError, with what to do, where
    it is damaged."""
    path = run / "result.json"
    if not os.path.lexists(path):
        return None
    again = f"restore it, or make the run again with --overwrite {run.parent.name}"
    try:
        result = read_json(path)
    except ValueError as error:
        raise ValueError(f"{str(error).partition(': restore')[0]}: {again}") from None
    match result:
        case {
            "top1": int() | float() as top1,
            "images_per_second": int() | float(),
            "seconds": {"total": int() | float()},
        }:
            if 0 <= top1 <= 100:
                return result
    raise ValueError(f"{path} is damaged, a number in it is missing or impossible: {again}")


def read_records(run: Path) -> Iterator[dict[str, Any]]:
    """config.json and result.json of a run, as far as they are there and whole; who needs the
    others says so."""
    for read, place in ((read_json, run / "config.json"), (read_result, run)):
        with contextlib.suppress(ValueError):
            if (record := read(place)) is not None:
                yield record


def find_study(folder: Path, config: StudyConfig) -> Study:
    """The study of `config` in `folder`, made already or yet to be. Writes nothing.

    `config.precision` may still be "auto", which agrees with any.

    Raises:
        ValueError: the folder holds a study of another config; the message names what differs.
    """
    path = folder / "study.json"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: choose another --study")
    if not path.exists():
        left = [entry.name for entry in folder.iterdir()] if folder.exists() else []
        # The lock on making a study, and a study.json that was not finished, are no reason not to
        # make it.
        if any(not name.startswith(".") and name != "study.json.part" for name in left):
            raise ValueError(
                f"{folder} holds files but no study.json: choose another --study, or an empty "
                "folder"
            )
        return Study(folder, config, "")
    study, here = read_json(path), json.loads(json.dumps(asdict(config)))
    there = study.get("config")
    if not isinstance(there, dict) or not all(
        isinstance(there.get(part), dict) for part in ("recipe", "classic")
    ):
        raise ValueError(
            f"{path} is damaged, it states no config: restore it, or choose another --study"
        )
    pairs = [
        (f"{part}.{key}" if part == "classic" else key, flat(there.get(part, {})).get(key), value)
        for part in ("recipe", "classic")
        for key, value in flat(here[part]).items()
    ]
    pairs += [
        (key, there.get(key), here[key]) for key in ("dataset", "regime", "resolution", "precision")
    ]
    before, now = (
        (part.get("init_weights") or {}).get("sha256", "none")[:12] for part in (there, here)
    )
    pairs.append(("init_weights", before, now))
    different = [
        f"{key} ({old} there, {new} here)"
        for key, old, new in pairs
        if old != new and (key, new) != ("precision", "auto")
    ]
    if different:
        raise ValueError(
            f"{folder} was made by another config: {first_few(different)}; give this one a name "
            "of its own with "
            "--study NAME, or ask for the same config"
        )
    return Study(folder, config, str(study.get("images", "")))


def open_study(
    folder: Path, config: StudyConfig, dataset: Mapping[str, Any], fingerprint: str
) -> Study:
    """Make `folder` a study of `config` on `dataset` (its summary for readers), or find that it is
    one already.

    Raises:
        ValueError: the folder holds a study of another config, or of the same data set with other
            contents.
    """
    find_study(folder, config)
    study = Study(folder, config, fingerprint)
    path = folder / "study.json"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as lock:
        if not path.exists():
            lock.enter_context(one_writer(path))
        if not path.exists():
            content = {"name": study.name, "hash": study.hash, "config": asdict(config)}
            write_json(path, {**content, "images": fingerprint, "dataset": dataset})
    there = find_study(folder, config)  # another process may have made it
    if there != study or read_json(path).get("hash") != study.hash:
        raise ValueError(
            f"{folder} was made on other images: data set {config.dataset!r} has changed since; "
            "restore it, or give "
            "this study a name of its own with --study NAME"
        )
    return study


def note_design(folder: Path, record: Mapping[str, Any]) -> None:
    """Write into study.json that a design was asked for, unless it says so already."""
    path = folder / "study.json"
    with one_writer(path):
        study = read_json(path)
        noted = study.setdefault("designs", [])
        if (record := json.loads(json.dumps(record))) not in noted:
            noted.append(record)
            write_json(path, study)
