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
from report.tables import Summary, link_to_runs
from utils.markdown import amount, signed
from utils.text import listed

NOT_MEASURED = "not measured"
LEAST_CHANGE = 2.0
"""Percent: a cost that changes less is called the same, and no points are divided by it."""


@dataclass(frozen=True)
class Cost:
    """A cost of a run: less is better. `of` gives None where the run's files do not have it."""

    name: str
    title: str
    of: Callable[[Mapping[str, Any]], float | None]
    digits: int = 2


def _image_time(result: Mapping[str, Any]) -> float | None:
    rate = result.get("images_per_second")
    return 1000 / rate if rate else None


def _scaled(key: str, scale: float = 1) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda result: None if result.get(key) is None else result[key] / scale


COSTS = (
    Cost("gflops", "GFLOPs", _scaled("gflops_paper_convention")),
    Cost("mparams", "parameters (M)", _scaled("params", 1e6)),
    Cost("mactivations", "activations (M)", _scaled("activations", 1e6)),
    Cost("train_ms_per_image", "training (ms an image)", _image_time),
    Cost("inference_ms_1", "inference of 1 (ms)", _scaled("inference_ms_1")),
    Cost("inference_ms_64", "inference of 64 (ms)", _scaled("inference_ms_64")),
    Cost("peak_memory_mb", "memory of training (MB)", _scaled("peak_memory_mb")),
    Cost("train_hours", "a run (h)", lambda result: result["seconds"]["total"] / 3600),
)


def table(summary: Summary) -> pd.DataFrame:
    """One row a step with a finished run; costs are means over its runs, NaN where no run has them.

    `front_<cost>`: no other row is at least as accurate for at most this cost, and better in one of
    the two. `change_<cost>`: percent, from the step it changes. `points_per_10_percent_<cost>`: of
    top-1, where both that cost and the accuracy rise; elsewhere there is no price to name.
    """
    steps = [step for step in summary.study.steps if step.name in summary.correct]
    rows = []
    for step in steps:
        runs = summary.study.finished(step.name)
        record = summary.by_step[step.name]
        rows.append(
            {key: record[key] for key in ("number", "name", "after", "runs", "top1", "top1_std")}
            | {"points": record["difference"]}
            | {cost.name: _mean(cost, runs) for cost in COSTS}
        )
    keys = ["number", "name", "after", "runs", "top1", "top1_std", "points"]
    keys += [cost.name for cost in COSTS]
    found = pd.DataFrame(rows, columns=keys).astype({"number": "Int64"})
    before = found.set_index("name").reindex(found["after"]).reset_index(drop=True)
    # A comparison that stopped early keeps its value; later runs, of other comparisons, add none.
    found["points"] = found["points"].fillna(found["top1"] - before["top1"])
    for cost in COSTS:
        found[f"front_{cost.name}"] = front(
            found[cost.name].to_numpy(float), found["top1"].to_numpy(float)
        )
        change = 100 * (found[cost.name] / before[cost.name] - 1)
        found[f"change_{cost.name}"] = change
        bought = (change >= LEAST_CHANGE) & (found["points"] > 0)
        found[f"points_per_10_percent_{cost.name}"] = (10 * found["points"] / change).where(bought)
    return found


def _mean(cost: Cost, runs: tuple[RunRecord, ...]) -> float:
    values = [
        value
        for run in runs
        if run.result is not None and (value := cost.of(run.result)) is not None
    ]
    return float(np.mean(values)) if values else float("nan")


def front(cost: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """Which of n points no other dominates, bool (n,); one without a cost is on no front."""
    known = ~np.isnan(cost)
    cheaper = cost[:, None] <= cost[None]
    better = accuracy[:, None] >= accuracy[None]
    strictly = (cost[:, None] < cost[None]) | (accuracy[:, None] > accuracy[None])
    found: np.ndarray = known & ~(cheaper & better & strictly & known[:, None]).any(axis=0)
    return found


def known(costs: pd.DataFrame) -> tuple[Cost, ...]:
    """Those that some run of the study has."""
    return tuple(cost for cost in COSTS if costs[cost.name].notna().any())


def devices(summary: Summary) -> tuple[str, ...]:
    """What the times were measured on."""
    return tuple(
        sorted(
            {str(run.result.get("device", "unknown")) for run in summary.study.runs if run.result}
        )
    )


def section(summary: Summary) -> dict[str, Any]:
    """What the page says of costs: two tables as rows of cells, and what the times were measured
    on."""
    costs = table(summary)
    rows, changes = [], []
    for row in costs.to_dict("records"):
        name = row["name"]
        label = link_to_runs(name, None if pd.isna(row["number"]) else f"{row['number']} {name}")
        cells = [
            NOT_MEASURED if pd.isna(row[cost.name]) else amount(row[cost.name]) for cost in COSTS
        ]
        marked = [
            f"**{cell}**" if row[f"front_{cost.name}"] else cell for cost, cell in zip(COSTS, cells)
        ]
        rows.append((label, f"{row['top1']:.2f}", *marked))
        if not pd.isna(row["points"]):
            changes.append((label, signed(row["points"]), *(_change(row, cost) for cost in COSTS)))
    titles = [cost.title for cost in COSTS]
    return {"titles": titles, "rows": rows, "changes": changes, "devices": listed(devices(summary))}


def _change(row: Mapping[str, Any], cost: Cost) -> str:
    """`+12 % (0.31)`: the change, and the points bought for each 10 % more of it."""
    change, price = row[f"change_{cost.name}"], row[f"points_per_10_percent_{cost.name}"]
    if pd.isna(change):
        return NOT_MEASURED
    text = f"{signed(change, 0)} %"
    return text if pd.isna(price) else f"{text} ({price:.2f})"
