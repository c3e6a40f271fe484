"""How far a network's confidence is its accuracy: reliability and the expected calibration error
(ECE)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import stats

from report.statistics import LEVEL
from report.tables import Summary

BINS = 15
"""Of equal width, as in Guo et al. (ICML 2017)."""


@dataclass(frozen=True)
class Bins:
    """One run's images by confidence, (BINS,) each: how many, their mean confidence and their
    accuracy (0 to 1)."""

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    terms: np.ndarray
    """(n,) each image's part in the ECE, whose mean is the ECE."""

    @classmethod
    def of(cls, confidence: np.ndarray, correct: np.ndarray) -> Bins:
        place = np.minimum((confidence * BINS).astype(int), BINS - 1)
        count = np.bincount(place, minlength=BINS)
        known = np.maximum(count, 1)
        mean = np.bincount(place, confidence, BINS) / known
        accuracy = np.bincount(place, correct, BINS) / known
        sign = np.sign(mean - accuracy)
        return cls(count, mean, accuracy, sign[place] * (confidence - correct))

    @property
    def ece(self) -> float:
        """Mean distance of confidence and accuracy, weighted by images; 0 to 1."""
        return float(
            np.abs(self.count * (self.confidence - self.accuracy)).sum() / self.count.sum()
        )


@lru_cache(maxsize=1)
def bins(summary: Summary) -> dict[str, list[Bins]]:
    """For each row whose runs all state the probability of their best class, a `Bins` a run."""
    found = {}
    for row in summary.correct:
        runs = [run.predictions for run in summary.study.finished(row) if run.predictions]
        if all(run.p_top1 is not None for run in runs):
            found[row] = [
                Bins.of(run.p_top1.astype(float), run.correct)
                for run in runs
                if run.p_top1 is not None
            ]
    return found


def table(summary: Summary) -> pd.DataFrame:
    """One row a row of the study: ECE and mean confidence minus accuracy, in points, means over
    seeds.

    The interval (95 %) of the ECE is for new seeds and new images; with one seed, for this network
    on new images. Images in a bin by chance make an ECE too large, most so where they are few; that
    is not taken out.
    """
    rows = []
    for row, runs in bins(summary).items():
        values = np.array([100 * run.ece for run in runs])
        low, high = interval(values, 100 * np.stack([run.terms for run in runs]))
        over = [
            float((run.count * (run.confidence - run.accuracy)).sum() / run.count.sum())
            for run in runs
        ]
        rows.append((row, len(runs), values.mean(), low, high, 100 * float(np.mean(over))))
    return pd.DataFrame(rows, columns=["name", "runs", "ece", "low", "high", "overconfidence"])


def interval(values: np.ndarray, terms: np.ndarray) -> tuple[float, float]:
    """Of the mean of (seeds,) values, each the mean of its (seeds, n) terms: seeds and images
    crossed.

    What runs of different seeds share, image by image, is the images' part; the rest is in the
    seeds' spread.
    """
    seeds, images = terms.shape
    mean = float(values.mean())
    if seeds == 1:
        half = float(stats.norm.ppf(1 - LEVEL / 2)) * float(terms.std(ddof=1)) / images**0.5
    else:
        own, both = terms.var(axis=1, ddof=1).sum(), terms.sum(axis=0).var(ddof=1)
        shared = max(0.0, float(both - own) / (seeds * (seeds - 1)))
        by_seeds = (
            float(stats.t.ppf(1 - LEVEL / 2, seeds - 1)) * float(values.std(ddof=1)) / seeds**0.5
        )
        by_images = float(stats.norm.ppf(1 - LEVEL / 2)) * (shared / images) ** 0.5
        half = float(np.hypot(by_seeds, by_images))
    return max(0.0, mean - half), mean + half


def reliability(summary: Summary) -> pd.DataFrame:
    """One row a row of the study and bin that holds images, over all its seeds; 0 to 1."""
    rows = []
    for row, runs in bins(summary).items():
        count = np.sum([run.count for run in runs], axis=0)
        confidence = np.sum([run.count * run.confidence for run in runs], axis=0) / np.maximum(
            count, 1
        )
        accuracy = np.sum([run.count * run.accuracy for run in runs], axis=0) / np.maximum(count, 1)
        for place in np.flatnonzero(count).tolist():
            part = (
                place / BINS,
                (place + 1) / BINS,
                count[place] / len(runs),
                confidence[place],
                accuracy[place],
            )
            rows.append((row, *part))
    return pd.DataFrame(rows, columns=["name", "from", "to", "images", "confidence", "accuracy"])
