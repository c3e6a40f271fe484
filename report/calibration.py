"""Calibration: how well a network's confidence matches its accuracy."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from report.statistics import LEVEL
from report.tables import Summary

BINS = 15
"""Of equal width, as in Guo et al. (ICML 2017)."""


class Bins(NamedTuple):
    """A run's images by confidence, (BINS,) each: their number, mean confidence and accuracy."""

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    terms: np.ndarray
    """(n,) each image's part in the expected calibration error (ECE), which is their mean."""


def bin_run(confidence: np.ndarray, correct: np.ndarray) -> Bins:
    """Sort a run's images, (n,) each, into bins of confidence, 0 to 1."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    known = np.maximum(count, 1)
    mean = np.bincount(place, confidence, BINS) / known
    accuracy = np.bincount(place, correct, BINS) / known
    return Bins(count, mean, accuracy, np.sign(mean - accuracy)[place] * (confidence - correct))


@lru_cache(maxsize=1)
def _bins(summary: Summary) -> dict[str, list[Bins]]:
    """The bins of each step whose runs all state the probability of their best class."""
    bins = {}
    for step, runs in summary.runs_of_steps.items():
        known = [run.predictions for run in runs if run.predictions]
        own = [
            bin_run(one.p_top1.astype(float), one.correct)
            for one in known
            if one.p_top1 is not None
        ]
        if len(own) == len(runs):
            bins[step] = own
    return bins


def table(summary: Summary) -> pd.DataFrame:
    """One row for each step: ECE and mean confidence minus accuracy, in points, means over seeds.

    The 95 % interval of the ECE is for new seeds and new images; with one seed, for this network on
    new images. Chance in bins of few images makes an ECE too large; that is not corrected.
    """
    rows = []
    for name, runs in _bins(summary).items():
        terms = 100 * np.stack([run.terms for run in runs])
        low, high = interval(terms)
        over = [np.average(run.confidence - run.accuracy, weights=run.images) for run in runs]
        rows.append((name, len(runs), terms.mean(), low, high, 100 * float(np.mean(over))))
    return pd.DataFrame(rows, columns=["name", "runs", "ece", "low", "high", "overconfidence"])


def interval(terms: np.ndarray) -> tuple[float, float]:
    """The interval of the mean of (seeds, n) terms, with seeds and images crossed.

    The images' part is what runs of different seeds share, image by image; the rest is in the
    spread between seeds.
    """
    seeds, images = terms.shape
    values, z = terms.mean(axis=1), float(stats.norm.isf(LEVEL / 2))
    if seeds == 1:
        half = z * float(terms.std(ddof=1)) / images**0.5
    else:
        own, both = terms.var(axis=1, ddof=1).sum(), terms.sum(axis=0).var(ddof=1)
        shared = max(0.0, float(both - own) / (seeds * (seeds - 1)))
        t = float(stats.t.isf(LEVEL / 2, seeds - 1))
        half = np.hypot(t * values.std(ddof=1) / seeds**0.5, z * (shared / images) ** 0.5)
    mean = float(values.mean())
    return max(0.0, mean - float(half)), mean + float(half)


def reliability(summary: Summary) -> pd.DataFrame:
    """One row for each step and bin that holds images, over all its seeds; 0 to 1."""
    rows = []
    for name, runs in _bins(summary).items():
        counts = np.array([run.images for run in runs])
        total = np.maximum(counts.sum(axis=0), 1)
        confidence, accuracy = (
            (counts * np.array([getattr(run, part) for run in runs])).sum(axis=0) / total
            for part in ("confidence", "accuracy")
        )
        for place in np.flatnonzero(counts.sum(axis=0)).tolist():
            images = counts[:, place].mean()
            edges = place / BINS, (place + 1) / BINS
            rows.append((name, *edges, images, confidence[place], accuracy[place]))
    return pd.DataFrame(rows, columns=["name", "from", "to", "images", "confidence", "accuracy"])
