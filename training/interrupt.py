"""Leaving on request: the first SIGTERM or Ctrl-C asks the run to save and stop, the second ends it
at once."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")

DONE, FAILED, REFUSED, STOPPED = 0, 1, 2, 75
"""Exit codes: the last is stopped on request, the same command goes on."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """The run was asked to stop, has saved its state, and can be resumed."""


class StopRequest:
    """Truthy once a signal has come."""

    def __init__(self) -> None:
        self.asked = False
        self.is_handled = False

    def __bool__(self) -> bool:
        return self.asked

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Within the block somebody looks at the request often and saves first; elsewhere a signal
        ends the work."""
        before, self.is_handled = self.is_handled, True
        try:
            yield
        finally:
            self.is_handled = before

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """`items`, as long as nobody asks to stop.

        Raises:
            Stopped: somebody did. Nothing is saved by this.
        """
        for item in items:
            if self.asked:
                raise Stopped
            yield item


@contextmanager
def stop_on_signals(alone: bool = True) -> Iterator[StopRequest]:
    """Within the block SIGTERM and SIGINT set the request, or raise KeyboardInterrupt where it is
    not handled.

    A second one ends the process at once, with exit code 75. A thread sees to that: Python's own
    handlers would wait for the main thread to come back from whatever it is computing.

    A process that is not `alone` was started by torchrun, which passes on each signal that it gets,
    sends another when the first process leaves, and after 30 seconds ends them itself: there only
    the first counts, now and afterwards.
    """
    request = StopRequest()
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # only the main thread may handle signals
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        request.asked = True
        if not request.is_handled:
            raise KeyboardInterrupt

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    thread = threading.Thread(target=_leave_at_the_second, args=(reader, alone), daemon=True)
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(
        writer, warn_on_full_buffer=False
    )  # every signal's number is written there, at once
    thread.start()
    try:
        for each in before:
            signal.signal(each, note)
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if alone else signal.SIG_IGN)
        signal.set_wakeup_fd(wakeup)
        os.write(writer, b"\0")
        thread.join()
        os.close(writer)
        os.close(reader)


def _leave_at_the_second(reader: int, alone: bool) -> None:
    """Read numbers of signals until a 0; the second that asks to stop ends a process that is
    alone."""
    asked = 0
    while 0 not in (numbers := os.read(reader, 64)):
        asked += sum(number in _SIGNALS for number in numbers)
        if asked > 1 and alone:
            os.write(
                2,
                b"runner.py: asked twice, left at once; the same command goes on from what was "
                b"saved before\n",
            )
            os._exit(STOPPED)
