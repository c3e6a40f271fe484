"""TensorBoard's files of events, written without torch."""

import io
import os
import socket
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class EventLog:
    """TensorBoard events of a run, on disk as soon as they are told.

    torch's own writer works in a thread, where a full disk ends in a traceback and the run does not
    learn of it.
    """

    def __init__(self, folder: Path, update: int = 0, at: float | None = None) -> None:
        """Begin a file of events; those from `update` on that an interrupted process wrote are
        hidden.

        `at`: when all that is told happened, in seconds since 1970, for files that are to come out
        equal; else now.
        """
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # tensorboard imports what setuptools and numpy call deprecated
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        self._events, self._summaries, self._writer, self._at = (
            event_pb2,
            summary_pb2,
            RecordWriter,
            at,
        )
        # They are read in the order of their names, processes may begin within a second of each
        # other, and the clock of the machine that began a run may be minutes ahead of that of the
        # one that goes on with it.
        before = [
            ".".join(path.name.split(".")[3:5]) for path in folder.glob("events.out.tfevents.*.*.*")
        ]
        begun = (
            self._time()
            if at is not None
            else max([time.time(), *(float(number) + 1e-6 for number in before)])
        )
        who = "0" if at is not None else f"{socket.gethostname()}.{os.getpid()}.0"
        name = f"events.out.tfevents.{begun:.6f}.{who}"
        self._path = folder / name
        self._write(file_version="brain.Event:2")
        if update:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(step=update, session_log=start)

    def add_scalars(self, values: Mapping[str, float], update: int) -> None:
        rows = [
            self._summaries.Summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
        ]
        for row in rows:  # an event each, as torch writes them
            self.add(self._summaries.Summary(value=[row]), update)

    def add(self, summary: Any, update: int = 0) -> None:
        """A summary as a plugin of TensorBoard made it."""
        self._write(step=update, summary=summary)

    def _time(self) -> float:
        return time.time() if self._at is None else self._at

    def _write(self, **fields: Any) -> None:
        record = io.BytesIO()
        self._writer(record).write(
            self._events.Event(wall_time=self._time(), **fields).SerializeToString()
        )
        try:
            with self._path.open("ab") as file:
                file.write(record.getvalue())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error
