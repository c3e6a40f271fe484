"""Checkpoints that a crash cannot spoil, and the state of a run that they hold."""

import hashlib
import io
import math
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.execution import ComputeOptions, Execution
from training.monitor import PHASES, Clock, LossMonitor
from training.spec import RunSpec
from training.update import TrainState
from utils.files import write_atomically

NAME = "checkpoint.pt"
"""In a run's folder."""
_MARK = b"\nsha256:"
_TRAILER = len(_MARK) + 64


class Damaged(OSError):
    """The file is torn, changed, no checkpoint, or another run's. The message names it."""


@dataclass
class State:
    """Where a run is, besides its weights and its optimizer."""

    epoch: int = 0
    """Epochs finished."""
    batch: int = 0
    """Updates made in the epoch after them."""
    loss_sum: float = 0.0
    """Training loss summed over those updates."""
    best_epoch: int = 0
    best_top1: float = -math.inf
    """On the validation split."""
    metrics: str = ""
    """Content of metrics.jsonl after the finished epochs."""
    weights_sha256: str = ""
    """Checksum of model.safetensors, the weights of the best epoch."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    """Time that all processes together have spent on this run."""


def read_run(run: RunSpec) -> dict[str, Any] | None:
    """The last checkpoint that `save_run` wrote of the run; None for a new run. Raises Damaged."""
    return load_latest(run.folder / NAME, run.digest)


def options_in(run: RunSpec, saved: dict[str, Any]) -> tuple[ComputeOptions, str]:
    """The compute options that the run began with, and its type of device. Raises Damaged."""
    try:
        return ComputeOptions(**saved["options"]), saved["device"]
    except (KeyError, TypeError) as error:
        raise _other_version(run) from error


def restore(run: RunSpec, train_state: TrainState, saved: dict[str, Any]) -> State:
    """Put `train_state` where it was when `saved` was written. Raises Damaged."""
    try:
        train_state.load_state_dict(saved)
        state = State(**saved["state"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _other_version(run) from error
    train_state.monitor = LossMonitor(train_state.device, state.loss_sum)
    train_state.clock = Clock(state.seconds)
    return state


class Writer:
    """Writes the checkpoints of a run in a thread, one after the other, while training goes on.

    Each is a copy of the state at the moment of `save`. Call `wait` before any other file of the
    run is written, so that files appear in the same order as without the thread.
    """

    def __init__(self, check: Callable[[], object]) -> None:
        """`check` is called before each write and raises where the run is not ours any more."""
        self._check, self._thread = check, ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def save(self, path: Path, state: dict[str, Any]) -> None:
        """Begin to write `state`. Raises what writing the one before raised."""
        self.wait()
        self._pending = self._thread.submit(self._write, path, on_host(state))

    def _write(self, path: Path, state: dict[str, Any]) -> None:
        self._check()
        save(path, state)

    def wait(self) -> None:
        """Return when the last checkpoint is on the disk. Raises what writing it raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        self._thread.shutdown()


def on_host(state: Any) -> Any:
    """A copy of a nested state with its tensors in the host's memory."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: on_host(value) for key, value in state.items()}
    return type(state)(map(on_host, state)) if isinstance(state, list | tuple) else state


def save_run(
    run: RunSpec, execution: Execution, train_state: TrainState, state: State, writer: Writer
) -> None:
    """Write the run's checkpoint. All processes call this; the first one writes.

    Raises:
        BadLoss: a loss is not finite; the last checkpoint stays.
    """
    train_state.monitor.drain()
    if not execution.processes.is_first:
        return
    state.seconds, state.loss_sum = train_state.clock.read(), train_state.monitor.loss_sum
    about = {
        "digest": run.digest,
        "device": execution.device.type,
        "options": asdict(execution.options),
    }
    writer.save(run.folder / NAME, {**about, "state": asdict(state), **train_state.state_dict()})


def _other_version(run: RunSpec) -> Damaged:
    return Damaged(f"{run.folder / NAME} is of another version of this program")


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings and containers of them): torch.save and a checksum.

    There is a whole file at `path` at any time, and the one before stays as `path`.previous.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    keep_previous(path)
    write_atomically(path, content + _MARK + hashlib.sha256(content).hexdigest().encode())


def keep_previous(path: Path) -> None:
    """Keep the file at `path`, which is about to be replaced, as `path`.previous."""
    if not path.exists():
        return
    previous(path).unlink(missing_ok=True)
    try:  # a second name, so that there is always a file under the first one
        os.link(path, previous(path))
    except OSError:  # a disk without links, or without space for one more name
        os.replace(path, previous(path))


def previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def damaged(path: Path) -> Path:
    """Where `load_latest` puts a damaged checkpoint."""
    return path.with_name(path.name + ".damaged")


def load_latest(path: Path, digest: str | None = None) -> dict[str, Any] | None:
    """Load `path`, or the checkpoint before where it is damaged; None where there is neither.

    Raises:
        Damaged: there are checkpoints, but no good one of the run with this `digest`.
    """
    if not path.exists():
        return load(previous(path), digest) if previous(path).exists() else None
    try:
        return load(path, digest)
    except Damaged as damage:
        if not previous(path).exists():
            raise
        state = load(previous(path), digest)
        # Out of the way, or the next `save` would keep the damaged one instead of the good one.
        os.replace(path, damaged(path))
        kept = f"resuming from the one before ({damaged(path).name} is the bad one)"
        print(f"runner.py: {damage}; {kept}", file=sys.stderr)
        return state


def load(path: Path, digest: str | None = None) -> dict[str, Any]:
    """Load what `save` wrote, into the host's memory. Executes nothing in the file.

    Raises:
        Damaged: the file is torn, changed, no checkpoint, or of a run with another `digest`.
        OSError: it cannot be read.
    """
    if not path.is_file() and path.exists():
        raise Damaged(f"{path} is damaged: it is not a file")
    content = path.read_bytes()
    body, trailer = content[:-_TRAILER], content[-_TRAILER:]
    if trailer != _MARK + hashlib.sha256(body).hexdigest().encode():
        raise Damaged(f"{path} is damaged: its checksum does not match its content")
    try:
        state: Mapping[str, Any] = torch.load(
            io.BytesIO(body), map_location="cpu", weights_only=True
        )
        owner = state.get("digest")
    except Exception as error:  # an unpickler raises anything
        raise Damaged(f"{path} is damaged: it is not a checkpoint of plain tensors") from error
    if digest and owner != digest:
        raise Damaged(f"{path} belongs to another run: its digest is {owner}, not {digest}")
    return dict(state)
