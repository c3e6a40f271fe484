"""Processes that share a run: what they say to each other, and how they notice that one is gone.

torchrun starts them. The first one plans, decides, writes and speaks; the others help it with the
arithmetic of its runs (`training.helper`). Nothing here knows what is computed.
"""

import io
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import traceback
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
from training.interrupt import DONE, FAILED
from training.torchrun import RankInfo

T = TypeVar("T")

_PATIENCE = timedelta(days=7)
"""How long helpers wait for the first process to decode images, or to write a report."""
_SECONDS_TO_NOTICE = 30.0
"""What a process whose message failed gives the watch to say which other is gone; longer than the
watch takes."""


class Elsewhere(Exception):
    """The first process failed at what the others wait for, and says why."""


@dataclass(frozen=True)
class Processes:
    """The processes that share a run, as one of them sees them; by default it is the only one."""

    rank: int = 0
    count: int = 1
    control: Any = None
    """torch's group of them for what is said on the host."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, items: int, rank: int | None = None) -> range:
        """Which of so many items this process has, or process `rank`."""
        return share(items, self.rank if rank is None else rank, self.count)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether any process says so, for each flag. All of them ask, at the same point."""
        if self.count == 1:
            return flags
        said = torch.tensor(flags, dtype=torch.uint8)
        with _connected():
            dist.all_reduce(said, dist.ReduceOp.MAX, group=self.control)
        return tuple(map(bool, said.tolist()))

    def all_of(self, value: T) -> list[T]:
        """What each process calls this with, in their order."""
        values: list[Any] = [value]
        if self.count > 1:
            values *= self.count
            with _connected():
                dist.all_gather_object(values, value, group=self.control)
        return values

    def from_first(self, make: Callable[[], T], device: torch.device | None = None) -> T:
        """What `make` returns in the first process, the only one that calls it; tensors in it come
        to `device`.

        Raises:
            Elsewhere: `make` failed, which the first process knows as the failure itself.
        """
        if self.count == 1:
            return make()
        if not self.is_first:
            content = self._broadcast(None)
            if not content:
                raise Elsewhere
            return torch.load(io.BytesIO(content), map_location=device, weights_only=False)  # type: ignore[no-any-return]
        try:
            made = make()
        except BaseException:
            self._broadcast(b"")
            raise
        buffer = io.BytesIO()
        torch.save(made, buffer, pickle_protocol=pickle.HIGHEST_PROTOCOL)
        self._broadcast(buffer.getvalue())
        return made

    def _broadcast(self, content: bytes | None) -> bytes:
        """The first process's bytes in all of them."""
        size = torch.tensor([0 if content is None else len(content)])
        with _connected():
            dist.broadcast(size, 0, group=self.control)
            if content is None:
                there = torch.empty(int(size), dtype=torch.uint8)
            else:
                there = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)[
                    : len(content)
                ]
            if size:
                dist.broadcast(there, 0, group=self.control)
        return there.numpy().tobytes()

    def rows_of_all(self, own: Tensor, rows: int) -> Tensor:
        """The (`rows`, ...) tensor of which `own` holds this process's share, one row an item."""
        if self.count == 1:
            return own
        shares = [self.share(rows, rank) for rank in range(self.count)]
        most = max(map(len, shares))
        sent = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
        received = own.new_empty(self.count * most, *own.shape[1:])
        with _connected():
            dist.all_gather_into_tensor(received, sent)
        return torch.cat([received[rank * most :][: len(each)] for rank, each in enumerate(shares)])

    def sum_of_rows(self, own: Sequence[Tensor], rows: int) -> Tensor:
        """The sum of all processes' rows, an (n,) tensor each, added in their order: who has which
        changes no bit.

        `own` is this process's share of the `rows`. Each process adds up one stretch of the columns
        and then tells the others: with one row a process it is as much traffic as an all-reduce,
        with m rows (m + 1) / 2 times as much.
        """
        columns = len(own[0])
        width = -(-columns // self.count)
        counts = [len(self.share(rows, rank)) * width for rank in range(self.count)]
        padded = (
            functional.pad(row, (0, self.count * width - columns)).view(self.count, width)
            for row in own
        )
        sent = torch.stack(list(padded), dim=1).view(-1)
        mine, total = own[0].new_empty(rows * width), own[0].new_empty(self.count * width)
        with _connected():
            dist.all_to_all_single(mine, sent, counts, [len(own) * width] * self.count)
        added = in_order(mine.view(rows, width))
        with _connected():
            dist.all_gather_into_tensor(total, added)
        return total[:columns]


ALONE = Processes()


def in_order(rows: Tensor) -> Tensor:
    """The sum of the rows, each added to those before it; torch.sum chooses an order of its own."""
    total = rows[0].clone()
    for row in rows[1:]:
        total += row
    return total


@contextmanager
def _connected() -> Iterator[None]:
    """Within the block processes talk. The watch says whom a failure is about; it is only waited
    for here."""
    try:
        yield
    except RuntimeError as failure:
        time.sleep(_SECONDS_TO_NOTICE)
        raise OSError(
            f"the processes of this run lost each other ({str(failure).splitlines()[0]}); the "
            "same command goes on "
            "from what was saved before"
        ) from failure


_here = [ALONE]


def here() -> Processes:
    """This process and those that have joined it."""
    return _here[-1]


@contextmanager
def joined(place: RankInfo) -> Iterator[Processes]:
    """Within the block all processes that torchrun started have met (`here`). One that dies in it
    ends them all.

    A process that leaves the block waits until all do, unless it does so by an exception, which
    also ends them all, by SystemExit with its code. Signals end the process at once until all have
    met.
    """
    with _default_signals():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        control = dist.new_group(backend="gloo", timeout=_PATIENCE)
        watch = _Watch(Processes(place.rank, place.count, control))
    code = FAILED
    _here.append(watch.processes)
    try:
        yield watch.processes
        code = DONE
    except SystemExit as left:
        code = int(left.code or DONE)
        raise
    except BaseException:
        traceback.print_exc()  # now: torchrun ends all soon after the first
        raise
    finally:
        _here.pop()
        watch.leave(code)
    dist.destroy_process_group()


@contextmanager
def _default_signals() -> Iterator[None]:
    """Within the block SIGTERM and SIGINT end the process, whatever it waits for: it has nothing to
    save yet."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _Watch:
    """Notices in milliseconds that another process is gone, which NCCL would wait for, and ends
    this one.

    The first process has a connection to each other one, on which a byte, its exit code, is sent by
    who leaves in order: `DONE`, or why all are to leave. The kernel closes the connection of one
    that dies; of a machine that dies, keep-alives tell within half a minute.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        host = os.environ["MASTER_ADDR"]
        if processes.is_first:
            with socket.create_server(("", 0), backlog=processes.count) as server:
                processes.from_first(lambda: server.getsockname()[1])
                accepted = [server.accept()[0] for _ in range(processes.count - 1)]
            self._others = {struct.unpack("!I", _read(line, 4))[0]: line for line in accepted}
        else:
            port = processes.from_first(int)
            self._others = {0: socket.create_connection((host, port))}
            self._others[0].sendall(struct.pack("!I", processes.rank))
        self._left: dict[int, threading.Event] = {}
        for rank, line in self._others.items():
            for level, option, value in _KEEP_ALIVE:
                line.setsockopt(level, option, value)
            self._left[rank] = threading.Event()
            threading.Thread(target=self._wait_for, args=(rank, line), daemon=True).start()

    def _wait_for(self, rank: int, line: socket.socket) -> None:
        code = _read(line, 1)
        if code == bytes([DONE]):
            self._left[rank].set()
            return
        if not code and (
            self.processes.is_first or self.processes.rank == 1
        ):  # one speaks, the others would echo
            _say(
                f"process {rank} of {self.processes.count} is gone, so the others end: the same "
                "command goes on from "
                "what was saved before, with any number of processes"
            )
        self._tell(code or bytes([FAILED]))
        os._exit(code[0] if code else FAILED)

    def _tell(self, code: bytes) -> None:
        for line in self._others.values():
            try:
                line.sendall(code)
            except OSError:  # it is gone too
                continue

    def leave(self, code: int) -> None:
        """Say so to the others; one that leaves in order stays until they do."""
        self._tell(bytes([code]))
        if code == DONE:
            for left in self._left.values():
                left.wait(_SECONDS_TO_NOTICE)


_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]


def _read(line: socket.socket, count: int) -> bytes:
    """So many bytes, or none if the other side is gone."""
    try:
        return line.recv(count, socket.MSG_WAITALL)
    except OSError:
        return b""


def _say(sentence: str) -> None:
    print(f"runner.py: {sentence}", file=sys.stderr, flush=True)
