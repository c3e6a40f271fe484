"""Stopping on request: the first SIGTERM, Ctrl-C or lost terminal lets a run save, the second
SIGTERM or Ctrl-C ends it at once."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")

DONE, FAILED, REFUSED, STOPPED = 0, 1, 2, 75
"""Exit codes; the last: stopped on request, the same command resumes."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_HANGUP = getattr(signal, "SIGHUP", None)
"""The terminal is gone, such as that of an ssh connection; None on Windows."""


class Stopped(Exception):
    """The run was stopped on request, has saved its state and can be resumed."""


class StopRequest:
    """Truthy once a signal has come."""

    def __init__(self) -> None:
        self.requested = False
        self.is_handled = False

    def __bool__(self) -> bool:
        return self.requested

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Within the block the code polls the request and saves; elsewhere a signal interrupts."""
        before, self.is_handled = self.is_handled, True
        try:
            yield
        finally:
            self.is_handled = before

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield `items`. Raises Stopped as soon as a stop is requested; saves nothing."""
        for item in items:
            if self.requested:
                raise Stopped
            yield item


@contextmanager
def stop_on_signals(alone: bool = True) -> Iterator[StopRequest]:
    """Within the block SIGTERM, SIGINT and SIGHUP set the request, or raise KeyboardInterrupt where
    it is not handled.

    A second signal ends the process at once with exit code 75, but for SIGHUP, which a terminal
    sends twice. A process that is not `alone` was started by torchrun, which repeats signals: there
    only the first one counts, also afterwards. Under nohup SIGHUP does nothing, unless torchrun
    passes it on.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread may handle signals
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request.requested and number == _HANGUP:
            return
        if request.requested and alone:
            os.write(2, b"runner.py: second signal, ended at once; the same command resumes\n")
            os._exit(STOPPED)
        request.requested = True
        if not request.is_handled:
            raise KeyboardInterrupt

    numbers = list(_SIGNALS)
    if _HANGUP and not (alone and signal.getsignal(_HANGUP) is signal.SIG_IGN):
        numbers.append(_HANGUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if alone else signal.SIG_IGN)
