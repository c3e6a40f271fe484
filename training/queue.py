"""Runs one after the other: finished ones are left alone, unfinished ones resumed."""

import sys
from collections.abc import Collection, Sequence

from training import records
from training.interrupt import Stopped, stop_on_signals
from training.loop import NonFinite, train
from training.run import Execution, Run, Stores
from training.study import one_trainer

DONE, FAILED, STOPPED = 0, 1, 75
"""Exit codes."""


def carry_out(runs: Sequence[Run], stores: Stores, execution: Execution, overwrite: Collection[str] = ()) -> int:
    """Train `runs`; those of steps named in `overwrite` are made again. One that diverges does not stop the others.

    Returns:
        The exit code: done, a run failed, or stopped on request and resumable.
    """
    code = DONE
    with stop_on_signals() as stop:
        for run in runs:
            with one_trainer(run.folder):
                if run.step in overwrite:
                    records.clear(run.folder)
                if result := run.result:
                    again = f"--overwrite {run.step} makes it again"
                    print(f"{run.title}: finished, top-1 {result['top1']:.2f} % ({again})", flush=True)
                    continue
                try:
                    train(run, stores, execution, stop)
                except Stopped as stopped:
                    print(f"runner.py: {stopped}", file=sys.stderr)
                    return STOPPED
                except NonFinite as failure:
                    print(f"runner.py: {failure}", file=sys.stderr)
                    code = FAILED
    return code
