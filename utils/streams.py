"""What is told while a run goes on, to a reader who may leave."""

import os
from typing import Any, TextIO


class Patient:
    """A stream of text that goes on when its reader has left (`runner.py all | head -1`); what
    comes then is dropped.

    A study of days does not end because the terminal or the pipe that showed its progress is gone.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
