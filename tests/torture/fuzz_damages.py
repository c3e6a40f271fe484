"""What `tests.torture.fuzz` does to the files of a study: each damage takes the file and a source
of chance."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    [],
    [[]],
    {},
    {"a": 1},
    10**400,
]


def _write(path: Path, content: bytes) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _lines(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    change = rng.choice(["double", "drop", "swap", "garbage", "blank"])
    at = rng.randrange(len(lines) + 1)
    if change == "double":
        lines[at:at] = lines[at : at + 1]
    elif change == "drop":
        del lines[at : at + 1]
    elif change == "swap":
        rng.shuffle(lines)
    else:
        lines.insert(at, b"\n" if change == "blank" else b'{"epoch": "one", "seconds": [\n')
    _write(path, b"".join(lines))


def _json(path: Path, rng: random.Random) -> None:
    try:
        content = json.loads(
            path.read_bytes().splitlines()[0] if path.suffix == ".jsonl" else path.read_bytes()
        )
    except (OSError, ValueError, IndexError):
        return
    inner = content
    while rng.random() < 0.5 and (
        deeper := [v for v in inner.values() if isinstance(v, dict) and v]
    ):
        inner = rng.choice(deeper)
    key = rng.choice(list(inner))
    if rng.random() < 0.2:
        del inner[key]
    else:
        inner[key] = rng.choice(VALUES)
    _write(path, (json.dumps(content) + "\n").encode())


def _replaced(path: Path, make: Callable[[Path], Any]) -> None:
    path.unlink(missing_ok=True)
    make(path)


def _stray(path: Path, rng: random.Random) -> None:
    for name in rng.sample(
        ["stray", "notes.txt", "gelu", "ünï\n", "seed-x", "seed-99999999999999999999", ".hidden"], 3
    ):
        folder = path.parent / name
        folder.mkdir()
        (folder / "seed-7").mkdir()
        for file in path.parent.glob("*.json*"):
            if file.is_file():
                shutil.copy(file, folder / "seed-7" / file.name)


def _cache(path: Path, rng: random.Random) -> None:
    cache = (
        path.parents[2 if path.parent.name == "sound" else 4]
        / "home/.cache/convnext-ablations/layouts.json"
    )
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_bytes(
        rng.choice([b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a": {"layout": 3}}'])
    )


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "missing": lambda path, _: path.unlink(missing_ok=True),
    "empty": lambda path, _: _write(path, b""),
    "cut": lambda path, rng: _write(
        path, path.read_bytes()[: rng.randrange(1, 500)] if path.exists() else b"{"
    ),
    "garbage": lambda path, rng: _write(path, rng.randbytes(200)),
    "no text": lambda path, _: _write(path, b"\xff\xfe{}"),
    "deep": lambda path, _: _write(path, b"[" * 100_000),
    "another type": lambda path, rng: _write(
        path, rng.choice([b"[]", b"3", b"null", b'"x"', b"{}", b"NaN"])
    ),
    "a line": _lines,
    "a field": _json,
    "another field": _json,
    "a third field": _json,
    "a folder": lambda path, _: _replaced(path, Path.mkdir),
    "a pipe": lambda path, _: _replaced(path, os.mkfifo),
    "a device": lambda path, _: _replaced(path, lambda p: p.symlink_to("/dev/zero")),
    "a dangling link": lambda path, _: _replaced(path, lambda p: p.symlink_to("nowhere")),
    "stray files": _stray,
    "the trial's notes": _cache,
}
