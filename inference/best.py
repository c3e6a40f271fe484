"""Which run is meant where none is named. Reads what runs recorded; free of torch."""

import json
from pathlib import Path

from training.spec import WEIGHTS
from utils.files import read_bytes


def best_run(runs: Path) -> Path:
    """The run that did best on its validation images, of the study in the folder `runs` that
    finished a run last.

    Never chosen by the test images, nor a run without weights, as they come out of a pack.

    Raises:
        ValueError: there is no finished run.
    """
    finished: list[tuple[str, float, Path]] = []
    for result in sorted(runs.glob("*/*/seed-*/result.json")):
        if not (result.parent / WEIGHTS).exists():
            continue
        try:
            epochs = [
                json.loads(line)
                for line in read_bytes(result.parent / "metrics.jsonl").splitlines()
            ]
            top1 = max(float(epoch["validation_top1"]) for epoch in epochs)
            finished.append((str(json.loads(read_bytes(result))["finished"]), top1, result.parent))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):  # damaged: no one's best
            continue
    if not finished:
        raise ValueError(
            f"no run was given and {runs} holds no finished one with weights: give --run DIR, "
            f"{runs}/STUDY/STEP/seed-0"
        )
    study = max(finished)[2].parents[1]
    return max((top1, run) for _, top1, run in finished if run.parents[1] == study)[1]
