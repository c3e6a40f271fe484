"""Where a run is: what of it a checkpoint keeps, so that it goes on exactly there."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from training import checkpoint, records
from training.clock import PHASES, Clock
from training.compute_options import ComputeOptions
from training.execution import Execution
from training.loss_monitor import LossMonitor
from training.spec import METRICS, RunSpec
from training.update import TrainState
from utils.files import write_atomically


@dataclass
class State:
    """Where a run is, beside its weights and its optimizer."""

    epoch: int = 0
    """Epochs finished."""
    batch: int = 0
    """Updates made in the epoch after them."""
    loss_sum: float = 0.0
    """Training loss summed over those updates."""
    best_epoch: int = 0
    best_top1: float = -math.inf
    """Of the validation split."""
    metrics: str = ""
    """metrics.jsonl as it is after the finished epochs."""
    weights_sha256: str = ""
    """Of model.safetensors, the weights of the best epoch."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    """Time that all processes together have spent on this run."""


def read_checkpoint(run: RunSpec, device: torch.device) -> dict[str, Any] | None:
    """What `save_checkpoint` last wrote of the run, None of a new one. Raises
    checkpoint.Damaged."""
    return checkpoint.load_latest(run.folder / checkpoint.NAME, device, _owner(run))


def layout_in(run: RunSpec, saved: dict[str, Any]) -> tuple[ComputeOptions, str]:
    """The layout that the run began with, and the kind of device that it was on. Raises
    checkpoint.Damaged."""
    try:
        return ComputeOptions(**saved["layout"]), saved["device"]
    except (KeyError, TypeError) as error:
        raise _another_version(run) from error


def resume(run: RunSpec, train_state: TrainState, saved: dict[str, Any]) -> State:
    """Put the train_state and the run's files where they were when `saved` was written. Raises
    checkpoint.Damaged."""
    try:
        train_state.load_state_dict(saved)
        state = State(**saved["state"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _another_version(run) from error
    train_state.watch, train_state.clock = (
        LossMonitor(train_state.device, state.loss_sum),
        Clock(state.seconds),
    )
    train_state.sums.processes.from_first(lambda: _restore_files(run, state))
    return state


def _restore_files(run: RunSpec, state: State) -> None:
    """Put the weights of the best epoch and the metrics where they were at `state`. Raises
    checkpoint.Damaged."""
    if state.best_epoch:
        records.load_weights(run, state.weights_sha256)
    write_atomically(run.folder / METRICS, state.metrics.encode())


def save_checkpoint(
    run: RunSpec, execution: Execution, train_state: TrainState, state: State
) -> None:
    """Write the run's checkpoint. Raises BadLoss if a loss is not finite; the checkpoint before
    stays.

    All processes call this, so that all learn of such a loss; the first one writes.
    """
    train_state.watch.drain()
    if not execution.processes.is_first:
        return
    state.seconds, state.loss_sum = train_state.clock.read(), train_state.watch.loss_sum
    about = {**_owner(run), "device": execution.device.type, "layout": asdict(execution.layout)}
    checkpoint.save(
        run.folder / checkpoint.NAME, {**about, "state": asdict(state), **train_state.state_dict()}
    )


def _owner(run: RunSpec) -> dict[str, Any]:
    """What a checkpoint says of whose it is."""
    return {"digest": run.digest}


def _another_version(run: RunSpec) -> checkpoint.Damaged:
    return checkpoint.Damaged(
        f"{run.folder / checkpoint.NAME} is of another version of this program"
    )
