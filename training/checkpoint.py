"""Checkpoints that a crash cannot spoil: written beside, checksummed, renamed, the one before kept."""

import hashlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import torch

from data.files import write_atomically

_MARK = b"\nsha256:"
_TRAILER = len(_MARK) + 64


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them) so that `path` is always whole.

    The checkpoint before is kept as `path`.previous. The file is what torch.save writes and, after it, a checksum.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    if path.exists():  # a second name for the old file, so that there is no moment without one under its own
        previous(path).unlink(missing_ok=True)
        os.link(path, previous(path))
    write_atomically(path, content + _MARK + hashlib.sha256(content).hexdigest().encode())


def previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def load_latest(path: Path, device: torch.device) -> dict[str, Any] | None:
    """What `save` last wrote whole: `path`, or where that is damaged the one before; None where there is neither.

    Raises:
        ValueError: both are damaged.
    """
    if not path.exists():
        return load(previous(path), device) if previous(path).exists() else None
    try:
        return load(path, device)
    except ValueError as damage:
        if not previous(path).exists():
            raise ValueError(f"{damage}: delete it to begin this run anew") from damage
        print(f"runner.py: {damage}; going on from the one before", file=sys.stderr)
        return load(previous(path), device)


def load(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save` wrote. Nothing in the file is executed.

    Raises:
        ValueError: the file is torn, changed, or no checkpoint.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    body, trailer = content[:-_TRAILER], content[-_TRAILER:]
    if trailer != _MARK + hashlib.sha256(body).hexdigest().encode():
        raise ValueError(f"{path} is damaged: its checksum does not fit its contents")
    state = torch.load(io.BytesIO(body), map_location=device, weights_only=True)
    assert isinstance(state, dict)
    return state
