"""A short timed trial that picks the fastest layout of a network among those that compute the same
function.

Layouts meet in duels: memory formats first, then rewritten convolutions, then torch.compile where
the run is long enough to pay for it, then fewer CPU threads. A duel alternates between its two, so
that a busy moment of the machine hits both, and compares medians. Weights, images and random
numbers are the trial's own: a run is the same with and without it if the layout is.
"""

import contextlib
import json
import math
import os
import statistics
import time
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor

from data import Batch
from models import Architecture, SwinArchitecture
from models.builder import build
from training import memory
from training.compute_options import ComputeOptions, has_compiler, lay_out
from training.device import threads, wait_for
from training.environment import device_name
from training.loss_monitor import BadLoss
from training.recipe import Optimizer, Precision, Recipe
from training.spec import RunSpec
from training.update import TrainState, gradients, noise, update
from utils.files import recall, write_json

_SHARE = 0.02
"""Of the expected time of the run: what a trial may take."""
_DUEL_SECONDS = 2.0
_ROUNDS = (3, 15)
"""Fewest and most timings of either side of a duel."""
_MARGIN = 1.02
"""A candidate must be this much faster: below that it is noise."""
_STEP_SECONDS = 0.25
"""A timed step on the CPU takes fewer images than the batch where that would last longer than
this."""
_TOLERANCE = 0.05
"""Of the difference between two layouts in float32 (`_Trial.run`)."""
_COMPILE_SECONDS = 60.0
"""What compiling a network was seen to take, 25 to 50 seconds, and some more."""


@dataclass(frozen=True)
class Work:
    """What a run does again and again: an update by one micro-batch."""

    architecture: Architecture | SwinArchitecture
    resolution: int
    """Pixels."""
    batch: int
    """Images."""
    precision: Precision
    drop_path: float = 0.0
    layer_scale: bool = False
    label_smoothing: float = 0.0
    optimizer: Optimizer = "adamw"


@dataclass(frozen=True)
class Choice:
    """What a trial found."""

    layout: ComputeOptions
    why: str
    """tried, remembered, or why there was no trial."""
    rates: tuple[tuple[str, float], ...] = ()
    """Images per second of every layout that was timed, as last measured."""


class Candidate:
    """A network of its own in one layout, ready to be timed."""

    def __init__(
        self,
        work: Work,
        layout: ComputeOptions,
        device: torch.device,
        precision: Precision | None = None,
    ) -> None:
        self.layout, self.device = layout, device
        torch.manual_seed(0)
        # Layer scale at 1: at its initial 1e-6 the branches would hardly show in the comparison.
        model = build(
            work.architecture,
            drop_path=work.drop_path,
            layer_scale=1.0 if work.layer_scale else None,
        )
        recipe = Recipe(label_smoothing=work.label_smoothing, optimizer=work.optimizer)
        self.train_state = TrainState(
            lay_out(model.to(device), layout), recipe, layout, device, precision or work.precision
        )
        # With the 2^16 that a scaler begins with, fp16's gradients may overflow, and nothing could
        # be compared.
        self.train_state.scaler = torch.amp.GradScaler(device.type, enabled=False)

    def step(self, batch: Batch) -> float:
        """An update; seconds. Its learning rate is 0: it takes its time, but the weights stay."""
        with threads(self.layout.threads), contextlib.suppress(BadLoss):
            wait_for(self.device)
            started = time.perf_counter()
            update(self.train_state, 0, repeat(batch), lr=0.0)
            wait_for(self.device)
        return time.perf_counter() - started

    def outcome(self, batch: Batch) -> list[Tensor]:
        """The loss and all gradients, flat."""
        with threads(self.layout.threads):
            loss = gradients(self.train_state, 0, repeat(batch))
        found = [p.grad for p in self.train_state.model.parameters() if p.grad is not None]
        outcome = [tensor.float().contiguous().flatten().clone() for tensor in (loss, *found)]
        self.train_state.optimizer.zero_grad()
        return outcome


def difference(outcome: list[Tensor], truth: list[Tensor]) -> float:
    """The largest error of a tensor relative to its norm, where norms count as at least 1 % of the
    whole's."""
    floor = 0.01 * float(
        torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in truth]))
    )
    errors = [
        float(torch.linalg.vector_norm(ours - theirs))
        / (float(torch.linalg.vector_norm(theirs)) + floor)
        for ours, theirs in zip(outcome, truth, strict=True)
    ]
    return max(errors) if all(map(math.isfinite, errors)) else float("inf")


def choose(
    work: Work, device: torch.device, steps: int, cache: Path | None, *, patient: bool = False
) -> Choice:
    """The fastest layout for `steps` repetitions of `work` on `device`, tried now or remembered in
    the file `cache`.

    Takes at most about 2 % of the time that the run will take, and at most seconds a layout; where
    that is too little to measure anything, no trial is made and channels_last is the answer.
    `patient` lifts the first limit. torch's random numbers and thread count are as they were
    before.
    """
    plain = ComputeOptions(threads=torch.get_num_threads())
    key = _key(work, device)
    if cache is not None and (found := _remembered(cache, key)):
        return Choice(found, "remembered")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        choice = _Trial(work, device, plain, patient).run(steps)
    memory.empty_cache(device)
    if cache is not None and choice.why == "tried":
        _remember(cache, key, choice)
    return choice


class _Trial:
    def __init__(
        self, work: Work, device: torch.device, start: ComputeOptions, patient: bool
    ) -> None:
        self.work, self.device, self.start, self.patient = work, device, start, patient
        self.rates: dict[str, float] = {}

    def run(self, steps: int) -> Choice:
        work, device = self.work, self.device
        best = Candidate(work, self.start, device)
        self._images(min(4, work.batch))
        best.step(self.batch)
        per_image = best.step(self.batch) / self.batch.valid
        expected = per_image * work.batch * steps
        fitting = int(_STEP_SECONDS / per_image)
        size = work.batch if device.type == "cuda" else max(2, min(work.batch, fitting))
        allowed = float("inf") if self.patient else _SHARE * expected
        if allowed < (2 * _ROUNDS[0] + 4) * per_image * size:
            return Choice(self.start, "the run is too short for a trial")
        self.seconds = min(_DUEL_SECONDS, allowed / 4)
        while size:
            try:
                return self._tournament(best, size, allowed)
            except (RuntimeError, MemoryError) as failure:
                if not memory.is_out_of_memory(failure):
                    raise
            memory.empty_cache(device)
            size //= 2  # in float32, for the comparison, images take twice the memory that they do in the run
        return Choice(self.start, "there is too little memory for a trial")

    def _tournament(self, best: Candidate, size: int, allowed: float) -> Choice:
        """The winner of all duels, with `size` images. Raises what torch does where they do not fit
        into memory."""
        work, device = self.work, self.device
        self._images(size)
        # What all must compute: the plain network's loss and gradients. Rounding alone was seen to
        # move them by 3.8 % in float32 (an image that lands on the other side of a ReLU's corner),
        # and in bf16 under batch norm by more than their length. So layouts are compared in
        # float32, and in 16 bits an error against float32 may be one and a half times the plain
        # network's own, which rules out gross errors only.
        plain = Candidate(work, replace(self.start, channels_last=False), device)
        own = plain.outcome(self.batch)
        self.truth, self.tolerance = own, _TOLERANCE
        if work.precision != "fp32":
            self.truth = Candidate(work, plain.layout, device, "fp32").outcome(self.batch)
            self.tolerance += 1.5 * difference(own, self.truth)
        if not self._agrees(best):
            best = plain
        elif self._agrees(plain):
            best = self._duel(best, plain)
        del plain
        if isinstance(work.architecture, Architecture):  # Swin has nothing to rewrite
            best = self._challenge(best, replace(self.start, rewritten=True))
        if allowed / 3 >= _COMPILE_SECONDS and not self.patient and has_compiler(device):
            best = self._challenge(best, replace(best.layout, compile=True))
        count = best.layout.threads or 1
        while device.type == "cpu" and count > 1 and not best.layout.compile:
            count //= 2
            before = best
            best = self._challenge(best, replace(best.layout, threads=count))
            if best is before:
                break
        return Choice(best.layout, "tried", tuple(self.rates.items()))

    def _images(self, count: int) -> None:
        torch.manual_seed(1)
        self.batch = noise(
            count, self.work.resolution, self.work.architecture.num_classes, self.device
        )

    def _agrees(self, candidate: Candidate) -> bool:
        if difference(candidate.outcome(self.batch), self.truth) > self.tolerance:
            return False
        if self.work.precision == "fp32":
            return True
        if candidate.layout.compile:  # to compile it again for float32 would take a minute
            return self.tolerance <= 1
        exact = Candidate(self.work, candidate.layout, self.device, "fp32").outcome(self.batch)
        return difference(exact, self.truth) <= _TOLERANCE

    def _challenge(self, best: Candidate, layout: ComputeOptions) -> Candidate:
        """The winner; a layout that cannot be run, or computes something else, has lost."""
        try:
            candidate = Candidate(self.work, layout, self.device)
            if not self._agrees(candidate):
                return best
        except Exception:  # a compiler's failures are of many kinds, and a lack of memory is one more reason to decline
            return best
        return self._duel(best, candidate)

    def _duel(self, best: Candidate, candidate: Candidate) -> Candidate:
        both = best, candidate
        seconds: tuple[list[float], list[float]] = [], []
        for candidate in both:
            candidate.step(self.batch)
        end = time.perf_counter() + self.seconds
        while len(seconds[0]) < _ROUNDS[0] or (
            time.perf_counter() < end and len(seconds[0]) < _ROUNDS[1]
        ):
            for candidate, own in zip(both, seconds, strict=True):
                own.append(candidate.step(self.batch))
        medians = [statistics.median(own) for own in seconds]
        for candidate, median in zip(both, medians, strict=True):
            self.rates[str(candidate.layout)] = self.batch.valid / median
        return candidate if medians[0] > _MARGIN * medians[1] else best


def work_of(run: RunSpec) -> Work:
    """What `run` does again and again."""
    recipe = run.recipe
    return Work(
        run.architecture,
        run.resolution,
        recipe.batch_size // recipe.micro_batches,
        run.precision,
        recipe.drop_path,
        recipe.layer_scale is not None,
        recipe.label_smoothing,
        recipe.optimizer,
    )


def likely(work: Work, device: torch.device, cache: Path) -> list[ComputeOptions]:
    """Layouts of which one will most likely be chosen: the one remembered, else those that most
    trials end with."""
    if found := _remembered(cache, _key(work, device)):
        return [found]
    return (
        [ComputeOptions(), ComputeOptions(rewritten=True)]
        if isinstance(work.architecture, Architecture)
        else [ComputeOptions()]
    )


def cache_file() -> Path:
    """Where choices are remembered: layouts.json in the user's cache folder (XDG_CACHE_HOME, else
    ~/.cache)."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (
        (home if home.is_absolute() else Path.home() / ".cache")
        / "convnext-ablations"
        / "layouts.json"
    )


def _key(work: Work, device: torch.device) -> str:
    return json.dumps(
        {**asdict(work), "device": device_name(device), "torch": torch.__version__}, sort_keys=True
    )


def _remembered(cache: Path, key: str) -> ComputeOptions | None:
    entry = recall(cache).get(key)
    match entry.get("layout") if isinstance(entry, dict) else None:
        case {
            "channels_last": bool(last),
            "compile": bool(compiled),
            "threads": int(count),
            "rewritten": bool(rewritten),
        } if count > 0:
            return ComputeOptions(last, compiled, count, rewritten)
    return None


def _remember(cache: Path, key: str, choice: Choice) -> None:
    entry = {"layout": asdict(choice.layout), "images_per_second": dict(choice.rates)}
    with contextlib.suppress(
        OSError
    ):  # a home that cannot be written to costs a second a run, not the run
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {**recall(cache), key: entry})
