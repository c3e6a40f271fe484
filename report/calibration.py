"""Calibration: how well a network's confidence matches its accuracy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from report.statistics import LEVEL
from report.tables import Summary

BINS = 15
"""Of equal width, as in Guo et al. (ICML 2017)."""


def ece_terms(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """(n,) each image's part in the expected calibration error (ECE), which is their mean."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    excess = np.bincount(place, confidence - correct, BINS)  # sum over each bin's images
    terms: np.ndarray = np.sign(excess)[place] * (confidence - correct)
    return terms


def table(summary: Summary) -> pd.DataFrame:
    """One row for each step with finished runs: ECE and mean confidence minus accuracy, in points,
    means over seeds.

    The 95 % interval of the ECE is for new seeds and new images; with one seed, for this network on
    new images. Chance in bins of few images makes an ECE too large; that is not corrected.
    """
    rows = []
    for name, runs in summary.runs_of_steps.items():
        own = [
            (run.predictions.p_top1.astype(float), run.predictions.correct)
            for run in runs
            if run.predictions
        ]
        terms = 100 * np.stack([ece_terms(confidence, correct) for confidence, correct in own])
        over = 100 * float(np.mean([(confidence - correct).mean() for confidence, correct in own]))
        rows.append((name, len(runs), terms.mean(), *interval(terms), over))
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


def most_telling(table: pd.DataFrame, summary: Summary) -> list[str]:
    """The rows that the page shows: the path's ends, the best and the worst."""
    if table.empty:
        return []
    ends = [step.name for step in (*summary.path[:1], *summary.path[-1:])]
    by_error = table.sort_values("ece", kind="stable")["name"]
    return [*ends, by_error.iloc[0], by_error.iloc[-1]]
