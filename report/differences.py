"""What the page says of where rows differ: classes, confusion, calibration and images that
turned."""

from __future__ import annotations

from typing import Any

import pandas as pd

from report import calibration, classes
from report.tables import Summary, link_to_runs
from utils.markdown import NOTHING, plain, signed

SHOWN = 5
"""Classes most gained and most lost over the whole path."""


def section(summary: Summary) -> dict[str, Any]:
    """The variables of differences.md.j2; `compared` is False where no two rows have runs."""
    changes = classes.table(summary) if classes.pairs(summary) else pd.DataFrame()
    whole = classes.pairs(summary)[-1] if len(changes) else None
    ends = (
        changes[(changes["step"] == whole[0]) & (changes["after"] == whole[1])]
        if whole
        else changes
    )
    ranked = ends.sort_values("points", ascending=False, kind="stable") if len(ends) else ends
    return {
        "compared": bool(len(changes)),
        "last": classes.last(summary),
        "whole": whole,
        "covers_seeds": bool(len(changes)) and bool(changes["covers_seeds"].all()),
        "gained": _classes(ranked[ranked["points"] > 0].head(SHOWN)) if len(ranked) else [],
        "lost": _classes(ranked[ranked["points"] < 0].tail(SHOWN)[::-1]) if len(ranked) else [],
        "steps": _steps(changes) if len(changes) else [],
        "confused": [
            (
                plain(row["class"]),
                plain(row["taken_for"]),
                f"{row['images']:.1f}",
                f"{row['percent']:.1f} %",
            )
            for row in classes.confusion(summary).head(10).to_dict("records")
        ],
        "calibration": [
            (
                link_to_runs(row["name"]),
                f"{row['ece']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
                signed(row["overconfidence"]),
            )
            for row in calibration.table(summary).to_dict("records")
        ],
        "changed": [
            (
                link_to_runs(row["step"]),
                link_to_runs(row["after"]),
                row["to_right"],
                row["to_wrong"],
                NOTHING if pd.isna(row["between_seeds"]) else f"{row['between_seeds']:.0f}",
            )
            for row in classes.changed_predictions(summary).to_dict("records")
        ],
    }


def _classes(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    return [
        (plain(row["class"]), f"{row['top1_after']:.1f}", f"{row['top1']:.1f}", _change(row))
        for row in rows.to_dict("records")
    ]


def _change(row: dict[str, Any]) -> str:
    return f"{signed(row['points'], 1)} [{signed(row['low'], 1)}, {signed(row['high'], 1)}]"


def _steps(changes: pd.DataFrame) -> list[tuple[str, ...]]:
    """For each comparison its most gained and most lost class, where any did so."""
    rows: list[tuple[str, ...]] = []
    for (step, after), mine in changes.groupby(["step", "after"], sort=False):
        best, worst = (
            mine.loc[at].to_dict() for at in (mine["points"].idxmax(), mine["points"].idxmin())
        )
        clear = int(((mine["low"] > 0) | (mine["high"] < 0)).sum())
        gained, lost = (
            (plain(one["class"]), _change(one)) if one["points"] * sign > 0 else (NOTHING, NOTHING)
            for one, sign in ((best, 1), (worst, -1))
        )
        found = *gained, *lost
        rows.append((link_to_runs(step), link_to_runs(after), *found, str(clear)))
    return rows
