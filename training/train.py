"""One run from first image to test accuracy: read `Trainer` from top to bottom.

All randomness is a function of (seed, epoch or update, image), so a stopped run resumes exactly
where it was: the weights, the optimizer and `State` are all there is to save.
"""

import json
import math
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data import randomness
from data.image_store import ImageStore
from data.loader import batches_per_epoch, eval_batches, train_batches
from models import Architecture, SwinArchitecture, weights
from models.builder import build, empty
from training import checkpoint, records
from training.autotune import Work, choose
from training.checkpoint import State
from training.device import forget_peak, is_accelerator, set_up
from training.evaluation import Evaluation, evaluate
from training.execution import ComputeOptions, Execution, Stores
from training.interrupt import Stopped, StopRequest
from training.monitor import BadLoss, Progress, update_seconds
from training.recipe import InitialWeights, Recipe
from training.spec import LIKELY_CAUSES, METRICS, RunSpec
from training.update import TrainState, learning_rate, update
from utils.files import write_atomically
from utils.locks import Lock
from utils.text import one_line

_INITIAL_WEIGHTS = 100
"""A stream of randomness besides those of `data.randomness`."""
_EVALUATION_BATCH = 256


class NonFinite(RuntimeError):
    """The loss is infinite or not a number."""


def train(
    run: RunSpec, stores: Stores, execution: Execution, stop: StopRequest, lock: Lock | None = None
) -> dict[str, Any]:
    """Train `run`, or resume it, and return the content of its result.json.

    A new run begins with a trial of compute options, if `execution` has one; a resumed run keeps
    its own. `lock` is this process's lock on the run's folder; its readers see the progress.

    All processes of `execution` call this alike. The first one alone has a lock, reads and writes
    the run's folder and returns the result; the others return an empty one.

    Raises:
        Lost: another process has taken the run over; nothing was written since it did.
        NonFinite: the loss is not finite; the run's folder keeps its last checkpoint.
        Stopped: `stop` was set; the state is saved.
        ValueError: the training split holds less than one batch.
        checkpoint.Damaged: the checkpoint to resume from is damaged.
        Elsewhere: in a helper, the first process raised one of these, or failed.
    """
    device, processes = execution.device, execution.processes
    set_up(device, run.precision, execution.deterministic)
    saved = processes.from_first(lambda: checkpoint.read_run(run))
    options = processes.from_first(lambda: _choose_options(run, stores, execution, saved))
    with options.applied(), stop.handled():
        trainer = Trainer(run, stores, replace(execution, options=options), stop, lock, saved)
        saved = None  # a copy of all weights and moments
        return trainer.train()


class Trainer:
    """A run in progress."""

    def __init__(
        self,
        run: RunSpec,
        stores: Stores,
        execution: Execution,
        stop: StopRequest,
        lock: Lock | None,
        saved: dict[str, Any] | None,
    ) -> None:
        """Build the network and its optimizer, and put them where the checkpoint `saved` was."""
        self.run, self.stores, self.execution = run, stores, execution
        self.stop, self.lock, self.processes = stop, lock, execution.processes
        self.updates = batches_per_epoch(len(stores.train), run.recipe.batch_size)
        """Updates per epoch."""
        self.saved_at = time.monotonic()
        device, options = execution.device, execution.options
        model = initial_model(run, execution, resumed=saved is not None)
        self.train_state = TrainState(
            model, run.recipe, options, device, run.precision, run.seed, self.processes
        )
        self.state = State()
        if saved is not None:
            self.state = checkpoint.restore(run, self.train_state, saved)
            self.processes.from_first(lambda: records.restore(run, self.state))
        forget_peak(device)
        self.writer = checkpoint.Writer(lock.check if lock else bool)
        if self.processes.is_first:
            records.begin(run, stores, execution)

    def train(self) -> dict[str, Any]:
        """Train to the last epoch, then test the best one. Returns the run's result."""
        run, recipe, state = self.run, self.run.recipe, self.state
        self.batches = train_batches(
            self.stores.train,
            recipe.augmentation,
            run.resolution,
            seed=run.seed,
            epoch=state.epoch,
            epochs=recipe.epochs - state.epoch,
            batch_size=recipe.batch_size,
            start=state.batch,
            micro_batches=recipe.micro_batches,
            rank=self.processes.rank,
            world=self.processes.count,
            workers=self.execution.workers,
            device=self.execution.device,
        )
        done = state.epoch * self.updates + state.batch
        silent = self.execution.silent or not self.processes.is_first
        self.progress = Progress(
            run.title, recipe.epochs * self.updates, done, recipe.batch_size, silent
        )
        if self.lock:
            self.lock.progress = self.progress.read
        with ExitStack() as stack:
            stack.enter_context(self.progress)
            if self.processes.is_first:
                self.events = records.open_events(run, state.metrics)
                stack.enter_context(closing(self.events))
            stack.callback(self.writer.close)
            try:
                self.train_state.model.train()
                for epoch in range(state.epoch, recipe.epochs):
                    self.train_epoch(epoch)
                self.writer.wait()
            except Stopped:  # within an epoch, or in the evaluation at its end, which is repeated
                self.save()
                self.writer.wait()
                raise Stopped(
                    f"{run.title} was stopped in epoch {state.epoch + 1} and saved; the same "
                    "command resumes it"
                ) from None
            except BadLoss as bad:
                self.writer.wait()
                raise NonFinite(self.describe(bad)) from None
            return self.test()

    def train_epoch(self, epoch: int) -> None:
        """Train an epoch, or the rest of it, then evaluate, log and save it."""
        recipe, state, train_state = self.run.recipe, self.state, self.train_state
        before, first = train_state.clock.read(), state.batch
        for batch in range(first, self.updates):
            number = epoch * self.updates + batch
            lr = learning_rate(recipe, number, self.updates)
            update(train_state, number, self.batches, lr)
            state.batch += 1
            self.progress.update(f"{epoch + 1}/{recipe.epochs}", train_state.monitor.last)
            due = time.monotonic() - self.saved_at > 60 * self.execution.checkpoint_minutes
            stopped, due = self.processes.any(bool(self.stop), due)
            if stopped:
                raise Stopped
            if due:
                self.save()

        with train_state.clock("backward"):
            train_state.monitor.drain()
        self.writer.wait()
        validation = self.evaluate(self.stores.validation)
        self.require_finite(validation, f"validation loss after epoch {epoch + 1}")
        self.check_lock()
        if self.processes.is_first:
            after = train_state.clock.read()
            seconds = {phase: round(after[phase] - before[phase], 4) for phase in after}
            images = (self.updates - first) * recipe.batch_size
            self.log_epoch(epoch, validation, seconds, images)
        state.epoch, state.batch = epoch + 1, 0
        train_state.monitor.reset()
        self.save()

    def log_epoch(
        self, epoch: int, validation: Evaluation, seconds: dict[str, float], images: int
    ) -> None:
        """Keep the weights of the best epoch, and write the metrics of this one."""
        run, state = self.run, self.state
        rate = images / max(update_seconds(seconds), 1e-9)
        last = (epoch + 1) * self.updates - 1
        metrics = {
            "epoch": epoch + 1,
            "update": last + 1,
            "lr": learning_rate(run.recipe, last, self.updates),
            "train_loss": self.train_state.monitor.loss_sum / self.updates,
            "validation_loss": validation.loss,
            "validation_top1": validation.top1,
            # No images after a stop in the evaluation.
            "images_per_second": round(rate, 2) if images else None,
            "seconds": seconds,
        }
        if validation.top1 > state.best_top1:
            state.best_top1, state.best_epoch = validation.top1, epoch + 1
            state.weights_sha256 = records.save_weights(
                run, self.train_state.eval_model, self.stores.classes, epoch + 1
            )
        state.metrics += json.dumps(metrics) + "\n"
        write_atomically(run.folder / METRICS, state.metrics.encode())
        records.log(self.events, metrics)

    def test(self) -> dict[str, Any]:
        """Test the weights of the best epoch: the only look at the test split."""
        run, state, train_state = self.run, self.state, self.train_state
        best = self.processes.from_first(lambda: records.load_weights(run, state.weights_sha256))
        train_state.eval_model.load_state_dict(best)
        try:
            test = self.evaluate(self.stores.test)
        except Stopped:
            raise Stopped(
                f"{run.title} was stopped in its test; the same command repeats the test"
            ) from None
        self.require_finite(test, "test loss")
        self.check_lock()
        if not self.processes.is_first:
            return {}
        self.events.add_scalar("test/top1", test.top1, run.recipe.epochs * self.updates)
        self.events.flush()
        seconds = train_state.clock.read()
        costs = records.inference_profile(train_state, run.resolution)
        result = records.finish(
            run, self.stores, self.execution, test, state.best_epoch, seconds, costs
        )
        if why := result.get("collapsed"):
            self.progress.log(f"the run collapsed ({why}); likely causes: {LIKELY_CAUSES}")
        return result

    def require_finite(self, evaluation: Evaluation, what: str) -> None:
        """Raise NonFinite unless the loss of an evaluation is a finite number."""
        if not math.isfinite(evaluation.loss):
            raise NonFinite(
                f"{self.run.title}: the {what} is {evaluation.loss}; likely cause: a learning rate "
                "too high, or batch norm on very small parts of a batch"
            )

    def evaluate(self, split: ImageStore) -> Evaluation:
        """Evaluate the network on `split`. Raises Stopped between two batches."""
        recipe, device = self.run.recipe, self.execution.device
        batch_size = _EVALUATION_BATCH
        if is_accelerator(device):  # a part of a training batch is known to fit
            batch_size = min(batch_size, recipe.batch_size // recipe.micro_batches)
        batches = eval_batches(
            split,
            self.run.resolution,
            batch_size=batch_size,
            rank=self.processes.rank,
            world=self.processes.count,
            workers=self.execution.workers,
            device=device,
        )
        model, precision = self.train_state.eval_model, self.run.precision
        with self.train_state.clock("evaluation"):
            return evaluate(
                model, self.stop.between(batches), split.ids, device, precision, self.processes
            )

    def save(self) -> None:
        """Write a checkpoint, if the run is still this process's."""
        self.check_lock()
        checkpoint.save_run(self.run, self.execution, self.train_state, self.state, self.writer)
        self.saved_at = time.monotonic()

    def check_lock(self) -> None:
        """Raise Lost where another process has taken the run over."""
        self.processes.from_first(lambda: self.lock.check() if self.lock else None)

    def describe(self, bad: BadLoss) -> str:
        """Say where in the run a loss is not finite, and what is kept."""
        epoch, batch = divmod(bad.update, self.updates)
        last = self.run.folder / checkpoint.NAME
        kept = f"{last} holds the last good state" if last.exists() else "no checkpoint was written"
        return (
            f"{self.run.title}: the loss is {bad.loss} in epoch {epoch + 1}, batch {batch + 1}; "
            f"nothing was updated with it, and {kept}; likely cause: a learning rate too high"
        )


def initial_model(run: RunSpec, execution: Execution, resumed: bool = False) -> nn.Module:
    """The network with its seed's initial weights or, unless `resumed`, the study's weight file."""
    recipe, processes = run.recipe, execution.processes
    torch.manual_seed(randomness.key(_INITIAL_WEIGHTS, run.seed, 0))
    model = build(
        run.architecture,
        drop_path=recipe.drop_path,
        layer_scale=recipe.layer_scale,
        init=recipe.init,
    )
    file, recorded = run.init_weights, run.init_weights_record
    if file and recorded and not resumed:
        processes.from_first(lambda: load_initial_weights(model, file, recorded))
        model.load_state_dict(processes.from_first(model.state_dict))
    return model


def require_batch_norm(
    architecture: Architecture | SwinArchitecture, recipe: Recipe, resolution: int
) -> None:
    """Raise ValueError where batch norm would see a single value of each channel."""
    rows = recipe.batch_size // recipe.micro_batches
    if rows > 1:
        return
    try:
        empty(architecture).to("meta")(torch.empty(1, 3, resolution, resolution, device="meta"))
    except ValueError as error:
        raise ValueError(
            f"parts of one image, whose last feature map has one pixel at --resolution "
            f"{resolution}, leave batch norm a single value: give fewer --micro-batches than "
            f"{recipe.micro_batches} or a larger --batch-size than {recipe.batch_size}"
        ) from error


def record_initial_weights(path: Path, key: str | None = None) -> InitialWeights:
    """The name and checksum of a weight file, for the study. Raises ValueError if it is missing."""
    return InitialWeights(path.name, weights.sha256(path), key)


def load_initial_weights(model: nn.Module, path: Path, recorded: InitialWeights) -> None:
    """Load a file into `model`; a missing classifier, or one of other classes, stays random.

    Raises:
        ValueError: the file is not the one recorded, or holds weights of another architecture.
    """
    if weights.sha256(path) != recorded.sha256:
        raise ValueError(
            f"{path} has changed since this study was created: give the file that it began with"
        )
    state, choice = weights.read(path, recorded.key)
    for note in filter(None, (choice, *weights.load(model, state, new_classifier=True))):
        print(one_line(f"{path.name} {note}"), file=sys.stderr, flush=True)


def _choose_options(
    run: RunSpec, stores: Stores, execution: Execution, saved: dict[str, Any] | None
) -> ComputeOptions:
    """The compute options that the run began with, or the fastest for a new run."""
    options, recipe = execution.options, run.recipe
    if saved is not None:
        began, device = checkpoint.options_in(run, saved)
        if device == execution.device.type:
            return began
        # Moments lie in memory as the weights did; fused optimizers pair the two by address.
        options = replace(options, channels_last=began.channels_last)
    elif execution.trial:
        parts = len(execution.processes.share(recipe.micro_batches))
        updates = recipe.epochs * parts * batches_per_epoch(len(stores.train), recipe.batch_size)
        options, _ = choose(Work.of(run, execution.device), updates)
    return replace(options, threads=options.threads or torch.get_num_threads())
