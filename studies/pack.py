"""A study in one small file, to publish, commit or merge: all that its report needs, no weights."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from studies import compact
from studies.plan import merged_plans, plans_of
from studies.run import Index, run_folders, state_of
from studies.study import read_json
from utils.files import read_bytes, write_atomically

FORMAT = 1
PREDICTIONS = "predictions.csv"
FILES = ("config.json", "environment.json", "metrics.jsonl", "result.json")
"""Of a run, beside its predictions, which are kept in another form."""

_MAGIC = b"\xfd7zXZ\x00"
_MOST = 2**31
"""Bytes that a pack may unfold to."""
# Few long repetitions, much that is skewed: a short search and no context do as well as lzma's
# best, in a third of the time (docs/decisions.md#pack).
_FILTERS = [
    {"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 0, "pb": 0, "nice_len": 16, "depth": 4}
]


def pack(study: Path, out: Path) -> None:
    """Write the study in a folder, finished or not, into the file `out`.

    Raises:
        ValueError: the folder is no study's, or `out` is a file that is no pack.
        OSError: a file cannot be read or written.
    """
    _require_place(out)
    with opened(study) as folder:
        runs = {_name(run): run for run in run_folders(folder)}
        _write(out, read_json(folder / "study.json"), runs)


def merge(sources: Sequence[Path], out: Path) -> None:
    """Write the runs of several packs or folders of one study into the file `out`.

    Of a run that several have, the one that is further is taken.

    Raises:
        ValueError: they are of different studies, or have a run that came out differently.
        OSError: a file cannot be read or written.
    """
    _require_place(out)
    with contextlib.ExitStack() as stack:
        folders = {source: stack.enter_context(opened(source)) for source in sources}
        study: dict[str, Any] = {}
        runs: dict[str, Path] = {}
        for source, folder in folders.items():
            study = _joined(study, read_json(folder / "study.json"), sources[0], source)
            for run in run_folders(folder):
                name = _name(run)
                runs[name] = _further(runs[name], run, source) if name in runs else run
        _write(out, study, runs)


def unpack(source: Path, study: Path) -> tuple[int, int]:
    """Make the folder `study` of a pack, to go on with it: how many finished runs it has, and how
    many were left out.

    A run that is not finished is left out, for a pack has no checkpoint from which it could go on.

    Raises:
        ValueError: `study` is there already, or `source` is no pack.
        OSError: a file cannot be read or written.
    """
    if not source.is_file():
        raise ValueError(f"{source} is no pack of a study: give a file that runner.py pack wrote")
    if study.exists() or study.is_symlink():
        raise ValueError(f"{study} is there already: give the study another name with --study")
    with opened(source) as folder:
        runs, index = run_folders(folder), Index(folder)
        left_out = [run for run in runs if state_of(index.result_dir(run)) != "finished"]
        for run in left_out:
            shutil.rmtree(run)
        study.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=study.parent) as place:
            shutil.copytree(folder, Path(place) / study.name)
            (Path(place) / study.name).rename(study)
    return len(runs) - len(left_out), len(left_out)


@contextlib.contextmanager
def opened(source: Path) -> Iterator[Path]:
    """The study's folder that `source` is, or that a pack is unfolded into for as long as the block
    lasts.

    Raises:
        ValueError: `source` is neither, or a pack that is cut or was changed. One sentence.
    """
    if not source.is_file():
        if not (source / "study.json").exists():
            raise ValueError(
                f"{source} holds no study: give a study's folder, or a file that runner.py pack "
                "wrote"
            )
        yield source
        return
    files = _read(source)
    with tempfile.TemporaryDirectory(prefix="study-") as place:
        folder = Path(place)
        try:
            kept = {
                name: content for name, content in files.items() if name.startswith("predictions/")
            }
            for name, content in (*(files.items() - kept.items()), *_named(compact.decode(kept))):
                path = folder / _checked(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{source} is no pack of a study: it holds what no study has ({error})"
            ) from None
        try:
            yield folder
        except ValueError as error:  # who asked knows nothing of the folder
            raise ValueError(str(error).replace(str(folder), str(source))) from None


def _name(run: Path) -> str:
    return f"{run.parent.name}/{run.name}"


def _named(predictions: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    return ((f"{run}/{PREDICTIONS}", content) for run, content in predictions)


def _checked(name: str) -> str:
    """`name` if it is one of a study's files; nothing else is ever written."""
    parts = PurePosixPath(name).parts
    run = len(parts) == 3 and parts[1].startswith("seed-") and parts[2] in (*FILES, PREDICTIONS)
    if "/".join(parts) != name or {"..", "/"} & set(parts) or not (run or name == "study.json"):
        raise ValueError(repr(name))
    return name


def _require_place(out: Path) -> None:
    """Raise ValueError rather than write over something that is no pack."""
    if out.is_file():
        with out.open("rb") as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                return
    if out.exists():
        raise ValueError(f"{out} exists and is no pack: give another file with --out")


def _joined(
    one: Mapping[str, Any], other: dict[str, Any], first: Path, source: Path
) -> dict[str, Any]:
    """study.json of two parts of one study, with the designs and the plans of both."""
    if not one:
        return other
    for key in sorted({*one, *other} - {"name", "designs", "plans"}):
        if key == "config" and one.get("hash") == other.get("hash"):
            continue  # they differ by where the images lie at most
        if one.get(key) != other.get(key):
            raise ValueError(
                f"{first} and {source} are of different studies: their {key} differs in study.json"
            )
    try:
        plans = [plan.as_json() for plan in merged_plans(plans_of(one), plans_of(other))]
    except ValueError as error:
        raise ValueError(f"{first} and {source} cannot be one study: their plans {error}") from None
    designs = one.get("designs", [])
    designs = [*designs, *(design for design in other.get("designs", []) if design not in designs)]
    both = {"designs": designs, "plans": plans}
    return {**one, **{key: value for key, value in both.items() if value}}


def _further(one: Path, other: Path, source: Path) -> Path:
    """Of two folders of one run the one that is further; the first where they are alike."""
    states = [
        tuple(map(_content(run).get, ("config.json", "result.json", PREDICTIONS)))
        for run in (one, other)
    ]
    digests = [json.loads(config or b"{}").get("digest") for config, _, _ in states]
    finished = [result is not None for _, result, _ in states]
    if digests[0] != digests[1] or (all(finished) and states[0][2] != states[1][2]):
        raise ValueError(
            f"{source} and another part both have {_name(other)}, and they differ in "
            f"{'what the run is' if digests[0] != digests[1] else 'their predictions'}: leave it "
            "out of one of them"
        )
    epochs = [len(_content(run).get("metrics.jsonl", b"").splitlines()) for run in (one, other)]
    return other if (finished[1], epochs[1]) > (finished[0], epochs[0]) else one


def _content(run: Path) -> dict[str, bytes]:
    """The files of a run by name. Raises OSError for one that cannot be read, such as a pipe."""
    return {
        name: read_bytes(run / name)
        for name in (*FILES, PREDICTIONS)
        if os.path.lexists(run / name)
    }


def _write(out: Path, study: Mapping[str, Any], runs: Mapping[str, Path]) -> None:
    files = {"study.json": (json.dumps(study, indent=2) + "\n").encode()}

    def predictions() -> Iterator[tuple[str, bytes]]:
        for name, run in sorted(runs.items()):
            content = _content(run)
            files.update({f"{name}/{file}": content[file] for file in FILES if file in content})
            if PREDICTIONS in content:
                yield name, content[PREDICTIONS]

    files |= compact.encode(predictions())
    files = {
        "pack.json": json.dumps({"format": FORMAT, "sha256": _sha256(files)}).encode(),
        **files,
    }
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        # pack.json, then files of one kind side by side: they resemble each other.
        for name in sorted(
            files, key=lambda name: (name != "pack.json", name.rpartition("/")[2], name)
        ):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            archive.addfile(member, io.BytesIO(files[name]))
    write_atomically(
        out, lzma.compress(plain.getvalue(), check=lzma.CHECK_SHA256, filters=_FILTERS)
    )


def _read(path: Path) -> dict[str, bytes]:
    """The files in a pack. Raises ValueError, in one sentence, where it is none, cut or changed."""
    content = read_bytes(path)
    if not content.startswith(_MAGIC):
        raise ValueError(
            f"{path} is no pack of a study: give a file that runner.py pack wrote, or a study's "
            "folder"
        )
    whole, files = lzma.LZMADecompressor(lzma.FORMAT_XZ), dict[str, bytes]()
    try:
        plain = whole.decompress(content, _MOST)
        if not whole.eof or whole.unused_data:
            raise ValueError("it ends too early, or too late")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is None or member.name in files:
                    raise ValueError(f"{member.name} is no file, or is there twice")
                files[member.name] = file.read()
        about = json.loads(files.pop("pack.json"))
        made, sha256 = about["format"], about["sha256"]
    except (lzma.LZMAError, tarfile.TarError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ValueError(
            f"{path} is cut, damaged or no pack of a study ({error}): fetch it again, or pack the "
            "study again"
        ) from None
    if made != FORMAT:
        raise ValueError(
            f"{path} is a pack of format {made}, and this program reads {FORMAT}: use the one it "
            "is from"
        )
    if sha256 != _sha256(files):
        raise ValueError(
            f"{path} was changed after it was packed: fetch it again, or pack the study again"
        )
    return files


def _sha256(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode(errors="surrogateescape") + content)
    return digest.hexdigest()
