"""A study's folder: its files, their formats, and the config that all its runs share. No torch.

study.json             format, name, hash, config, images (fingerprint), dataset (summary),
                       designs (as requested), plans (how the study is evaluated)
.requested.json        step -> seeds of the runs that were requested
.jobs/TIME/            script, code and logs of a launch on Slurm
report/                report.md, report.html, tables, figures
STEP/seed-K/           one run:
    config.json        digest and variant of the run, and all that they are computed from
    environment.json   machine and versions
    metrics.jsonl      one line an epoch; events.* has the same for TensorBoard
    checkpoint.pt      state to resume from; checkpoint.pt.previous
    model.safetensors  best weights
    predictions.csv    of the test images
    result.json        top-1 and all else that is measured; its presence: the run is finished
    failure.json       why the last attempt failed
    .lock              who trains the run, with a heartbeat and the progress
    .overwritten       --overwrite has discarded the earlier run, its command is not done yet
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data.datasets import NAMES
from studies.identity import hexdigest
from training.recipe import StudyConfig
from training.spec import CONFIG, RESULT
from utils.files import one_writer, read_bytes, recall, write_json
from utils.text import first_few, flat

FORMAT = 2
"""Version of all file formats of a study."""
STUDY, LOCK, FAILURE, OVERWRITTEN = "study.json", ".lock", "failure.json", ".overwritten"
LAUNCH = "ABLATIONS_LAUNCH"
"""Environment variable of workers that were started together: a name of their launch."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Study:
    """A study, which may not exist on disk yet."""

    folder: Path
    config: StudyConfig
    images: str
    """Fingerprint of the data set; empty where the study does not exist yet."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def hash(self) -> str:
        """Digest of the config and the images, wherever they are. Runs are comparable only if
        theirs are equal."""
        return hexdigest({"config": replace(self.config, dataset=""), "images": self.images})

    def run_folder(self, step: str, seed: int) -> Path:
        return self.folder / step / f"seed-{seed}"


def study_folder(name: str, runs: Path) -> Path:
    """The folder in `runs` of a study. Raises ValueError unless its name can be a folder's."""
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
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"{path} cannot be read ({reason}): restore it, or choose another --study"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: restore it, or choose another --study")
    return content


def read_study(folder: Path) -> dict[str, Any]:
    """The content of study.json. Raises ValueError where it is damaged or has another format."""
    study = read_json(folder / STUDY)
    if (found := study.get("format", 1)) != FORMAT:
        raise ValueError(
            f"{folder / STUDY} has format {found} and this version of the code reads format "
            f"{FORMAT}: use the version that trained the study, or choose another --study"
        )
    return study


def no_study(folder: Path) -> str:
    """The message about a folder that holds no study: which ones there are, or what to do."""
    others = sorted(path.parent.name for path in folder.parent.glob("*/study.json"))
    there = f"{folder.parent} has {first_few(others)}" if others else "train a step first"
    return f"{folder} holds no study: {there} (--study and --preset name another)"


def read_result(run: Path) -> dict[str, Any] | None:
    """The result.json of a finished run, else None. Raises ValueError, with what to do, where it is
    damaged."""
    path = run / RESULT
    if not os.path.lexists(path):
        return None
    remedy = f"restore it, or train the run from scratch with --overwrite {run.parent.name}"
    try:
        result = read_json(path)
    except ValueError as error:
        raise ValueError(f"{str(error).partition(': restore')[0]}: {remedy}") from None
    match result:
        case {
            "top1": int() | float() as top1,
            "images_per_second": int() | float(),
            "seconds": {"total": int() | float()},
        } if 0 <= top1 <= 100:
            return result
    raise ValueError(f"{path} is damaged, a number in it is missing or impossible: {remedy}")


def read_records(run: Path) -> Iterator[dict[str, Any]]:
    """config.json and result.json of a run, those of them that exist and are not damaged."""
    for read, path in ((read_json, run / CONFIG), (read_result, run)):
        with contextlib.suppress(ValueError):
            if (record := read(path)) is not None:
                yield record


def note_failure(run: Path, reason: str, *, final: bool) -> None:
    """Write why a run ended without a result; `final` if it would do so again, anywhere."""
    write_json(run / FAILURE, {"reason": reason, "final": final, "launch": os.environ.get(LAUNCH)})


def read_failure(run: Path) -> dict[str, Any] | None:
    """What `note_failure` wrote, if the last attempt of the run failed."""
    record = recall(run / FAILURE)
    return record if isinstance(record.get("reason"), str) else None


def find_study(folder: Path, config: StudyConfig) -> Study:
    """The study of `config` in `folder`, which may not exist yet. Writes nothing.

    `config.precision` may still be "auto", which agrees with any.

    Raises:
        ValueError: the folder holds something else, or a study of another config or format; the
            message names what differs.
    """
    path = folder / STUDY
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is not a folder: choose another --study")
    if not path.exists():
        names = [entry.name for entry in folder.iterdir()] if folder.exists() else []
        # A process that creates the study now, or was killed then, leaves these.
        if any(not name.startswith(".") and name != f"{STUDY}.part" for name in names):
            raise ValueError(
                f"{folder} holds files but no {STUDY}: choose another --study, or an empty folder"
            )
        return Study(folder, config, "")
    study, requested = read_study(folder), json.loads(json.dumps(asdict(config)))
    existing = study.get("config")
    parts = ("recipe", "classic")
    if not isinstance(existing, dict) or not all(isinstance(existing.get(p), dict) for p in parts):
        raise ValueError(
            f"{path} is damaged, it states no config: restore it, or choose another --study"
        )
    before, now = _options(existing), _options(requested)
    different = [
        f"{key} ({before.get(key)} there, {value} here)"
        for key, value in now.items()
        if before.get(key) != value
        and (key, value) != ("precision", "auto")
        # Images in a folder are known by their contents, wherever it is.
        and not (key == "dataset" and {before.get(key), value}.isdisjoint(NAMES))
    ]
    if different:
        raise ValueError(
            f"{folder} holds a study of another config: {first_few(different)}; give this one a "
            "name of its own with --study NAME, or request the same config"
        )
    return Study(folder, config, str(study.get("images", "")))


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config, by the names of their options."""
    fields = dict(flat(config["recipe"]))
    fields |= {f"classic.{key}": value for key, value in flat(config["classic"]).items()}
    fields |= {key: config.get(key) for key in ("dataset", "regime", "resolution", "precision")}
    weights = config.get("init_weights") or {}
    start = weights.get("sha256", "none")[:12]
    return fields | {"init_weights": start, "init_key": weights.get("key")}


def open_study(
    folder: Path, config: StudyConfig, dataset: Mapping[str, Any], fingerprint: str
) -> Study:
    """Create the study of `config` on `dataset` (a summary for readers) in `folder`, or check the
    one that is there.

    Raises:
        ValueError: the folder holds a study of another config, or of other images.
    """
    find_study(folder, config)
    study = Study(folder, config, fingerprint)
    path = folder / STUDY
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with one_writer(path):
            if not path.exists():
                record = {"format": FORMAT, "name": study.name, "hash": study.hash}
                record |= {"config": asdict(config), "images": fingerprint, "dataset": dataset}
                write_json(path, record)
    existing = find_study(folder, config)  # another process may have created it
    if existing != study or read_json(path).get("hash") != study.hash:
        raise ValueError(
            f"{folder} holds a study of other images than those of {config.dataset!r}: restore "
            "them, or give this study a name of its own with --study NAME"
        )
    return study


def note_design(folder: Path, record: Mapping[str, Any]) -> None:
    """Write into study.json that a design was requested, unless it says so already."""
    path = folder / STUDY
    with one_writer(path):
        study = read_json(path)
        designs = study.setdefault("designs", [])
        if (record := json.loads(json.dumps(record))) not in designs:
            designs.append(record)
            write_json(path, study)
