"""One update: the gradients of a batch's parts, then the optimizer's step.

Runs, the trial of layouts, the forecast and the benchmarks all make their updates here.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from data import Batch, randomness
from training.clock import Clock
from training.compute_options import ComputeOptions, forward_of
from training.device import autocast
from training.loss_monitor import LossMonitor
from training.optimization import loss_function, make_optimizer, update_average
from training.part_sums import PartSums
from training.processes import ALONE, Processes
from training.recipe import Precision, Recipe

_STOCHASTIC_DEPTH = 101
"""A stream of randomness beside those of `data.randomness`."""


class TrainState:
    """A network that learns: its weights, its optimizer, and how its updates are computed."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        layout: ComputeOptions,
        device: torch.device,
        precision: Precision,
        seed: int = 0,
        processes: Processes = ALONE,
    ) -> None:
        """`model` is on `device` and was laid out (`layout.lay_out`). `processes` share the parts
        of each batch."""
        self.model, self.recipe, self.device, self.precision, self.seed = (
            model,
            recipe,
            device,
            precision,
            seed,
        )
        self.layout, self.forward = layout, forward_of(model, layout)
        self.optimizer = make_optimizer(model, recipe, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.average = None if recipe.ema is None else copy.deepcopy(model).requires_grad_(False)
        self.sums = PartSums(model, recipe.micro_batches, processes)
        self.watch, self.clock = LossMonitor(device), Clock()

    @property
    def judged(self) -> nn.Module:
        """What is evaluated and kept: the average of the weights, where the recipe has one."""
        return self.average or self.model

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError, ValueError or RuntimeError where `state` is another kind of
        network's."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        average = {} if self.average is None else {"average": self.average}
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler, **average}


def noise(count: int, resolution: int, classes: int, device: torch.device) -> Batch:
    """A batch of `count` random images, by torch's generator, to time updates with."""
    images = (
        torch.randn(count, 3, resolution, resolution)
        .to(device)
        .contiguous(memory_format=torch.channels_last)
    )
    labels = torch.randint(classes, (count,)).to(device)
    return Batch(images, labels, labels, torch.ones(count, device=device), torch.arange(count))


def update(train_state: TrainState, number: int, batches: Iterator[Batch], lr: float) -> None:
    """Make a run's update `number`, counted from 0, with the next of `batches`, one for each part
    (micro-batch) that this process has of the batch.

    Raises:
        BadLoss: the loss of this update, or of one shortly before, is not finite; nothing was
            changed by it.
    """
    for group in train_state.optimizer.param_groups:
        group["lr"] = lr
    loss = gradients(train_state, number, batches)
    with train_state.clock("backward"):
        train_state.watch.add(number, loss)
    with train_state.clock("optimizer"):
        step(train_state)


def gradients(train_state: TrainState, number: int, batches: Iterator[Batch]) -> Tensor:
    """Leave the gradients of an update in the weights; its loss, in the precision of sums (a
    scalar).

    A part knows nothing of the others: batch norm sees it alone, and what is drawn for it depends
        on its number only.
    """
    recipe, device, clock, sums = (
        train_state.recipe,
        train_state.device,
        train_state.clock,
        train_state.sums,
    )
    sums.begin()
    for part in sums.processes.share(recipe.micro_batches):
        with clock("data"):
            batch = next(batches)
        # Stochastic depth draws from torch's own generator: put it where these draws begin.
        torch.manual_seed(
            randomness.key(
                _STOCHASTIC_DEPTH, train_state.seed, number * recipe.micro_batches + part
            )
        )
        with clock("forward"), autocast(train_state.precision, device):
            logits = train_state.forward(batch.images)
            loss = loss_function(logits, batch, recipe.label_smoothing) / recipe.micro_batches
        with clock("backward"):
            torch.autograd.backward(train_state.scaler.scale(loss))
            sums.keep(loss.to(train_state.watch.precise))
    with clock("backward"):
        return sums.add_up()


def step(train_state: TrainState) -> None:
    """Change the weights by their gradients, which are gone afterwards, and move their average."""
    optimizer, scaler, watch = train_state.optimizer, train_state.scaler, train_state.watch
    if watch.delay and not scaler.is_enabled():  # the scaler finds by itself what is not finite
        optimizer.found_inf = watch.stop  # type: ignore[attr-defined]
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    if train_state.average is not None and train_state.recipe.ema is not None:
        update_average(train_state.average, train_state.model, train_state.recipe.ema)
