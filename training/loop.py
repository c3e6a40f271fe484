"""One run from first picture to test accuracy: read `train` from top to bottom.

Everything random is a function of (seed, epoch or update, picture), so a run that was stopped goes on exactly where
it was: the weights, the optimizer and `State` are all there is to save.
"""

import copy
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NoReturn

import torch
from torch import nn

from data import Batch, Memory, PictureStore, eval_batches, randomness, train_batches
from data.files import write_atomically
from data.loader import batches_per_epoch
from models.builder import build
from training import checkpoint, records, trial
from training.device import autocast, set_up, threads
from training.evaluation import evaluate
from training.initial_weights import start_from
from training.interrupt import Stopped, StopRequest
from training.layout import Layout, forward_of, lay_out
from training.optimization import learning_rate, loss_function, make_optimizer, update_average
from training.progress import Progress, duration
from training.run import Execution, Run, Stores
from training.watch import Bad, Watch

# Streams of randomness beside those of `data.randomness`.
_INITIAL_WEIGHTS, _STOCHASTIC_DEPTH = 100, 101

_EVALUATION_BATCH = 256

PHASES = ("data", "forward", "backward", "optimizer", "evaluation", "other")


class NonFinite(RuntimeError):
    """The loss is infinite or not a number."""


class Clock:
    """Wall time by what it was spent on, in seconds."""

    def __init__(self, before: dict[str, float]) -> None:
        self._seconds = dict(before)
        self._started = time.perf_counter() - sum(before.values())

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[phase] += time.perf_counter() - started

    def read(self) -> dict[str, float]:
        """Seconds by phase so far; "other" is what no phase claimed."""
        claimed = sum(self._seconds[phase] for phase in PHASES[:-1])
        return {**self._seconds, "other": time.perf_counter() - self._started - claimed}


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


def train(run: Run, stores: Stores, execution: Execution, stop: StopRequest) -> dict[str, Any]:
    """Train `run`, or go on with it, and return what it writes to result.json.

    A new run begins with a trial of layouts, if `execution` has one; one that goes on keeps the layout it has.

    Raises:
        NonFinite: nothing was updated with that loss; the run's folder keeps its last checkpoint.
        Stopped: `stop` was set; the state is saved.
        ValueError: the training split holds less than one batch.
        checkpoint.Damaged: what the run would go on from is damaged.
    """
    set_up(execution.device, run.study.config.precision, execution.deterministic)
    saved = _read_checkpoint(run, execution.device)
    layout = _layout(run, stores, execution, saved)
    with threads(layout.threads), stop.handled():
        return _train(run, stores, replace(execution, layout=layout), stop, saved)


def _train(
    run: Run, stores: Stores, execution: Execution, stop: StopRequest, saved: dict[str, Any] | None
) -> dict[str, Any]:
    recipe, device, folder = run.recipe, execution.device, run.folder
    precision, resolution = run.study.config.precision, run.study.config.resolution
    updates_per_epoch = batches_per_epoch(len(stores.train), recipe.batch_size)

    model = _initial_model(run, execution)
    optimizer = make_optimizer(model, recipe, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scaler": scaler}
    judged = model  # what is evaluated and kept
    if recipe.ema is not None:
        judged = parts["average"] = copy.deepcopy(model).requires_grad_(False)
    state = State()
    if saved is not None:
        try:
            for name, part in parts.items():
                part.load_state_dict(saved[name])
            state = State(**saved["state"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _another_version(run) from error
    clock = Clock(state.seconds)
    forward = forward_of(model, execution.layout)
    watch = Watch(device, state.loss_sum)

    def check(bad: Bad | None) -> None:
        if bad is None:
            return
        progress.close()
        epoch, number = divmod(bad.update, updates_per_epoch)
        last = folder / "checkpoint.pt"
        kept = f"{last} holds the last good state" if last.exists() else "no checkpoint had been written"
        raise NonFinite(
            f"{run.title}: the loss is {bad.loss} in epoch {epoch + 1}, batch {number + 1}; nothing was "
            f"updated with it, and {kept}"
        )

    def save() -> float:
        check(watch.drain())
        state.seconds, state.loss_sum = clock.read(), watch.loss_sum
        contents = {name: part.state_dict() for name, part in parts.items()}
        about = {**_owner(run), "device": device.type, "layout": asdict(execution.layout)}
        checkpoint.save(folder / checkpoint.NAME, {**about, "state": asdict(state), **contents})
        return time.monotonic()

    def leave(epoch: int) -> NoReturn:
        save()
        progress.close()
        raise Stopped(f"{run.title} was stopped in epoch {epoch} and saved; the same command resumes it") from None

    records.begin(run, device, execution.layout)
    if saved is not None:
        if state.best_epoch:
            records.load_weights(run, state.weights_sha256)
        write_atomically(folder / records.METRICS, state.metrics.encode())
    done = state.epoch * updates_per_epoch + state.batch
    board = records.Board(folder, state.epoch * updates_per_epoch + 1)
    progress = Progress(run.title, recipe.epochs * updates_per_epoch, done, recipe.batch_size)
    batches = train_batches(
        stores.train, recipe.augmentation, resolution, seed=run.seed, epoch=state.epoch,
        epochs=recipe.epochs - state.epoch, batch_size=recipe.batch_size, start=state.batch,
        micro_batches=recipe.micro_batches, workers=execution.workers, device=device, memory=stores.memory,
    )  # fmt: skip

    def evaluation(split: PictureStore, memory: Memory | None = None) -> Iterator[Batch]:
        return eval_batches(split, resolution, batch_size=_EVALUATION_BATCH, workers=execution.workers,
                            device=device, memory=memory)  # fmt: skip

    last_save = time.monotonic()
    model.train()

    for epoch in range(state.epoch, recipe.epochs):
        seconds_before, first = clock.read(), state.batch
        for number in range(first, updates_per_epoch):
            update = epoch * updates_per_epoch + number
            lr = learning_rate(recipe, update, updates_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = lr

            whole = torch.zeros((), dtype=watch.precise, device=device)
            for part in range(recipe.micro_batches):
                with clock("data"):
                    batch = next(batches)
                # Stochastic depth draws from torch's own generator: put it where these draws begin.
                torch.manual_seed(randomness.key(_STOCHASTIC_DEPTH, run.seed, update * recipe.micro_batches + part))
                with clock("forward"), autocast(precision, device):
                    loss = loss_function(forward(batch.images), batch, recipe.label_smoothing) / recipe.micro_batches
                with clock("backward"):
                    torch.autograd.backward(scaler.scale(loss))
                    whole += loss.detach()
            with clock("backward"):
                check(watch.add(update, whole))
            with clock("optimizer"):
                if watch.delay and not scaler.is_enabled():  # the scaler finds by itself what is not finite
                    optimizer.found_inf = watch.stop  # type: ignore[attr-defined]
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                if recipe.ema is not None:
                    update_average(judged, model, recipe.ema)

            state.batch = number + 1
            progress.update(f"{epoch + 1}/{recipe.epochs}", watch.last)
            if stop:
                leave(epoch + 1)
            if time.monotonic() - last_save > 60 * execution.checkpoint_minutes:
                last_save = save()

        with clock("backward"):
            check(watch.drain())
        try:
            with clock("evaluation"):
                seen = evaluate(
                    judged, stop.between(evaluation(stores.validation, stores.looked_at)), device, precision
                )
        except Stopped:
            leave(epoch + 1)  # goes on with this evaluation
        seconds = {phase: now - seconds_before[phase] for phase, now in clock.read().items()}
        spent = sum(seconds[phase] for phase in ("data", "forward", "backward", "optimizer"))
        metrics = {
            "epoch": epoch + 1,
            "update": (epoch + 1) * updates_per_epoch,
            "lr": learning_rate(recipe, (epoch + 1) * updates_per_epoch - 1, updates_per_epoch),
            "train_loss": watch.loss_sum / updates_per_epoch,
            "validation_loss": seen.loss,
            "validation_top1": seen.top1,
            "images_per_second": (updates_per_epoch - first) * recipe.batch_size / max(spent, 1e-9),
            "seconds": seconds,
        }
        if seen.top1 > state.best_top1:
            state.best_top1, state.best_epoch = seen.top1, epoch + 1
            state.weights_sha256 = records.save_weights(run, judged, stores.classes, epoch + 1)
        state.metrics += json.dumps(metrics) + "\n"
        write_atomically(folder / records.METRICS, state.metrics.encode())
        records.log(board, metrics)
        state.epoch, state.batch = epoch + 1, 0
        watch.reset()
        last_save = save()

    # The weights of the epoch that was best on the validation split; the test split is looked at here, once.
    judged.load_state_dict(records.load_weights(run, state.weights_sha256))
    try:
        with clock("evaluation"):
            test = evaluate(judged, stop.between(evaluation(stores.test)), device, precision)
    except Stopped:
        progress.close()
        raise Stopped(f"{run.title} was stopped in its test; the same command tests it again") from None
    # One update late, so that a process that goes on from the last checkpoint hides it and not that epoch's metrics.
    board.add_scalars({"test/top1": test.top1}, recipe.epochs * updates_per_epoch + 1)
    result = records.finish(run, stores, execution, test, state.best_epoch, clock.read())
    progress.say(
        f"top-1 {test.top1:.2f} % on {len(test.labels):,} test pictures in {duration(sum(clock.read().values()))}"
    )
    progress.close()
    return result


def _initial_model(run: Run, execution: Execution) -> nn.Module:
    """The network with the initial weights of its seed, or of the study's file, on the device."""
    recipe = run.recipe
    torch.manual_seed(randomness.key(_INITIAL_WEIGHTS, run.seed, 0))
    model = build(run.architecture, drop_path=recipe.drop_path, layer_scale=recipe.layer_scale, init=recipe.init)
    start = run.study.config.init_weights
    if start and run.init_weights and not (run.folder / "checkpoint.pt").exists():
        start_from(model, run.init_weights, start)
    return lay_out(model.to(execution.device), execution.layout)


def _layout(run: Run, stores: Stores, execution: Execution, saved: dict[str, Any] | None) -> Layout:
    """The layout that the run began with, or a new run's: the one tried fastest, or the one it was given."""
    layout, config = execution.layout, run.study.config
    if saved is not None:
        try:
            began, device = Layout(**saved["layout"]), saved["device"]
        except (KeyError, TypeError) as error:
            raise _another_version(run) from error
        if device == execution.device.type:
            return began
        # The moments lie in memory as the weights did, and fused optimizers pair the two by address.
        layout = replace(layout, channels_last=began.channels_last)
    elif execution.trial:
        r = run.recipe
        work = trial.Work(run.architecture, config.resolution, r.batch_size // r.micro_batches, config.precision,
                          r.drop_path, r.layer_scale is not None, r.label_smoothing)  # fmt: skip
        steps = r.epochs * r.micro_batches * batches_per_epoch(len(stores.train), r.batch_size)
        layout = trial.choose(work, execution.device, steps, trial.cache_file()).layout
    return replace(layout, threads=layout.threads or torch.get_num_threads())


def _another_version(run: Run) -> checkpoint.Damaged:
    return checkpoint.Damaged(f"{run.folder / checkpoint.NAME} is of another version of this program")


def _read_checkpoint(run: Run, device: torch.device) -> dict[str, Any] | None:
    """The run's checkpoint, if it has one."""
    return checkpoint.load_latest(run.folder / checkpoint.NAME, device, _owner(run))


def _owner(run: Run) -> dict[str, Any]:
    """What a checkpoint says of whose it is."""
    return {"digest": run.digest}
