"""All runs of a study for TensorBoard's HParams view: their varied fields and results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import costs
from report.collect import RunRecord
from report.tables import Summary
from utils.text import flat

FOLDER = "tensorboard"


def write(summary: Summary, folder: Path) -> None:
    """Write a folder below `folder` for each finished run, named as its own."""
    from torch.utils.tensorboard.writer import SummaryWriter

    runs = summary.study.all_finished
    varied = varied_fields(runs)
    with SummaryWriter(str(folder)) as writer:
        for run in runs:
            assert run.result is not None
            known = {f"cost/{cost.name}": cost.of(run.result) for cost in costs.COSTS}
            metrics = {"test/top1": run.result["top1"], "test/top5": run.result["top5"], **known}
            writer.add_hparams(
                varied[run.name],
                {tag: math.nan if value is None else value for tag, value in metrics.items()},
                run_name=run.name,
                global_step=0,
            )


def varied_fields(runs: Sequence[RunRecord]) -> dict[str, dict[str, Any]]:
    """For each run by its name: its step, its seed, and the fields of architecture and recipe that
    differ between runs.

    A field that is a number in every run stays one; any other is text.
    """
    fields = {
        run.name: flat({part: run.identity.get(part) or {} for part in ("architecture", "recipe")})
        for run in runs
    }
    varied: dict[str, dict[str, Any]] = {
        run.name: {"step": run.step, "seed": run.seed} for run in runs
    }
    for name in dict.fromkeys(name for known in fields.values() for name in known):
        values = {run: known.get(name) for run, known in fields.items()}
        if len(set(map(_text, values.values()))) == 1:
            continue
        numbers = all(type(value) in (int, float) for value in values.values())
        for run, value in values.items():
            varied[run][name] = value if numbers else _text(value)
    return varied


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return "none" if value is None else str(value)
