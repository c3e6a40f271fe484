"""Losses of updates, watched without making the processor wait for the device."""

import math
from collections import deque

import torch
from torch import Tensor

_DELAY = {"cuda": 2}
"""Updates that a device may be ahead of the news of its losses; without an entry there is no
delay."""


class BadLoss(ArithmeticError):
    """A loss is infinite or not a number."""

    def __init__(self, update: int, loss: float) -> None:
        super().__init__(f"the loss is {loss} in update {update}")
        self.update, self.loss = update, loss


class LossMonitor:
    """Sums the losses of an epoch on the device and finds the first that is not finite.

    The host learns a loss some updates late, for asking at once would let the device run dry; it
    also waits until the device is no farther behind than that. Nothing is lost by it: from the
    first bad loss on `stop` is 1 on the device, and an optimizer that is given it as `found_inf`
    leaves all weights as they are. Call `drain` before saving.
    """

    def __init__(self, device: torch.device, loss_sum: float = 0.0) -> None:
        self.delay = _DELAY.get(device.type, 0)
        self.last = math.nan
        """The latest loss that the host knows."""
        self.stop = torch.zeros((), device=device)
        self.precise = torch.float32 if device.type == "mps" else torch.float64
        """What losses are summed in: the finest that the device has."""
        self._sum = torch.tensor(loss_sum, dtype=self.precise, device=device)
        self._coming: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def add(self, update: int, loss: Tensor) -> None:
        """Take the loss of an update (a scalar), before its weights are changed.

        Raises:
            BadLoss: the first that is known by now.
        """
        loss = loss.detach()
        self._sum += loss
        self.stop = torch.maximum(self.stop, (~torch.isfinite(loss)).float())
        if loss.is_cuda:
            copy = torch.empty((), dtype=loss.dtype, pin_memory=True).copy_(loss, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
            self._coming.append((update, copy, arrived))
        else:
            self._coming.append((update, loss.clone(), None))
        self._read(self.delay)

    def drain(self) -> None:
        """Wait for every loss. Raises BadLoss for the first."""
        self._read(0)

    def _read(self, left: int) -> None:
        while len(self._coming) > left:
            update, loss, arrived = self._coming.popleft()
            if arrived is not None:
                arrived.synchronize()
            self.last = loss.item()
            if not math.isfinite(self.last):
                raise BadLoss(update, self.last)

    @property
    def loss_sum(self) -> float:
        """Of all losses so far; waits for the device."""
        return self._sum.item()

    def reset(self) -> None:
        """Begin a new sum."""
        self._sum.zero_()
