"""A study's folder: the config all its runs share, and where each run lives. No torch here."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from data.files import one_writer, read_bytes, where_supported, write_atomically
from data.splits import first_few
from data.words import flat
from training.recipe import StudyConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Step(Protocol):
    """What a study has to know of a step (`ablations.Step`)."""

    @property
    def number(self) -> int | None: ...

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Study:
    """A study as its study.json records it."""

    folder: Path
    config: StudyConfig
    hash: str
    """Of the config and the data set's contents: two runs may be compared only if theirs are equal."""

    @property
    def name(self) -> str:
        return self.folder.name

    def run_folder(self, step: str, seed: int) -> Path:
        return run_folder(self.folder, step, seed)


def run_folder(study: Path, step: str, seed: int) -> Path:
    """Where the run of a step and a seed lives in its study's folder."""
    return study / step / f"seed-{seed}"


MADE_AGAIN = ".made-again"
"""In a run's folder while a command with --overwrite that has begun it anew is not done."""


def must_begin_anew(run: Path) -> bool:
    """Whether a command that names the run in --overwrite is to throw it away, or has done so before."""
    return not (run / MADE_AGAIN).exists()


def check_name(name: str) -> None:
    """Raise ValueError unless `name` can be a folder's name everywhere."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"the study's name is {name!r}: give up to 100 letters, digits, dots, dashes and underscores")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError, naming the file, where there is none."""
    try:
        content = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}): restore it, or choose another --study") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: restore it, or choose another --study")
    return content


def read_result(run: Path) -> dict[str, Any] | None:
    """The result.json of a finished run, None of another. Raises ValueError, with what to do, where it is damaged."""
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


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def _as_json(config: StudyConfig) -> dict[str, Any]:
    content = dict(json.loads(json.dumps(asdict(config))))
    if config.init_weights is None:  # studies made before there was such a choice keep their hash
        del content["init_weights"]
    return content


def check_config(folder: Path, config: StudyConfig) -> None:
    """Raise ValueError if `folder` holds a study of another config, naming what differs. Writes nothing.

    `config.precision` may still be "auto", which agrees with any.
    """
    path = folder / "study.json"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: choose another --study")
    if not path.exists():
        left = [entry.name for entry in folder.iterdir()] if folder.exists() else []
        # The lock on making a study, and a study.json that was not finished, are no reason not to make it.
        if any(not name.startswith(".") and name != "study.json.part" for name in left):
            raise ValueError(f"{folder} holds files but no study.json: choose another --study, or an empty folder")
        return
    there, here = read_json(path).get("config"), _as_json(config)
    if not isinstance(there, dict) or not all(isinstance(there.get(part), dict) for part in ("recipe", "classic")):
        raise ValueError(f"{path} is damaged, it states no config: restore it, or choose another --study")
    pairs = [(f"{part}.{key}" if part == "classic" else key, flat(there.get(part, {})).get(key), value)
             for part in ("recipe", "classic") for key, value in flat(here[part]).items()]  # fmt: skip
    pairs += [(key, there.get(key), here[key]) for key in ("dataset", "regime", "resolution", "precision")]
    before, now = ((part.get("init_weights") or {}).get("sha256", "none")[:12] for part in (there, here))
    pairs.append(("init_weights", before, now))
    different = [f"{key} ({old} there, {new} here)" for key, old, new in pairs
                 if old != new and (key, new) != ("precision", "auto")]  # fmt: skip
    if different:
        raise ValueError(
            f"{folder} was made by another config: {first_few(different)}; give this one a name of its own with "
            "--study NAME, or ask for the same config"
        )


def open_study(folder: Path, config: StudyConfig, dataset: Mapping[str, Any], fingerprint: str) -> Study:
    """Make `folder` a study of `config` on `dataset` (its summary for readers), or find that it is one already.

    Raises:
        ValueError: the folder holds a study of another config, or of the same data set with other contents.
    """
    check_config(folder, config)
    content = {**_as_json(config), "dataset_fingerprint": fingerprint}
    for recipe in ("recipe", "classic"):
        if content[recipe]["ema"] is None:  # a later field: studies made before it keep their hash
            del content[recipe]["ema"]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    content = {**_as_json(config), "dataset_fingerprint": fingerprint}
    path = folder / "study.json"
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as lock:
        if not path.exists():
            lock.enter_context(one_writer(path))
        if not path.exists():
            write_json(path, {"name": folder.name, "hash": digest, "config": content, "dataset": dataset})
    check_config(folder, config)  # another process may have made it
    if read_json(path).get("hash") != digest:
        raise ValueError(
            f"{folder} was made on other pictures: data set {config.dataset!r} has changed since; restore it, or give "
            "this study a name of its own with --study NAME"
        )
    return Study(folder, config, digest)


class Busy(ValueError):
    """Another process trains the run."""


@contextlib.contextmanager
def one_trainer(folder: Path) -> Iterator[None]:
    """Hold the run folder for this process. A lock that a dead process left is no obstacle.

    Raises:
        Busy: another process trains in it; the message names it.
    """
    import fcntl
    import socket

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            # Not flock: its lock would outlive the process in the workers that it forked.
            with where_supported():
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise Busy(f"{folder} is being trained by {holder}: wait for it, or stop it first") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
