"""One run from first picture to test accuracy: read `train` from top to bottom.

Everything random is a function of (seed, epoch or update, picture), so a run that was stopped goes on exactly where
it was: the weights, the optimizer and `State` are all there is to save.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from data import Batch, PictureStore, eval_batches, randomness, train_batches
from data.loader import batches_per_epoch
from models.builder import build
from training import checkpoint, records
from training.device import autocast
from training.evaluation import evaluate
from training.initial_weights import start_from
from training.interrupt import Stopped, StopRequest
from training.optimization import learning_rate, loss_function, make_optimizer
from training.progress import Progress, duration
from training.run import Execution, Run, Stores

# Streams of randomness beside those of `data.randomness`.
_INITIAL_WEIGHTS, _STOCHASTIC_DEPTH = 100, 101

_EVALUATION_BATCH = 256
_KEEP_BYTES = 256 * 2**20

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
    metrics_bytes: int = 0
    """Length of metrics.jsonl that belongs to the finished epochs."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    """Time that all processes together have spent on this run."""


def train(run: Run, stores: Stores, execution: Execution, stop: StopRequest) -> dict[str, Any]:
    """Train `run`, or go on with it, and return what it writes to result.json.

    Raises:
        NonFinite: nothing was updated with that loss; the run's folder keeps its last checkpoint.
        Stopped: `stop` was set; the state is saved.
        ValueError: the training split holds less than one batch, or the run's checkpoint is damaged.
    """
    recipe, device, folder = run.recipe, execution.device, run.folder
    precision, augmentation = run.study.config.precision, run.augmentation()
    updates_per_epoch = batches_per_epoch(len(stores.train), recipe.batch_size)

    model = _initial_model(run, execution)
    optimizer = make_optimizer(model, recipe, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scaler": scaler}
    state = _resume(run, parts, device)
    clock = Clock(state.seconds)
    forward: Callable[..., Any] = torch.compile(model) if execution.compile else model

    def save() -> float:
        state.seconds = clock.read()
        contents = {name: part.state_dict() for name, part in parts.items()}
        checkpoint.save(folder / "checkpoint.pt", {"study_hash": run.study.hash, "state": asdict(state), **contents})
        return time.monotonic()

    records.begin(run, device)
    done = state.epoch * updates_per_epoch + state.batch
    board = records.open_board(run, done)
    progress = Progress(run.title, recipe.epochs * updates_per_epoch, done, recipe.batch_size)
    validation = _evaluation_batches(stores.validation, run, execution)
    last_save = time.monotonic()
    model.train()

    for epoch in range(state.epoch, recipe.epochs):
        seconds_before, first = clock.read(), state.batch
        batches = train_batches(
            stores.train, augmentation, seed=run.seed, epoch=epoch, batch_size=recipe.batch_size, start=first,
            micro_batches=recipe.micro_batches, workers=execution.workers, device=device, memory=stores.memory,
        )  # fmt: skip
        for number in range(first, updates_per_epoch):
            update = epoch * updates_per_epoch + number
            lr = learning_rate(recipe, update, updates_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = lr

            loss_value = 0.0
            for part in range(recipe.micro_batches):
                with clock("data"):
                    batch = next(batches)
                # Stochastic depth draws from torch's own generator: put it where these draws begin.
                torch.manual_seed(randomness.key(_STOCHASTIC_DEPTH, run.seed, update * recipe.micro_batches + part))
                with clock("forward"), autocast(precision, device):
                    loss = loss_function(forward(batch.images), batch, recipe.label_smoothing) / recipe.micro_batches
                with clock("backward"):
                    torch.autograd.backward(scaler.scale(loss))
                    loss_value += loss.item()
            if not math.isfinite(loss_value):
                progress.close()
                board.close()
                raise NonFinite(
                    f"{run.title}: the loss is {loss_value} in epoch {epoch + 1}, batch {number + 1}; nothing was "
                    f"updated with it, and {folder / 'checkpoint.pt'} holds the state after epoch {state.epoch}"
                )
            with clock("optimizer"):
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()

            state.batch, state.loss_sum = number + 1, state.loss_sum + loss_value
            progress.update(f"{epoch + 1}/{recipe.epochs}", loss_value)
            stopping = bool(stop)
            if stopping or time.monotonic() - last_save > 60 * execution.checkpoint_minutes:
                last_save = save()
            if stopping:
                progress.close()
                board.close()
                raise Stopped(f"{run.title} was stopped in epoch {epoch + 1} and saved; the same command resumes it")

        with clock("evaluation"):
            seen = evaluate(model, validation(), device, precision)
        seconds = {phase: now - seconds_before[phase] for phase, now in clock.read().items()}
        spent = sum(seconds[phase] for phase in ("data", "forward", "backward", "optimizer"))
        metrics = {
            "epoch": epoch + 1,
            "update": (epoch + 1) * updates_per_epoch,
            "lr": lr,
            "train_loss": state.loss_sum / updates_per_epoch,
            "validation_loss": seen.loss,
            "validation_top1": seen.top1,
            "images_per_second": (updates_per_epoch - first) * recipe.batch_size / spent,
            "seconds": seconds,
        }
        if seen.top1 > state.best_top1:
            state.best_top1, state.best_epoch = seen.top1, epoch + 1
            records.save_weights(run, model, stores.classes, epoch + 1)
        state.metrics_bytes = records.append_metrics(folder / records.METRICS, state.metrics_bytes, metrics)
        records.log(board, metrics)
        state.epoch, state.batch, state.loss_sum = epoch + 1, 0, 0.0
        last_save = save()

    # The weights of the epoch that was best on the validation split; the test split is looked at here, once.
    model.load_state_dict(load_file(folder / records.WEIGHTS))
    with clock("evaluation"):
        test = evaluate(model, _evaluation_batches(stores.test, run, execution)(), device, precision)
    board.add_scalar("test/top1", test.top1, recipe.epochs * updates_per_epoch)
    board.close()
    result = records.finish(run, stores, execution, test, state.best_epoch, clock.read())
    progress.say(
        f"top-1 {test.top1:.2f} % on {len(test.labels):,} test pictures in {duration(sum(state.seconds.values()))}"
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
    layout = torch.channels_last if execution.channels_last else torch.contiguous_format
    return model.to(execution.device).to(memory_format=layout)


def _resume(run: Run, parts: dict[str, Any], device: torch.device) -> State:
    """Load the run's checkpoint into `parts`, if it has one; the state to go on from."""
    path = run.folder / "checkpoint.pt"
    if not path.exists():
        return State()
    content = checkpoint.load(path, device)
    if content["study_hash"] != run.study.hash:
        raise ValueError(f"{path} belongs to a study of another config: remove it, or choose another --study")
    for name, part in parts.items():
        part.load_state_dict(content[name])
    return State(**content["state"])


def _evaluation_batches(store: PictureStore, run: Run, execution: Execution) -> Callable[[], Any]:
    """The split's evaluation batches, as often as asked; prepared once where they fit in memory."""

    def prepare() -> Iterator[Batch]:
        return eval_batches(
            store, run.augmentation(), batch_size=_EVALUATION_BATCH, workers=execution.workers, device=execution.device
        )

    if len(store) * 12 * run.study.config.resolution**2 > _KEEP_BYTES:
        return prepare
    kept: list[Batch] = []

    def remember() -> list[Batch]:
        if not kept:
            kept.extend(prepare())
        return kept

    return remember
