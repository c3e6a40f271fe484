"""One optimizer update: learning rate, loss, gradients of a batch's parts, optimizer step.

Runs, trials of compute options, cost estimates and benchmarks all make their updates here.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

from data import randomness
from data.loader import Batch
from training.device import InFlight, autocast, record
from training.execution import ComputeOptions
from training.monitor import Clock, LossMonitor
from training.part_sums import PartSums
from training.processes import ALONE, Processes
from training.recipe import Precision, Recipe

_STOCHASTIC_DEPTH = 101
"""A stream of randomness besides those of `data.randomness`."""
_NO_DECAY = (".bias", ".layer_scale", ".relative_position_bias_table")
"""Names of parameters without weight decay, whatever their shape."""


def learning_rate(recipe: Recipe, update: int, updates_per_epoch: int) -> float:
    """The learning rate of optimizer update number `update`, counted from 0.

    Linear from 0 over the warm-up, then a cosine to `min_lr` (or steps), update by update.
    """
    peak = recipe.peak_lr
    warmup = recipe.warmup_epochs * updates_per_epoch
    if update < warmup:
        return peak * update / warmup
    if recipe.schedule == "step":
        return peak * recipe.step_factor ** (update // (recipe.step_epochs * updates_per_epoch))
    progress = (update - warmup) / max(recipe.epochs * updates_per_epoch - warmup, 1)
    return recipe.min_lr + (peak - recipe.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Two groups: parameters with weight decay and those without, biases and one-dimensional ones.

    Layer scale has one number per channel and counts as one-dimensional. Swin's tables of position
    biases are biases, as in its authors' code.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        one_dimensional = parameter.ndim <= 1 or name.endswith(_NO_DECAY)
        (spared if one_dimensional and not recipe.decay_all else decayed).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """torch's AdamW or SGD over `parameter_groups`, fused where the device has that."""
    groups = parameter_groups(model, recipe)
    fused = device.type in _get_fused_kernels_supported_devices()
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=recipe.betas, fused=fused)
    sgd = torch.optim.SGD(groups, lr=recipe.peak_lr, momentum=recipe.momentum, fused=fused)
    if recipe.momentum:
        # Zeros give the same first step. The fused kernel would keep uninitialized memory as
        # momentum where fp16's scaler skips the first update.
        for parameter in model.parameters():
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Set `average`, a copy of `model`, to decay x average + (1 - decay) x model.

    Parameters and floating-point buffers (batch norm's statistics) are averaged, counters copied.
    """
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    move([mean for mean, _ in floating], [value for _, value in floating], 0)
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)


def loss_function(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """Mean cross entropy to smoothed targets: `batch.weight` of the label, the rest of its partner.

    logits: (B, classes), computed in float32 at least.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))

    def entropy(labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)

    if batch.partner_labels is batch.labels:
        return entropy(batch.labels).mean()
    partner = entropy(batch.partner_labels)
    return (batch.weight * entropy(batch.labels) + (1 - batch.weight) * partner).mean()


class TrainState:
    """A network in training: its weights, its optimizer, and how its updates are computed."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        options: ComputeOptions,
        device: torch.device,
        precision: Precision,
        seed: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        """`model` is moved to `device`, in place. `processes` share the parts of each batch."""
        self.model = options.prepare(model.to(device))
        self.recipe, self.options, self.device = recipe, options, device
        self.precision, self.seed = precision, seed
        self.forward = options.forward_of(self.model)
        self.optimizer = make_optimizer(self.model, recipe, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.average = None
        if recipe.ema is not None:
            self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.sums = PartSums(self.model, recipe.micro_batches, processes)
        self.monitor, self.clock, self.in_flight = LossMonitor(device), Clock(), InFlight(device)
        # Processes exchange the gradients of each part, which a recording would not set free.
        self.recorded = RecordedPart(self) if options.recorded and processes.count == 1 else None

    @property
    def eval_model(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average, where the recipe has one."""
        return self.average or self.model

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError, ValueError or RuntimeError for another network's state."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        average = {} if self.average is None else {"average": self.average}
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler, **average}


def update(train_state: TrainState, number: int, batches: Iterator[Batch], lr: float) -> None:
    """Make update `number`, counted from 0, with the next of `batches`, one for each part
    (micro-batch) that this process has of the batch.

    Raises:
        BadLoss: the loss of this update, or of one shortly before, is not finite; it has changed
            nothing.
    """
    for group in train_state.optimizer.param_groups:
        group["lr"] = lr
    loss = gradients(train_state, number, batches)
    with train_state.clock("backward"):
        train_state.monitor.add(number, loss)
    with train_state.clock("optimizer"):
        step(train_state)


def gradients(train_state: TrainState, number: int, batches: Iterator[Batch]) -> Tensor:
    """Leave the gradients of an update in the weights. Returns its loss, a scalar.

    A part does not depend on the others: batch norm sees it alone, and its random numbers are a
    function of its number.
    """
    recipe, clock, sums = train_state.recipe, train_state.clock, train_state.sums
    recorded = train_state.recorded
    sums.begin()
    with keep_casts(train_state):
        for part in sums.processes.share(recipe.micro_batches):
            with clock("data"):
                batch = next(batches)
            if recorded is not None:
                recorded.prepare(batch)
            # Stochastic depth draws from torch's global generator.
            position = number * recipe.micro_batches + part
            torch.manual_seed(randomness.key(_STOCHASTIC_DEPTH, train_state.seed, position))
            loss = compute_part(train_state, batch) if recorded is None else recorded.run()
            with clock("backward"):
                sums.keep(loss.to(train_state.monitor.dtype))
                train_state.in_flight.add()
    with clock("backward"):
        return sums.add_up()


def keep_casts(train_state: TrainState) -> AbstractContextManager[Any]:
    """Within the block weights are cast once: torch forgets casts when the outermost autocast ends.

    Here that is one that casts nothing itself. A recording casts by itself in each replay: what it
    remembered would lie in memory that is written again.
    """
    if train_state.precision == "fp32" or not train_state.options.cast_once:
        return nullcontext()
    remember = train_state.recorded is None
    return torch.autocast(train_state.device.type, enabled=False, cache_enabled=remember)


def compute_part(train_state: TrainState, batch: Batch) -> Tensor:
    """Add the gradients of a part to those in the weights. Returns its share of the loss."""
    recipe, clock = train_state.recipe, train_state.clock
    with clock("forward"), autocast(train_state.precision, train_state.device):
        logits = train_state.forward(batch.images)
        loss = loss_function(logits, batch, recipe.label_smoothing) / recipe.micro_batches
    with clock("backward"):
        torch.autograd.backward(train_state.scaler.scale(loss))
    return loss.detach()


class RecordedPart:
    """`compute_part`, recorded with the first batch and replayed from then on.

    A replay reads and writes the same memory each time: `prepare` copies a batch into the
    recording's own, and gradients are added in place.
    """

    def __init__(self, train_state: TrainState) -> None:
        self.train_state = train_state
        self._replay: Callable[[], object] = _nothing
        self._loss = torch.zeros(())

    def prepare(self, batch: Batch) -> None:
        """Copy the batch to where a replay reads it; record first, where nothing is recorded."""
        if self._replay is _nothing:
            self._batch = replace(
                batch,
                images=batch.images.clone(),
                labels=batch.labels.clone(),
                partner_labels=batch.partner_labels.clone(),
                weight=batch.weight.clone(),
            )
            self._record()
        for name in ("images", "labels", "partner_labels", "weight"):
            getattr(self._batch, name).copy_(getattr(batch, name), non_blocking=True)

    def run(self) -> Tensor:
        """Replay with the prepared batch. Returns its share of the loss."""
        with self.train_state.clock("forward"):
            self._replay()
            return self._loss.clone()

    def _record(self) -> None:
        """Record, and leave the network as it was, with gradients of zero."""
        state = self.train_state
        buffers = [(buffer, buffer.clone()) for buffer in state.model.buffers()]

        def work() -> None:
            self._loss = compute_part(state, self._batch)

        self._replay = record(work, state.device)
        for buffer, before in buffers:
            buffer.copy_(before)
        state.optimizer.zero_grad(set_to_none=False)


def _nothing() -> None:
    """What is replayed before anything is recorded."""


def step(train_state: TrainState) -> None:
    """Change the weights by their gradients, clear these, and move the average."""
    optimizer, scaler, monitor = train_state.optimizer, train_state.scaler, train_state.monitor
    if monitor.delay and not scaler.is_enabled():  # the scaler finds what is not finite itself
        optimizer.found_inf = monitor.stop  # type: ignore[attr-defined]
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=train_state.recorded is None)
    if train_state.average is not None and train_state.recipe.ema is not None:
        update_average(train_state.average, train_state.model, train_state.recipe.ema)


def noise(count: int, resolution: int, classes: int, device: torch.device) -> Batch:
    """A batch of `count` random images, by torch's global generator, to time updates with."""
    images = torch.randn(count, 3, resolution, resolution).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(classes, (count,)).to(device)
    return Batch(images, labels, labels, torch.ones(count, device=device), torch.arange(count))
