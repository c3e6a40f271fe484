"""What is watched while a run trains: its losses, its time by phase, its progress."""

import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from tqdm import tqdm

from training.device import is_accelerator, sum_dtype, updates_ahead
from utils.text import duration

UPDATE_PHASES = ("data", "forward", "backward", "optimizer")
PHASES = (*UPDATE_PHASES, "evaluation", "other")
_LINE_SECONDS = 10.0
"""Time between two lines of progress in a log file."""


class Clock:
    """Wall time by phase, in seconds."""

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        """Continue from what an earlier clock `read`."""
        self._seconds = dict.fromkeys(PHASES, 0.0) | dict(before or {})
        self._started = time.perf_counter() - sum(self._seconds.values())

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Book the block's time on `phase`, however the block ends."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - started

    def read(self) -> dict[str, float]:
        """Seconds by phase so far; "other" is the time that no phase claimed."""
        claimed = sum(self._seconds[phase] for phase in PHASES[:-1])
        return {**self._seconds, "other": time.perf_counter() - self._started - claimed}


def update_seconds(seconds: Mapping[str, float]) -> float:
    """The part of a clock's seconds that updates took, their images included."""
    return sum(seconds[phase] for phase in UPDATE_PHASES)


class BadLoss(ArithmeticError):
    """A loss is infinite or not a number."""

    def __init__(self, update: int, loss: float) -> None:
        super().__init__(f"the loss is {loss} in update {update}")
        self.update, self.loss = update, loss


class LossMonitor:
    """Sums the losses of an epoch on the device and finds the first that is not finite.

    Reading a loss at once would stall a GPU, so the host learns it some updates late. Nothing is
    lost: from the first bad loss on `stop` is 1 on the device, and an optimizer that takes it as
    `found_inf` leaves all weights as they are. Call `drain` before saving.
    """

    def __init__(self, device: torch.device, loss_sum: float = 0.0) -> None:
        self.delay = updates_ahead(device)
        self.last = math.nan
        """The latest loss that the host knows."""
        self.stop = torch.zeros((), device=device)
        self.dtype = sum_dtype(device)
        """Precision of the sum: the finest that the device has."""
        self._sum = torch.full((), loss_sum, dtype=self.dtype, device=device)
        self._pending: deque[tuple[int, Tensor, torch.Event | None]] = deque()

    def add(self, update: int, loss: Tensor) -> None:
        """Add the loss of an update (a scalar), before its weights change.

        Raises:
            BadLoss: the first one that the host knows of by now.
        """
        loss = loss.detach()
        self._sum += loss
        self.stop = torch.maximum(self.stop, (~torch.isfinite(loss)).float())
        copy, copied = loss.clone(), None
        if is_accelerator(loss.device) and self.delay:
            copy = torch.empty((), dtype=loss.dtype, pin_memory=True).copy_(loss, non_blocking=True)
            copied = torch.Event(loss.device)
            copied.record()
        self._pending.append((update, copy, copied))
        self._read(self.delay)

    def drain(self) -> None:
        """Wait for every loss. Raises BadLoss for the first bad one."""
        self._read(0)

    def _read(self, keep: int) -> None:
        while len(self._pending) > keep:
            update, loss, copied = self._pending.popleft()
            if copied is not None:
                copied.synchronize()
            self.last = loss.item()
            if not math.isfinite(self.last):
                raise BadLoss(update, self.last)

    @property
    def loss_sum(self) -> float:
        """Sum of all losses so far; waits for the device."""
        return self._sum.item()

    def reset(self) -> None:
        """Begin a new sum."""
        self._sum.zero_()


class Progress:
    """Updates done, images per second, loss and time left: a bar on a terminal, lines in a log."""

    def __init__(
        self, title: str, updates: int, done: int, batch_size: int, silent: bool = False
    ) -> None:
        self.title, self.updates, self.done = title, updates, done
        self.batch_size, self.silent, self.epoch = batch_size, silent, ""
        self._first, self._started = done, time.monotonic()
        self._last_line = self._started
        self._bar = tqdm(
            total=updates * batch_size,
            initial=done * batch_size,
            desc=title,
            unit=" images",
            unit_scale=True,
            leave=False,
            dynamic_ncols=True,
            mininterval=0.5,
            disable=silent or not sys.stderr.isatty(),
        )

    def update(self, epoch: str, loss: float) -> None:
        """Count one more update; `loss` is the latest known."""
        self.done, self.epoch = self.done + 1, epoch
        shown = "" if math.isnan(loss) else f", loss {loss:.3f}"  # a device may be ahead
        if not self._bar.disable:
            self._bar.set_postfix_str(f"epoch {epoch}{shown}", refresh=False)
            self._bar.update(self.batch_size)
        elif time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line, now = time.monotonic(), self.read()
            rate, left = now["images_per_second"], duration(now["seconds_left"])
            self.log(f"epoch {epoch}{shown}, {rate:,.0f} images/s, {left} left")

    def read(self) -> dict[str, Any]:
        """How far the run is and how long it will take, by this process's own rate."""
        made = self.done - self._first
        per_update = (time.monotonic() - self._started) / made if made else 0.0
        return {
            "epoch": self.epoch,
            "update": self.done,
            "updates": self.updates,
            "images_per_second": self.batch_size / per_update if made else None,
            "seconds_left": per_update * (self.updates - self.done) if made else None,
        }

    def log(self, text: str) -> None:
        """Print a line that stays."""
        if not self.silent:
            tqdm.write(f"{self.title}: {text}", file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
