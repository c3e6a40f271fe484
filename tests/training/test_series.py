"""Runs one after the other, beside other processes."""

import subprocess
import sys

from training import series
from training.interrupt import StopRequest
from training.study import MADE_AGAIN

HOLD = """
import pathlib, sys
from training.study import one_trainer
with one_trainer(pathlib.Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_process_trains_is_named_and_left_to_it(make_run, stores, execution, capsys) -> None:
    theirs, ours = make_run("12", epochs=2), make_run("13", epochs=2)
    command = [sys.executable, "-c", HOLD, str(theirs.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        (theirs.folder / MADE_AGAIN).touch()  # as if that process makes it again
        steps = {theirs.step, ours.step}
        assert series.carry_out([theirs, ours], stores, execution, StopRequest(), overwrite=steps) == 0
        holder.communicate()
    assert f"is being trained by process {holder.pid} on " in capsys.readouterr().err
    assert ours.result
    assert not theirs.result
    assert (theirs.folder / MADE_AGAIN).exists()
    assert not (ours.folder / MADE_AGAIN).exists()
