"""Sums over the parts of a batch, in their order, whichever process computed which of them.

A sum of floating-point numbers depends on its order. Here that is the order of the parts, so that
the number of processes does not change a bit of the result (docs/decisions.md#part-order).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from training.processes import Processes, in_order


class PartSums:
    """Losses, gradients and batch norm statistics of the parts of a batch."""

    def __init__(self, model: nn.Module, parts: int, processes: Processes) -> None:
        self.parts, self.processes = parts, processes
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        norms = [
            m
            for m in model.modules()
            if isinstance(m, _NormBase) and m.track_running_stats and m.momentum
        ]
        # With one part, batch norm itself moves its statistics.
        self._statistics = _Statistics(norms) if parts > 1 and norms else None
        self._losses: list[Tensor] = []
        self._gradients: list[Tensor] = []
        self._last: list[Tensor | None] = []

    def begin(self) -> None:
        """Begin a batch: forget what a failed one left."""
        self._losses, self._gradients = [], []
        if self._statistics is not None:
            self._statistics.begin()

    def keep(self, loss: Tensor) -> None:
        """Keep the results of a part: its loss (a scalar), its gradients and its statistics."""
        self._losses.append(loss.detach())
        if self._statistics is not None:
            self._statistics.keep()
        if self.processes.count == 1:
            return  # autograd adds a part's gradients to those of the parts before
        self._last = [parameter.grad for parameter in self._parameters]
        pairs = zip(self._parameters, self._last, strict=True)
        grads = [torch.zeros_like(p) if grad is None else grad for p, grad in pairs]
        self._gradients.append(_flat(grads))
        for parameter in self._parameters:
            parameter.grad = None

    def add_up(self) -> Tensor:
        """Leave the sums over all parts in the network. Returns the sum of the losses."""
        losses = self.processes.rows_of_all(torch.stack(self._losses), self.parts)
        if self._statistics is not None:
            self._statistics.fold(self.processes, self.parts)
        if self.processes.count > 1:
            sums = _split(self.processes.sum_of_rows(self._gradients, self.parts), self._parameters)
            for parameter, grad, total in zip(self._parameters, self._last, sums, strict=True):
                if grad is not None:
                    parameter.grad = grad.copy_(total)
        return in_order(losses)


class _Statistics:
    """Batch norm's running statistics, moved by the mean and variance of one part after the other.

    With a momentum of 1 a layer's buffers hold the statistics of its last part and nothing else.
    The running ones are kept here meanwhile, and put back when all parts are known.
    """

    def __init__(self, norms: Sequence[_NormBase]) -> None:
        buffers = [(m, b) for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        self._buffers = [buffer for _, buffer in buffers]
        self._counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        momenta = [torch.full_like(buffer, float(m.momentum or 0)) for m, buffer in buffers]
        self._momentum = self._running = _flat(momenta)
        for norm in norms:
            norm.momentum = 1.0
        self._parts: list[Tensor] = []

    def begin(self) -> None:
        self._running, self._parts = _flat(self._buffers), []

    def keep(self) -> None:
        self._parts.append(_flat(self._buffers))

    def fold(self, processes: Processes, parts: int) -> None:
        for part in processes.rows_of_all(torch.stack(self._parts), parts):
            self._running.lerp_(part, self._momentum)
        running = _split(self._running, self._buffers)
        for buffer, value in zip(self._buffers, running, strict=True):
            buffer.copy_(value)
        for counter in self._counters:
            counter.add_(parts - len(self._parts))  # those of other processes


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """A copy of the tensors as one vector."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _split(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Invert `_flat`, as views."""
    pieces = torch.split(vector, [tensor.numel() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]
