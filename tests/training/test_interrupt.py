"""Stopping on request: at once, in order, with no process left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studies import run_queue
from training.interrupt import STOPPED, Stopped, StopRequest, stop_on_signals

ROOT = Path(__file__).parents[2]


def state_of(process: int) -> str:
    """Z for one that has ended and was not waited for, "" for one that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def assert_gone(process: int) -> None:
    """Within a minute, however busy the machine."""
    end = time.monotonic() + 60
    while state_of(process) not in ("", "Z"):
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            pytest.fail("it outlived the process that it helped")
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_work_that_nobody_could_save(number) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_sets_the_request_where_it_is_handled(number) -> None:
    with stop_on_signals() as stop, stop.handled():
        signal.raise_signal(number)
        assert stop
        with pytest.raises(Stopped):
            list(stop.between([1]))


def test_the_second_signal_ends_the_process_at_once() -> None:
    script = (
        "import os, signal\nfrom training.interrupt import stop_on_signals\n"
        "with stop_on_signals() as stop, stop.handled():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGHUP)  # a terminal repeats it\n"
        "    print('saving', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (STOPPED, "saving\n")
    assert "second signal" in done.stderr


def test_under_nohup_a_lost_terminal_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_under_torchrun_only_the_first_signal_counts() -> None:
    """It sends another one to a process that is stopping."""
    script = (
        "import os, signal\nfrom training.interrupt import stop_on_signals\n"
        "with stop_on_signals(alone=False) as stop, stop.handled():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print(stop.requested)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_stop_between_two_runs_begins_no_other(make_run, stores, execution, capsys) -> None:
    stop = StopRequest()
    stop.requested = True
    run = make_run("3")
    assert run_queue.run_all([run], stores, execution, stop) == STOPPED
    assert "stopped before patchify-stem seed 0" in capsys.readouterr().err
    assert not run.folder.exists()


WORKERS = """
import multiprocessing, torch
from data.augmentation import Augmentation
from data.loader import train_batches
class Store:
    labels = torch.zeros(640, dtype=torch.int64)
    def __len__(self): return 640
    def __getitem__(self, index): return torch.zeros((40, 40, 3), dtype=torch.uint8)
batches = train_batches(Store(), Augmentation(), 32, seed=0, epoch=0, batch_size=4, workers=2)
next(batches), next(batches)
print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
input()
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_workers_end_with_a_process_that_is_killed() -> None:
    """They are put to sleep first: only the kernel can end them then."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WORKERS],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        helpers = [int(word) for word in process.stdout.readline().split()]
        for helper in helpers:
            os.kill(helper, signal.SIGSTOP)
        process.kill()
    assert len(helpers) == 2
    for helper in helpers:
        assert_gone(helper)
