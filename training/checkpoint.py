"""Checkpoints that a crash cannot spoil: written beside, checksummed, renamed, the one before
kept."""

import hashlib
import io
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from utils.files import write_atomically

NAME = "checkpoint.pt"
"""In a run's folder."""
_MARK = b"\nsha256:"
_TRAILER = len(_MARK) + 64


class Damaged(OSError):
    """The file is torn, changed, no checkpoint, or another run's. One sentence, which names it."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them) so that `path` is always
    whole.

    The checkpoint before is kept as `path`.previous. The file is what torch.save writes and, after
    it, a checksum.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    keep_previous(path)
    write_atomically(path, content + _MARK + hashlib.sha256(content).hexdigest().encode())


def keep_previous(path: Path) -> None:
    """Keep the file at `path`, which is going to be replaced, as `path`.previous."""
    if not path.exists():
        return
    previous(path).unlink(missing_ok=True)
    try:  # a second name for the old file, so that there is no moment without one under its own
        os.link(path, previous(path))
    except OSError:  # a disk without links, or without room for one more name
        os.replace(path, previous(path))


def previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def damaged(path: Path) -> Path:
    """Where `load_latest` puts a checkpoint that it gave up."""
    return path.with_name(path.name + ".damaged")


def load_latest(
    path: Path, device: torch.device, owner: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """What `save` last wrote whole: `path`, or where that is damaged the one before; None where
    there is neither.

    `owner` are entries that the checkpoint must have; with others it is another run's, and counts
    as damaged.

    Raises:
        Damaged: there are checkpoints, but no good one.
    """
    if not path.exists():
        return load(previous(path), device, owner) if previous(path).exists() else None
    try:
        return load(path, device, owner)
    except Damaged as damage:
        if not previous(path).exists():
            raise
        state = load(previous(path), device, owner)
        # Out of the way: the next `save` would keep the damaged one as the previous, in place of
        # the good one.
        os.replace(path, damaged(path))
        print(
            f"runner.py: {damage}; going on from the one before ({damaged(path).name} is the bad "
            "one)",
            file=sys.stderr,
        )
        return state


def load(
    path: Path, device: torch.device, owner: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Read what `save` wrote. Nothing in the file is executed.

    Raises:
        Damaged: the file is torn, changed, no checkpoint, or lacks the entries `owner`.
        OSError: it cannot be read.
    """
    if not path.is_file() and path.exists():
        raise Damaged(f"{path} is damaged: it is no file")
    content = path.read_bytes()
    body, trailer = content[:-_TRAILER], content[-_TRAILER:]
    if not content:
        raise Damaged(f"{path} is damaged: it is empty")
    if trailer != _MARK + hashlib.sha256(body).hexdigest().encode():
        raise Damaged(f"{path} is damaged: its checksum does not fit its contents")
    try:
        state = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    except Exception as error:  # an unpickler raises anything
        raise Damaged(
            f"{path} is damaged: it holds more than tensors, or cannot be unpacked"
        ) from error
    if not isinstance(state, dict):
        raise Damaged(f"{path} is damaged: it is no run's state")
    for name, value in (owner or {}).items():
        if state.get(name) != value:
            raise Damaged(
                f"{path} is not this run's: its {name} is {state.get(name)!r} and should be "
                f"{value!r}"
            )
    return state
