"""Output of a command that goes on when its reader has left (`runner.py all | head -1`)."""

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from typing import Any, TextIO


class Patient:
    """A text stream that drops its output once its pipe or terminal is gone, and escapes what its
    encoding lacks."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    @contextlib.contextmanager
    def _drop_when_closed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # EIO: the terminal is gone
                raise
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def write(self, text: str) -> int:
        with self._drop_when_closed():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._drop_when_closed():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
