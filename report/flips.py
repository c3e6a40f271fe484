"""Test images that most seeds of a step turn from wrong to right, or back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from report import collect, thumbnails
from report.classes import pairs
from report.tables import Summary

SHOWN = 10
"""Images in each strip."""
LISTED = 50
"""Images in the table for each comparison and direction: those that most seeds turned."""


def _shares(summary: Summary, row: str) -> np.ndarray:
    """(images,) share of a row's seeds that are right."""
    found: np.ndarray = summary.correct[row].mean(axis=0)
    return found


@lru_cache(maxsize=1)
def counts(summary: Summary) -> pd.DataFrame:
    """One row a comparison: images that most seeds of one row have right and most of the other
    wrong.

    `by_seed`: how many two seeds of the row differ in (a mean over its pairs of seeds), which is
    what chance does; NaN with one seed.
    """
    rows = []
    for row, after in pairs(summary):
        right, before = _shares(summary, row) > 0.5, _shares(summary, after) > 0.5
        wrong, was_wrong = _shares(summary, row) < 0.5, _shares(summary, after) < 0.5
        forth, back = int((right & was_wrong).sum()), int((wrong & before).sum())
        rows.append((row, after, forth, back, _by_seed(summary.correct[row])))
    return pd.DataFrame(rows, columns=["step", "after", "to_right", "to_wrong", "by_seed"])


def _by_seed(correct: np.ndarray) -> float:
    seeds = len(correct)
    if seeds < 2:
        return float("nan")
    right = correct.sum(
        axis=0
    )  # an image with k of n right differs in k (n - k) of n (n - 1) / 2 pairs
    return float((right * (seeds - right)).sum() / (seeds * (seeds - 1) / 2))


@lru_cache(maxsize=1)
def table(summary: Summary) -> pd.DataFrame:
    """The images of each comparison, at most `LISTED` a direction; shares of seeds that are right,
    before and now."""
    run = next((run.predictions for run in summary.study.runs if run.predictions), None)
    classes = summary.study.dataset.classes
    rows = []
    for row, after in pairs(summary) if run else []:
        assert run is not None
        now, before = _shares(summary, row), _shares(summary, after)
        for direction, turned in (
            ("to right", (now > 0.5) & (before < 0.5)),
            ("to wrong", (now < 0.5) & (before > 0.5)),
        ):
            found = np.flatnonzero(turned)
            found = found[np.argsort(-np.abs(now - before)[found], kind="stable")][:LISTED]
            rows += [
                (
                    row,
                    after,
                    direction,
                    run.listing.images[i],
                    classes[run.label[i]],
                    before[i],
                    now[i],
                )
                for i in found
            ]
    return pd.DataFrame(
        rows, columns=["step", "after", "direction", "image", "class", "right_before", "right_now"]
    )


def strips(summary: Summary) -> dict[str, pd.DataFrame]:
    """By direction, the images that most seeds turned over the whole path; rows of `table`."""
    compared = pairs(summary)
    if not compared:
        return {}
    turned = table(summary)
    whole = turned[(turned["step"] == compared[-1][0]) & (turned["after"] == compared[-1][1])]
    found = {
        direction: own.head(SHOWN) for direction, own in whole.groupby("direction", sort=False)
    }
    return {str(direction): own for direction, own in found.items()}


class Store(Protocol):
    """Decoded images, such as a `data.ImageStore`."""

    @property
    def ids(self) -> Sequence[str]: ...

    def __getitem__(self, index: int, /) -> Any:
        """uint8 tensor (height, width, 3)."""


def keep_images(study: Path, roadmap: str, store: Store) -> None:
    """Put thumbnails of the strips into a study's folder; `store` are its test images.

    Raises:
        ValueError: the study has no run yet.
    """
    found = strips(Summary(collect.read(study, roadmap)))
    place = {name: index for index, name in enumerate(store.ids)}
    shown = [name for own in found.values() for name in own["image"] if name in place]
    if shown:
        thumbnails.keep(
            study, roadmap, {name: thumbnails.jpeg(store[place[name]].numpy()) for name in shown}
        )
