"""What the parts of a batch add up to, in their order, whichever process worked through which of
them.

A sum of floating-point numbers depends on its order. Here it is the order of the parts for any
number of processes, so that their number does not change a bit of the result, where kernels round
alike (docs/decisions.md#part-order).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from training.processes import Processes, in_order


class PartSums:
    """Losses, gradients and batch norm's statistics of the parts of a batch, of one batch after the
    other."""

    def __init__(self, model: nn.Module, parts: int, processes: Processes) -> None:
        self.parts, self.processes = parts, processes
        self._parameters = [
            parameter for parameter in model.parameters() if parameter.requires_grad
        ]
        # Where a batch is one part, batch norm itself does what is to be done with its statistics.
        self._statistics = _Statistics(model) if parts > 1 and _averaging(model) else None
        self._losses: list[Tensor] = []
        self._gradients: list[Tensor] = []
        self._last: list[Tensor | None] = []

    def begin(self) -> None:
        """A batch begins: forget what a failed one left."""
        self._losses, self._gradients = [], []
        if self._statistics is not None:
            self._statistics.begin()

    def keep(self, loss: Tensor) -> None:
        """Take what a part has left: its loss (a scalar), and in the network its gradients and its
        statistics."""
        self._losses.append(loss.detach())
        if self._statistics is not None:
            self._statistics.keep()
        if self.processes.count == 1:
            return  # autograd adds a part's gradients to those of the parts before
        self._last = [parameter.grad for parameter in self._parameters]
        pairs = zip(self._parameters, self._last, strict=True)
        self._gradients.append(
            _flat([torch.zeros_like(p) if grad is None else grad for p, grad in pairs])
        )
        for parameter in self._parameters:
            parameter.grad = None

    def add_up(self) -> Tensor:
        """Leave the sums over all parts in the network. Returns that of the losses."""
        losses = self.processes.rows_of_all(torch.stack(self._losses), self.parts)
        if self._statistics is not None:
            self._statistics.fold(self.processes, self.parts)
        if self.processes.count > 1:
            total = self.processes.sum_of_rows(self._gradients, self.parts)
            for parameter, grad, added in zip(
                self._parameters, self._last, _split(total, self._parameters)
            ):
                if grad is not None:
                    parameter.grad = grad.copy_(added)
        return in_order(losses)


class _Statistics:
    """Batch norm's running statistics, moved by the mean and the variance of one part after the
    other.

    With a momentum of 1 a layer's buffers come to hold those of the part that it has seen last, and
    nothing else. The running ones are kept here meanwhile, and put back when all parts are known.
    """

    def __init__(self, model: nn.Module) -> None:
        norms = _averaging(model)
        buffers = [
            (m, buffer)
            for m in norms
            for buffer in (m.running_mean, m.running_var)
            if buffer is not None
        ]
        self._buffers = [buffer for _, buffer in buffers]
        self._counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
        self._momentum = _flat(
            [torch.full_like(buffer, float(m.momentum or 0)) for m, buffer in buffers]
        )
        for norm in norms:
            norm.momentum = 1.0
        self._running = self._momentum
        self._seen: list[Tensor] = []

    def begin(self) -> None:
        self._running, self._seen = _flat(self._buffers), []

    def keep(self) -> None:
        self._seen.append(_flat(self._buffers))

    def fold(self, processes: Processes, parts: int) -> None:
        for row in processes.rows_of_all(torch.stack(self._seen), parts):
            self._running.lerp_(row, self._momentum)
        for buffer, running in zip(
            self._buffers, _split(self._running, self._buffers), strict=True
        ):
            buffer.copy_(running)
        for counter in self._counters:
            counter.add_(parts - len(self._seen))  # those that others have seen


def _averaging(model: nn.Module) -> list[_NormBase]:
    """The layers that keep running statistics."""
    return [
        m
        for m in model.modules()
        if isinstance(m, _NormBase) and m.track_running_stats and m.momentum
    ]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """One after the other as one vector, a copy."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _split(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """What `_flat` made one vector of, as views of it."""
    pieces = torch.split(vector, [tensor.numel() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]
