"""What a step's accuracy costs: FLOPs, parameters, activations, measured times and memory, each
with its Pareto front.

FLOPs flatter depthwise networks, which move much memory for each of them; so they are never shown
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from report.collect import RunRecord
from report.tables import Summary


@dataclass(frozen=True)
class Cost:
    """A cost of a run: less is better. `of` gives None where the run's files do not have it."""

    name: str
    title: str
    of: Callable[[Mapping[str, Any]], float | None]
    shown: bool = True
    """Whether the page shows it; the CSV file has all."""


def _training_time(result: Mapping[str, Any]) -> float | None:
    rate = result.get("images_per_second")
    return 1000 / rate if rate else None


def _scaled(key: str, scale: float = 1) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda result: None if result.get(key) is None else result[key] / scale


COSTS = (
    Cost("gflops", "GFLOPs", _scaled("gflops_paper_convention")),
    Cost("mparams", "parameters (M)", _scaled("params", 1e6)),
    Cost("mactivations", "activations (M)", _scaled("activations", 1e6)),
    Cost("train_ms_per_image", "training (ms an image)", _training_time),
    Cost("inference_ms_1", "inference of 1 (ms)", _scaled("inference_ms_1"), shown=False),
    Cost("inference_ms_64", "inference of 64 (ms)", _scaled("inference_ms_64"), shown=False),
    Cost("peak_memory_mb", "memory (MB)", _scaled("peak_memory_mb")),
    Cost("train_hours", "a run (h)", lambda result: result["seconds"]["total"] / 3600, shown=False),
)


def table(summary: Summary) -> pd.DataFrame:
    """One row a step with a finished run; costs are medians over its runs, for other programs
    disturb some of them. NaN where no run has them.

    `front_<cost>`: no other row is at least as accurate for at most this cost, and better in one of
    the two. `change_<cost>`: percent, from the step it changes. `points` is the judged difference.
    """
    columns = ["number", "name", "after", "runs", "top1", "top1_std", "difference"]
    found = summary.steps.loc[summary.steps["runs"] > 0, columns].reset_index(drop=True)
    found = found.rename(columns={"difference": "points"})
    for cost in COSTS:
        medians = [_median(cost, summary.study.finished(name)) for name in found["name"]]
        found[cost.name] = np.array(medians, dtype=float)
    before = found.set_index("name").reindex(found["after"]).reset_index(drop=True)
    accuracy = found["top1"].to_numpy(float)
    for cost in COSTS:
        found[f"front_{cost.name}"] = front(found[cost.name].to_numpy(float), accuracy)
        found[f"change_{cost.name}"] = 100 * (found[cost.name] / before[cost.name] - 1)
    return found


def _median(cost: Cost, runs: tuple[RunRecord, ...]) -> float:
    values = [cost.of(run.result) for run in runs if run.result is not None]
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else float("nan")


def front(cost: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Which of n points no other dominates, bool (n,); one without a cost is on no front."""
    known = ~np.isnan(cost)
    cheaper = cost[:, None] <= cost[None]
    better = accuracy[:, None] >= accuracy[None]
    strictly = (cost[:, None] < cost[None]) | (accuracy[:, None] > accuracy[None])
    found: np.ndarray = known & ~(cheaper & better & strictly & known[:, None]).any(axis=0)
    return found
