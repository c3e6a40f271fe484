"""Processes that share a run, started by torchrun, and what they exchange.

The first one plans, decides, writes and logs; the others help it with the arithmetic of its runs
(`training.helper`). Nothing here knows what is computed.
"""

import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from data.loader import share
from training.device import exchange_backends, is_out_of_memory
from training.spec import RankInfo

T = TypeVar("T")

_PATIENCE = timedelta(days=7)
"""How long helpers wait for the first process to decode images or to write a report."""


class Elsewhere(Exception):
    """The first process failed at what the others wait for; it reports why."""


class Disconnected(OSError):
    """Another process of the run is gone."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a run, as one of them sees them; by default it is the only one."""

    rank: int = 0
    count: int = 1
    control: Any = None
    """torch's gloo group, for messages between hosts."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, items: int, rank: int | None = None) -> range:
        """The share of so many items that this process has, or process `rank`."""
        return share(items, self.rank if rank is None else rank, self.count)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set in any process. All call this at the same point."""
        if self.count == 1:
            return flags
        votes = torch.tensor(flags, dtype=torch.uint8)
        with _connected():
            dist.all_reduce(votes, dist.ReduceOp.MAX, group=self.control)
        return tuple(map(bool, votes.tolist()))

    def all_of(self, value: T) -> list[T]:
        """The values that all processes call this with, in order of their ranks."""
        values: list[Any] = [value]
        if self.count > 1:
            values *= self.count
            with _connected():
                dist.all_gather_object(values, value, group=self.control)
        return values

    def from_first(self, make: Callable[[], T], device: torch.device | None = None) -> T:
        """What `make` returns in the first process, which alone calls it; tensors move to `device`.

        Raises:
            Elsewhere: `make` failed, in the other processes; the first one gets its exception.
        """
        if self.count == 1:
            return make()
        if not self.is_first:
            content = self._broadcast(None)
            if not content:
                raise Elsewhere
            return torch.load(io.BytesIO(content), map_location=device, weights_only=False)  # type: ignore[no-any-return]
        try:
            value = make()
        except BaseException:
            self._broadcast(b"")
            raise
        buffer = io.BytesIO()
        torch.save(value, buffer, pickle_protocol=pickle.HIGHEST_PROTOCOL)
        self._broadcast(buffer.getvalue())
        return value

    def _broadcast(self, content: bytes | None) -> bytes:
        """The first process's bytes, in all of them."""
        size = torch.tensor([0 if content is None else len(content)])
        with _connected():
            dist.broadcast(size, 0, group=self.control)
            if not size:
                return b""
            data = torch.empty(int(size), dtype=torch.uint8)
            if content is not None:
                data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            dist.broadcast(data, 0, group=self.control)
        return data.numpy().tobytes()

    def rows_of_all(self, own: Tensor, rows: int) -> Tensor:
        """The (`rows`, ...) tensor of which `own` is this process's share of the rows."""
        if self.count == 1:
            return own
        shares = [len(self.share(rows, rank)) for rank in range(self.count)]
        most = max(shares)
        sent = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
        received = own.new_empty(self.count * most, *own.shape[1:])
        with _connected():
            dist.all_gather_into_tensor(received, sent)
        return torch.cat([received[rank * most :][:held] for rank, held in enumerate(shares)])

    def sum_of_rows(self, own: Sequence[Tensor], rows: int) -> Tensor:
        """The sum of all processes' `rows`, (n,) tensors, each added in order: the same bits for
        any distribution of the rows over processes.

        Each process adds one stretch of the columns and sends it to the others. With one row per
        process that is the traffic of an all-reduce, with m rows (m + 1) / 2 times as much.
        """
        columns = len(own[0])
        width = -(-columns // self.count)
        counts = [len(self.share(rows, rank)) * width for rank in range(self.count)]
        padding = (0, self.count * width - columns)
        padded = [functional.pad(row, padding).view(self.count, width) for row in own]
        sent = torch.stack(padded, dim=1).view(-1)
        mine, total = own[0].new_empty(rows * width), own[0].new_empty(self.count * width)
        with _connected():
            dist.all_to_all_single(mine, sent, counts, [len(own) * width] * self.count)
            dist.all_gather_into_tensor(total, in_order(mine.view(rows, width)))
        return total[:columns]


ALONE = Processes()


def in_order(rows: Tensor) -> Tensor:
    """The sum of the rows, added one after the other; torch.sum chooses an order of its own."""
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total


@contextmanager
def _connected() -> Iterator[None]:
    """Within the block processes communicate. Raises Disconnected where one is gone.

    What this process lacks memory for stays the error that it is.
    """
    try:
        yield
    except RuntimeError as failure:
        if is_out_of_memory(failure):
            raise
        raise Disconnected(
            f"another process of this run is gone ({str(failure).splitlines()[0]}); the same "
            "command resumes from the last checkpoint, with any number of processes"
        ) from failure


_joined = [ALONE]


def here() -> Processes:
    """This process and those that have joined it."""
    return _joined[-1]


@contextmanager
def joined(rank: RankInfo) -> Iterator[Processes]:
    """Within the block the processes that torchrun started are connected (`here`).

    Where one of them dies or fails, torchrun ends the others, and their next exchange fails.
    """
    dist.init_process_group(exchange_backends(), timeout=_PATIENCE)
    control = dist.new_group(backend="gloo", timeout=_PATIENCE)
    _joined.append(Processes(rank.rank, rank.count, control))
    try:
        yield here()
    finally:
        _joined.pop()
    dist.destroy_process_group()
