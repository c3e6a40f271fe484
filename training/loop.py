"""One run from first image to test accuracy: read `train` from top to bottom.

Everything random is a function of (seed, epoch or update, image), so a run that was stopped goes on
exactly where it was: the weights, the optimizer and `State` are all there is to save.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from data import ImageStore, PreparedImages, eval_batches, randomness, train_batches
from data.loader import batches_per_epoch
from models.builder import build
from training import autotune, checkpoint, inference_profile, records
from training.clock import of_updates
from training.compute_options import ComputeOptions, lay_out
from training.device import set_up, threads
from training.evaluation import Evaluation, evaluate
from training.event_log import EventLog
from training.execution import Execution, Stores
from training.initial_weights import start_from
from training.interrupt import Stopped, StopRequest
from training.loss_monitor import BadLoss
from training.optimization import learning_rate
from training.progress import Progress
from training.spec import METRICS, RunSpec
from training.state import State, layout_in, read_checkpoint, resume, save_checkpoint
from training.update import TrainState, update
from utils.files import write_atomically
from utils.locks import Lock
from utils.text import duration

_INITIAL_WEIGHTS = 100
"""A stream of randomness beside those of `data.randomness`."""
_EVALUATION_BATCH = 256


class NonFinite(RuntimeError):
    """The loss is infinite or not a number."""


def train(
    run: RunSpec, stores: Stores, execution: Execution, stop: StopRequest, lease: Lock | None = None
) -> dict[str, Any]:
    """Train `run`, or go on with it, and return what it writes to result.json.

    A new run begins with a trial of layouts, if `execution` has one; one that goes on keeps the
    layout it has. `lease` is this process's on the run, where others may want to train it; its
    readers are told how far the run is.

    All processes of `execution` call this alike. The first of them alone has a lease, reads and
    writes the run's folder and returns what is in result.json; helpers return nothing.

    Raises:
        Lost: another process has taken the run over; nothing was written since it did.
        NonFinite: nothing was updated with that loss; the run's folder keeps its last checkpoint.
        Stopped: `stop` was set; the state is saved.
        ValueError: the training split holds less than one batch.
        checkpoint.Damaged: what the run would go on from is damaged.
        Elsewhere: in a helper, the first process raised one of these, or failed.
    """
    device, precision, processes = execution.device, run.precision, execution.processes
    set_up(device, precision, execution.deterministic)
    saved = processes.from_first(lambda: read_checkpoint(run, device), device)
    layout = processes.from_first(lambda: _layout(run, stores, execution, saved))
    execution = replace(execution, layout=layout)
    with threads(layout.threads), stop.handled():
        model = _initial_model(run, execution, begun=saved is not None)
        train_state = TrainState(model, run.recipe, layout, device, precision, run.seed, processes)
        state = State() if saved is None else resume(run, train_state, saved)
        saved = None  # a copy of all weights and moments, on the device
        inference_profile.begin(device)
        if processes.is_first:
            records.begin(run, stores, execution)
        return _train(run, stores, execution, stop, train_state, state, lease)


def _train(
    run: RunSpec,
    stores: Stores,
    execution: Execution,
    stop: StopRequest,
    train_state: TrainState,
    state: State,
    lease: Lock | None,
) -> dict[str, Any]:
    """`train` from `state` on."""
    recipe, clock, processes = run.recipe, train_state.clock, execution.processes
    per_epoch = batches_per_epoch(len(stores.train), recipe.batch_size)
    done = state.epoch * per_epoch + state.batch
    batches = train_batches(
        stores.train,
        recipe.augmentation,
        run.resolution,
        seed=run.seed,
        epoch=state.epoch,
        epochs=recipe.epochs - state.epoch,
        batch_size=recipe.batch_size,
        start=state.batch,
        micro_batches=recipe.micro_batches,
        rank=processes.rank,
        world=processes.count,
        workers=execution.workers,
        device=execution.device,
        kept=stores.augmented,
    )
    board = EventLog(run.folder, state.epoch * per_epoch + 1) if processes.is_first else None
    progress = Progress(
        run.title, recipe.epochs * per_epoch, done, recipe.batch_size, told=processes.is_first
    )
    if lease:
        lease.progress = progress.read

    def check_lease() -> None:
        processes.from_first(lease.check if lease else lambda: None)

    saved_at = time.monotonic()
    train_state.model.train()

    with progress, _told_in_epochs(run, per_epoch):
        try:
            for epoch in range(state.epoch, recipe.epochs):
                before, first = clock.read(), state.batch
                for number in range(first, per_epoch):
                    lr = learning_rate(recipe, epoch * per_epoch + number, per_epoch)
                    update(train_state, epoch * per_epoch + number, batches, lr)
                    state.batch += 1
                    progress.update(f"{epoch + 1}/{recipe.epochs}", train_state.watch.last)
                    due = time.monotonic() - saved_at > 60 * execution.checkpoint_minutes
                    stopped, due = processes.any(bool(stop), due)
                    if stopped:
                        raise Stopped
                    if due:
                        check_lease()
                        save_checkpoint(run, execution, train_state, state)
                        saved_at = time.monotonic()

                with clock("backward"):
                    train_state.watch.drain()
                seen = _evaluate(
                    run, execution, stop, train_state, stores.validation, stores.evaluated
                )
                check_lease()
                if board is not None:
                    seconds = {
                        phase: round(now - before[phase], 4) for phase, now in clock.read().items()
                    }
                    made = (
                        per_epoch - first
                    ) * recipe.batch_size  # none, after a stop in the evaluation
                    rate = made / max(of_updates(seconds), 1e-9) if made else None
                    metrics = {
                        "epoch": epoch + 1,
                        "update": (epoch + 1) * per_epoch,
                        "lr": learning_rate(recipe, (epoch + 1) * per_epoch - 1, per_epoch),
                        "train_loss": train_state.watch.loss_sum / per_epoch,
                        "validation_loss": seen.loss,
                        "validation_top1": seen.top1,
                        "images_per_second": rate and round(rate, 2),
                        "seconds": seconds,
                    }
                    if seen.top1 > state.best_top1:
                        state.best_top1, state.best_epoch = seen.top1, epoch + 1
                        state.weights_sha256 = records.save_weights(
                            run, train_state.judged, stores.classes, epoch + 1
                        )
                    state.metrics += json.dumps(metrics) + "\n"
                    write_atomically(run.folder / METRICS, state.metrics.encode())
                    records.log(board, metrics)
                state.epoch, state.batch = epoch + 1, 0
                train_state.watch.reset()
                save_checkpoint(run, execution, train_state, state)
                saved_at = time.monotonic()
        except (
            Stopped
        ):  # within an epoch, or in the evaluation at its end, with which the run then goes on
            check_lease()
            save_checkpoint(run, execution, train_state, state)
            where = f"in epoch {state.epoch + 1} and saved; the same command resumes it"
            raise Stopped(f"{run.title} was stopped {where}") from None

        # The weights of the epoch that was best on the validation split; the test split is looked
        # at here, once.
        best = processes.from_first(lambda: records.load_weights(run, state.weights_sha256))
        train_state.judged.load_state_dict(best)
        try:
            test = _evaluate(run, execution, stop, train_state, stores.test)
        except Stopped:
            raise Stopped(
                f"{run.title} was stopped in its test; the same command tests it again"
            ) from None
        check_lease()
        if board is None:
            return {}
        # One update late: a process that goes on from the last checkpoint hides it and not that
        # epoch's metrics.
        board.add_scalars({"test/top1": test.top1}, recipe.epochs * per_epoch + 1)
        seconds = clock.read()
        costs = inference_profile.measure(train_state, run.resolution)
        result = records.finish(run, stores, execution, test, state.best_epoch, seconds, costs)
        took = duration(sum(seconds.values()))
        progress.say(f"top-1 {test.top1:.2f} % on {len(test.labels):,} test images in {took}")
    return result


@contextmanager
def _told_in_epochs(run: RunSpec, updates_per_epoch: int) -> Iterator[None]:
    """Says of a loss that is not finite where in the run it was, and what is kept."""
    try:
        yield
    except BadLoss as bad:
        epoch, number = divmod(bad.update, updates_per_epoch)
        last = run.folder / checkpoint.NAME
        kept = (
            f"{last} holds the last good state"
            if last.exists()
            else "no checkpoint had been written"
        )
        raise NonFinite(
            f"{run.title}: the loss is {bad.loss} in epoch {epoch + 1}, batch {number + 1}; "
            "nothing was "
            f"updated with it, and {kept}"
        ) from None


def _evaluate(
    run: RunSpec,
    execution: Execution,
    stop: StopRequest,
    train_state: TrainState,
    split: ImageStore,
    kept: PreparedImages | None = None,
) -> Evaluation:
    """What the network says of `split`. Raises Stopped between two batches."""
    device, processes, together = execution.device, execution.processes, _EVALUATION_BATCH
    if device.type == "cuda":  # a part of training's batch is known to fit
        together = min(together, run.recipe.batch_size // run.recipe.micro_batches)
    batches = eval_batches(
        split,
        run.resolution,
        batch_size=together,
        rank=processes.rank,
        world=processes.count,
        workers=execution.workers,
        device=device,
        kept=kept,
    )
    with train_state.clock("evaluation"):
        return evaluate(
            train_state.judged,
            stop.between(batches),
            split.ids,
            device,
            train_state.precision,
            processes,
        )


def _initial_model(run: RunSpec, execution: Execution, begun: bool = False) -> nn.Module:
    """The network with the initial weights of its seed, or of the study's file unless it has
    `begun`, on the device."""
    recipe = run.recipe
    torch.manual_seed(randomness.key(_INITIAL_WEIGHTS, run.seed, 0))
    model = build(
        run.architecture,
        drop_path=recipe.drop_path,
        layer_scale=recipe.layer_scale,
        init=recipe.init,
    )
    start = run.init_weights_record
    if start and run.init_weights and not begun:
        file = run.init_weights
        execution.processes.from_first(lambda: start_from(model, file, start))
        model.load_state_dict(execution.processes.from_first(model.state_dict))
    return lay_out(model.to(execution.device), execution.layout)


def _layout(
    run: RunSpec, stores: Stores, execution: Execution, saved: dict[str, Any] | None
) -> ComputeOptions:
    """The layout that the run began with, or a new run's: the one tried fastest, or the one it was
    given."""
    layout = execution.layout
    if saved is not None:
        began, device = layout_in(run, saved)
        if device == execution.device.type:
            return began
        # The moments lie in memory as the weights did, and fused optimizers pair the two by
        # address.
        layout = replace(layout, channels_last=began.channels_last)
    elif execution.trial:
        recipe = run.recipe
        own = len(execution.processes.share(recipe.micro_batches))
        steps = recipe.epochs * own * batches_per_epoch(len(stores.train), recipe.batch_size)
        layout = autotune.choose(
            autotune.work_of(run), execution.device, steps, autotune.cache_file()
        ).layout
    return replace(layout, threads=layout.threads or torch.get_num_threads())
