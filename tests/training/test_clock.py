"""Time is booked on what it was spent on."""

import time

import pytest

from training.clock import Clock
from training.interrupt import Stopped


def test_a_phase_that_an_exception_leaves_keeps_its_time(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[-1])
    clock = Clock({"data": 5.0})

    def evaluate() -> None:
        with clock("evaluation"):
            now.append(103.0)
            raise Stopped

    with pytest.raises(Stopped):
        evaluate()
    now.append(104.0)
    seconds = clock.read()
    assert (seconds["data"], seconds["evaluation"], seconds["other"]) == (5, 3, 1)
    assert sum(seconds.values()) == 9
