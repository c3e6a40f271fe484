"""What a run's time was spent on."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

UPDATE_PHASES = ("data", "forward", "backward", "optimizer")
"""Of an update, in its order."""
PHASES = (*UPDATE_PHASES, "evaluation", "other")


class Clock:
    """Wall time by phase, in seconds."""

    def __init__(self, before: Mapping[str, float] | None = None) -> None:
        """Goes on from what `read` gave `before`."""
        self._seconds = dict.fromkeys(PHASES, 0.0) | dict(before or {})
        self._started = time.perf_counter() - sum(self._seconds.values())

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Book the block's time on `phase`, however the block is left."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - started

    def read(self) -> dict[str, float]:
        """Seconds by phase so far; "other" is what no phase claimed."""
        claimed = sum(self._seconds[phase] for phase in PHASES[:-1])
        return {**self._seconds, "other": time.perf_counter() - self._started - claimed}


def of_updates(seconds: Mapping[str, float]) -> float:
    """The part of such seconds that updates took, their images included."""
    return sum(seconds[phase] for phase in UPDATE_PHASES)
