"""A short timed trial that picks the fastest compute options for a run.

Candidates are tried one after the other: memory formats, rewritten convolutions, torch.compile
where the run is long enough to pay for it, fewer CPU threads. Each must compute the same function
as the plain network in float32. Weights, images and random numbers are the trial's own: a run is
the same with and without it if the options are.
"""

import contextlib
import math
import time
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from data.loader import Batch
from models import Architecture, SwinArchitecture
from models.builder import build
from training.device import (
    allow_tf32,
    can_record,
    depthwise_kernels,
    empty_cache,
    is_accelerator,
    is_out_of_memory,
    wait_for,
)
from training.execution import ComputeOptions, has_compiler
from training.monitor import BadLoss
from training.recipe import Precision, Recipe
from training.spec import RunSpec
from training.update import TrainState, gradients, noise, update

_SHARE, _COMPILE_SHARE = 0.02, 0.1
"""Of the run's expected time: what the trial may take, and what compiling may take."""
_COMPILE_SECONDS = 120.0
"""Time to compile a network twice, for the comparison and for the run."""
_TRIES, _TRY_SECONDS = 5, 0.5
"""Most tries of a candidate, and the time after which two are enough."""
_MARGIN = 1.03
"""A candidate must be this much faster: less is noise."""
_IMAGES, _TOLERANCE = 4, 0.01
"""Images of the comparison in float32, and the largest relative error in it."""


@dataclass(frozen=True)
class Work:
    """What a run computes again and again: an update with one part of its batch."""

    architecture: Architecture | SwinArchitecture
    recipe: Recipe
    resolution: int
    precision: Precision
    device: torch.device

    @classmethod
    def of(cls, run: RunSpec, device: torch.device) -> Self:
        return cls(run.architecture, run.recipe, run.resolution, run.precision, device)

    @property
    def images(self) -> int:
        return self.recipe.batch_size // self.recipe.micro_batches

    def noise(self, images: int) -> Batch:
        return noise(images, self.resolution, self.architecture.num_classes, self.device)

    def train_state(self, options: ComputeOptions, precision: Precision) -> TrainState:
        """A new network, the same for all options; layer scale at 1 lets every branch count."""
        torch.manual_seed(0)
        scale = None if self.recipe.layer_scale is None else 1.0
        model = build(self.architecture, drop_path=self.recipe.drop_path, layer_scale=scale)
        recipe = replace(self.recipe, batch_size=self.images, micro_batches=1)
        return TrainState(model, recipe, options, self.device, precision)


def choose(
    work: Work, updates: int, *, may_compile: bool = True
) -> tuple[ComputeOptions, dict[ComputeOptions, float]]:
    """The fastest options for so many `updates` with a part of the batch, and the images per second
    of all that were timed.

    Takes about 2 % of the run's time, compilation apart. A run too short for that gets the
    defaults. torch's random numbers and number of threads stay as they are.
    """
    with torch.random.fork_rng([]):  # a device's generator is seeded for each part of a batch
        try:
            return _choose(work, updates, may_compile)
        except (RuntimeError, MemoryError) as failure:
            if not is_out_of_memory(failure):
                raise
        finally:
            empty_cache(work.device)
    return ComputeOptions(threads=torch.get_num_threads()), {}  # the run itself reports it


def _choose(
    work: Work, updates: int, may_compile: bool
) -> tuple[ComputeOptions, dict[ComputeOptions, float]]:
    best = ComputeOptions(threads=torch.get_num_threads())
    started = time.monotonic()
    first = _seconds(work, best, tries=1)
    allowed = _SHARE * updates * first
    rates: dict[ComputeOptions, float] = {}
    if allowed < 8 * first:
        return best, rates
    plain = _outcome(work, replace(best, channels_last=False))
    fastest = math.inf
    for change in _changes(work, may_compile):
        options = replace(best, **change)
        if options.compile:
            affordable = _COMPILE_SHARE * updates * first > _COMPILE_SECONDS
        else:
            affordable = time.monotonic() - started + 4 * first < allowed
        if not affordable or (options.compile and "threads" in change):
            continue
        seconds = _try(work, options, plain)
        rates[options] = work.images / seconds
        if options.compile:  # the run compiles once more, and has to gain that
            seconds += _COMPILE_SECONDS / 2 / updates
        if seconds * _MARGIN < fastest:
            best, fastest = options, seconds
    return best, rates


def _changes(work: Work, may_compile: bool) -> list[dict[str, Any]]:
    """The candidates in their order, as changes of the best options so far."""
    changes: list[dict[str, Any]] = [{}, {"channels_last": False}]
    if isinstance(work.architecture, Architecture):  # Swin has nothing to rewrite
        changes.append({"channels_last": True, "rewritten": True})
    changes += [
        {"channels_last": False, "rewritten": False, "depthwise": kernel}
        for kernel in depthwise_kernels(work.device)
    ]
    if can_record(work.device):
        changes.append({"recorded": True})
    if may_compile and has_compiler(work.device):
        changes.append({"compile": True})
    count = torch.get_num_threads()
    while not is_accelerator(work.device) and count > 1:
        count //= 2
        changes.append({"threads": count})
    return changes


def _try(work: Work, options: ComputeOptions, plain: list[Tensor]) -> float:
    """Seconds of an update; infinite where the options fail or compute something else."""
    try:
        if difference(_outcome(work, options), plain) > _TOLERANCE:
            return math.inf
        return _seconds(work, options)
    except Exception:  # compilers fail in many ways, and a lack of memory is a reason to decline
        return math.inf


def _seconds(work: Work, options: ComputeOptions, tries: int = _TRIES) -> float:
    """Seconds of an update, the best of several. The learning rate is 0: the weights stay."""
    times: list[float] = []
    with options.applied():
        train_state = work.train_state(options, work.precision)
        batch = work.noise(work.images)
        while len(times) <= tries and (len(times) < 3 or sum(times[1:]) < _TRY_SECONDS):
            wait_for(work.device)
            started = time.perf_counter()
            with contextlib.suppress(BadLoss):
                update(train_state, len(times), repeat(batch), lr=0.0)
            wait_for(work.device)
            times.append(time.perf_counter() - started)
    return min(times[1:])  # the first one allocates, chooses kernels and compiles


def _outcome(work: Work, options: ComputeOptions) -> list[Tensor]:
    """The losses and summed gradients of two parts of a few images, in true float32.

    Batch norm is in eval mode: by its statistics over few images rounding would move the gradients
    by several percent (docs/decisions.md#autotune). Two parts that drop other branches show a
    network that is compiled or recorded with the random numbers of one.
    """
    allow_tf32(False, work.device)
    try:
        with options.applied():
            train_state = work.train_state(options, "fp32")
            for module in train_state.model.modules():
                if isinstance(module, _NormBase):
                    module.eval()
            batch = work.noise(_IMAGES)
            losses = [gradients(train_state, number, repeat(batch)) for number in range(2)]
    finally:
        allow_tf32(work.precision != "fp32", work.device)
    grads = [p.grad for p in train_state.model.parameters() if p.grad is not None]
    return [tensor.float().contiguous().flatten() for tensor in (*losses, *grads)]


def difference(outcome: list[Tensor], plain: list[Tensor]) -> float:
    """The largest error of a tensor relative to its norm, where norms count as at least 1 % of the
    whole's."""
    norm = torch.linalg.vector_norm
    floor = 0.01 * float(norm(torch.stack([norm(tensor) for tensor in plain])))
    errors = [
        float(norm(tensor - other)) / (float(norm(other)) + floor)
        for tensor, other in zip(outcome, plain, strict=True)
    ]
    return max(errors) if all(map(math.isfinite, errors)) else math.inf


def micro_batches_that_fit(work: Work) -> int | None:
    """The fewest micro-batches, more than the recipe has, that fit into memory, found by trying.

    None where not even the smallest part fits.
    """
    recipe = work.recipe
    pair = 2 if recipe.augmentation.mixes else 1
    for parts in range(2 * recipe.micro_batches, recipe.batch_size // pair + 1):
        if recipe.batch_size % (parts * pair):
            continue
        empty_cache(work.device)
        try:
            train_state = work.train_state(ComputeOptions(), work.precision)
            gradients(train_state, 0, iter([work.noise(recipe.batch_size // parts)]))
        except (RuntimeError, MemoryError) as failure:
            if not is_out_of_memory(failure):
                raise
        else:
            return parts
    return None
