"""A study in one small file, to publish, commit or merge: all that its report reads, no weights.

A pack is a tar.bz2 of the study's own JSON files. Its predictions are kept by column: for each list
of test images `predictions-<n>.images.csv` has names and classes, and `.top1.csv` and `.p_top1.csv`
have a line for each run with a value for each image. So they compress to a quarter, without the
columns that no report reads.
"""

import bz2
import contextlib
import csv
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.plan import merged_plans, plans_of
from studies.run import Index, run_folders, state_of
from studies.study import FORMAT, read_json, read_study
from training.spec import CONFIG, ENVIRONMENT, METRICS, RESULT
from utils.files import read_bytes, write_atomically

PREDICTIONS = "predictions.csv"
_FILES = (CONFIG, ENVIRONMENT, METRICS, RESULT)
_ABOUT = "pack.json"
_IMAGES, _VALUES = ("image", "label"), ("p_top1", "top1")
_OLD_MAGIC = b"\xfd7zXZ"

Columns = tuple[tuple[str, ...], ...]
"""image, label, p_top1 and top1 of predictions.csv, as text."""


def pack(study: Path, out: Path) -> None:
    """Write the study in a folder, finished or not, to the file `out`.

    Raises:
        ValueError: the folder holds no study, or `out` is a file but no pack.
        OSError: a file cannot be read or written.
    """
    _require_free(out)
    with opened(study) as folder:
        runs = {_name(run): run for run in run_folders(folder)}
        _write(out, read_study(folder), runs)


def merge(sources: Sequence[Path], out: Path) -> None:
    """Write the runs of several packs or folders of one study to the file `out`.

    Where several have a run, the one with more epochs is taken.

    Raises:
        ValueError: they are of different studies, or a run has different results in them.
        OSError: a file cannot be read or written.
    """
    _require_free(out)
    with contextlib.ExitStack() as stack:
        study: dict[str, Any] = {}
        runs: dict[str, Path] = {}
        for source in sources:
            folder = stack.enter_context(opened(source))
            study = _merged_study(study, read_study(folder), sources[0], source)
            for run in run_folders(folder):
                name = _name(run)
                runs[name] = _further(runs[name], run, source) if name in runs else run
        _write(out, study, runs)


def unpack(source: Path, study: Path) -> tuple[int, int]:
    """Create the folder `study` from a pack; return its finished runs and those left out.

    Unfinished runs are left out, because a pack has no checkpoint to resume them from.

    Raises:
        ValueError: `study` exists, or `source` is no pack.
        OSError: a file cannot be read or written.
    """
    if not source.is_file():
        raise ValueError(f"{source} is no pack of a study: give a file that runner.py pack wrote")
    if study.exists() or study.is_symlink():
        raise ValueError(f"{study} is there already: give the study another name with --study")
    with opened(source) as folder:
        runs, index = run_folders(folder), Index(folder)
        unfinished = [run for run in runs if state_of(index.result_dir(run)) != "finished"]
        for run in unfinished:
            shutil.rmtree(run)
        study.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=study.parent) as work:
            shutil.copytree(folder, Path(work) / study.name)
            (Path(work) / study.name).rename(study)
    return len(runs) - len(unfinished), len(unfinished)


@contextlib.contextmanager
def opened(source: Path) -> Iterator[Path]:
    """Yield the study's folder `source`, or a temporary folder with the contents of a pack.

    Raises:
        ValueError: `source` is neither, or a damaged pack.
    """
    if not source.is_file():
        if not (source / "study.json").exists():
            raise ValueError(
                f"{source} holds no study: give a study's folder, or a file that runner.py pack "
                "wrote"
            )
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="study-") as work:
        folder = Path(work)
        try:
            content = read_bytes(source)
            if content.startswith(_OLD_MAGIC):
                raise ValueError("it is of an older version")
            with tarfile.open(fileobj=io.BytesIO(bz2.decompress(content))) as archive:
                archive.extractall(folder, filter="data")
            version = json.loads((folder / _ABOUT).read_bytes())["format"]
            if version == FORMAT:
                _restore_predictions(folder)
        except (tarfile.TarError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
            reason = str(error).partition("\n")[0].replace(f"{folder}/", "")
            raise ValueError(f"{source} is damaged or no pack of a study ({reason})") from None
        if version != FORMAT:
            raise ValueError(
                f"{source} is a pack of format {version}, and this version reads {FORMAT}: use the "
                "version that wrote it"
            )
        try:
            yield folder
        except ValueError as error:  # the caller knows the pack, not the temporary folder
            raise ValueError(str(error).replace(str(folder), str(source))) from None


def _name(run: Path) -> str:
    return f"{run.parent.name}/{run.name}"


def _require_free(out: Path) -> None:
    if out.exists() and not (out.is_file() and tarfile.is_tarfile(out)):
        raise ValueError(f"{out} exists and is no pack: give another file with --out")


def _merged_study(
    one: Mapping[str, Any], other: dict[str, Any], first: Path, source: Path
) -> dict[str, Any]:
    """Merge study.json of two parts of one study, with the designs and plans of both."""
    if not one:
        return other
    for key in sorted({*one, *other} - {"name", "designs", "plans"}):
        if key in ("config", "dataset") and one.get("hash") == other.get("hash"):
            continue  # they differ at most in where the images are
        if one.get(key) != other.get(key):
            raise ValueError(
                f"{first} and {source} are of different studies: their {key} differs in study.json"
            )
    try:
        plans = [plan.as_json() for plan in merged_plans(plans_of(one), plans_of(other))]
    except ValueError as error:
        raise ValueError(f"{first} and {source} cannot be one study: their plans {error}") from None
    designs = list(one.get("designs", []))
    designs += [design for design in other.get("designs", []) if design not in designs]
    both = {"designs": designs, "plans": plans}
    return {**one, **{key: value for key, value in both.items() if value}}


def _further(one: Path, other: Path, source: Path) -> Path:
    """Return the folder of a run that has more of it; the first where both have the same.

    Raises:
        ValueError: they are different runs, or finished with different predictions.
    """
    digests = [read_json(run / CONFIG).get("digest") for run in (one, other)]
    finished = [(run / RESULT).exists() for run in (one, other)]
    differ = "" if digests[0] == digests[1] else "digest"
    if not differ and all(finished) and _predictions(one) != _predictions(other):
        differ = "predictions"
    if differ:
        raise ValueError(
            f"{source} and another part both have {_name(other)} and differ in its {differ}: "
            "leave it out of one of them"
        )
    metrics = [run / METRICS for run in (one, other)]
    epochs = [len(read_bytes(path).splitlines()) if path.exists() else 0 for path in metrics]
    return other if (finished[1], epochs[1]) > (finished[0], epochs[0]) else one


def _predictions(run: Path) -> Columns | None:
    path = run / PREDICTIONS
    if not os.path.lexists(path):
        return None
    header, *rows = _read_csv(path) or [[]]
    try:
        places = [header.index(name) for name in (*_IMAGES, *_VALUES)]
        return tuple(tuple(row[place] for row in rows) for place in places)
    except (ValueError, IndexError):
        raise ValueError(f"{path} lacks a column or a value: restore it") from None


def _read_csv(path: Path) -> list[list[str]]:
    text = read_bytes(path).decode(errors="surrogateescape")
    return list(csv.reader(io.StringIO(text, newline="")))


def _csv(rows: Iterable[Iterable[str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue().encode(errors="surrogateescape")


def _write(out: Path, study: Mapping[str, Any], runs: Mapping[str, Path]) -> None:
    files = {
        _ABOUT: json.dumps({"format": FORMAT}).encode(),
        "study.json": (json.dumps(study, indent=2) + "\n").encode(),
    }
    groups: dict[bytes, dict[str, Columns]] = {}
    for name, run in sorted(runs.items()):
        present = [file for file in _FILES if os.path.lexists(run / file)]
        files |= {f"{name}/{file}": read_bytes(run / file) for file in present}
        if (columns := _predictions(run)) is not None:
            images = _csv([_IMAGES, *zip(*columns[:2], strict=True)])
            groups.setdefault(images, {})[name] = columns
    for number, (images, group) in enumerate(groups.items()):
        files[f"predictions-{number}.images.csv"] = images
        for place, column in enumerate(_VALUES, start=len(_IMAGES)):
            lines = ((name, *columns[place]) for name, columns in group.items())
            files[f"predictions-{number}.{column}.csv"] = _csv(lines)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files, key=lambda name: (name.rpartition("/")[2], name)):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    write_atomically(out, bz2.compress(content.getvalue()))


def _restore_predictions(folder: Path) -> None:
    """Write each run's predictions.csv and remove the files that the pack had instead."""
    runs = {_name(run): run for run in run_folders(folder)}
    for path in sorted(folder.glob("predictions-*.images.csv")):
        images = _read_csv(path)[1:]
        others = [path.with_name(path.name.replace("images", column)) for column in _VALUES]
        for (name, *p_top1), (_, *top1) in zip(*map(_read_csv, others), strict=True):
            rows = zip(images, p_top1, top1, strict=True)
            content = _csv([(*_IMAGES, *_VALUES), *((*image, p, top) for image, p, top in rows)])
            (runs[name] / PREDICTIONS).write_bytes(content)
        for file in (path, *others):
            file.unlink()
    (folder / _ABOUT).unlink()
