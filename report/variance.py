"""What a study's runs say of their noise: seeds and test images as crossed random effects, taken
apart.

A run's accuracy is its row's, plus what its seed adds to every image, plus what it is right or
wrong in by chance, image by image. On a fixed set of images the last two are one thing, the spread
between seeds; so for new images only what a row's seeds agree in, image by image, is added, and
nothing is counted twice.

All that is needed of the predictions is each run's accuracy and each pair of runs' covariance over
images. Units are points of top-1 and their squares throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import optimize, special, stats

LEVEL = 0.05
PAIR_FROM = 4
"""So many rows pair by seed without asking whether it helps: it costs one row's degrees of
freedom."""
PRIOR = 6
"""A row that spreads more than the others has the pooled spread count for so many degrees of
freedom of its own."""
CLEAR = 0.01
"""Fewer rows pair where the correlation is clear at this level: at 5 %, choosing costs 1.5 points
of coverage."""
_LEAST = 1e-80
_BLOCK = 8192  # images at a time: 100 runs of them take 3 MB


@dataclass(frozen=True)
class Runs:
    """A row's runs: `correct` is 0 or 1 (seeds, images), the images in the same order for all
    rows."""

    seeds: tuple[int, ...]
    correct: np.ndarray
    digests: tuple[str, ...] = ()
    """What each run is known by: of equal digests are one run, which rows share. Without them every
    run is its own."""

    def __post_init__(self) -> None:
        assert self.correct.ndim == 2
        assert len(self.digests) in (0, len(self.seeds))
        assert len(self.seeds) == len(self.correct) == len(set(self.seeds)) > 0


@dataclass(frozen=True)
class Measured:
    """The runs of a study as numbers; N runs, in any order.

    `accuracy` is in points, (N,); `covariance` is over images, (N, N), in squared points an image.
    `run` is equal for entries that are one and the same run, which rows share.
    """

    rows: tuple[str, ...]
    row: np.ndarray
    seed: np.ndarray
    run: np.ndarray
    accuracy: np.ndarray
    covariance: np.ndarray
    images: int

    @classmethod
    def of(cls, runs: Mapping[str, Runs]) -> Measured:
        arrays = [own.correct for own in runs.values()]
        images = arrays[0].shape[1]
        assert all(array.shape[1] == images for array in arrays)
        total = sum(map(len, arrays))
        both_right = np.zeros((total, total))
        for start in range(0, images, _BLOCK):
            # Sums of ones below 2 ** 24 are exact in float32, whatever the order of summation.
            block = np.concatenate([array[:, start : start + _BLOCK] for array in arrays]).astype(
                np.float32
            )
            both_right += block @ block.T
        right = np.diag(both_right)
        covariance = (both_right - np.outer(right, right) / images) * (100**2 / max(1, images - 1))
        known = [
            (digest or (row, seed))
            for row, own in runs.items()
            for digest, seed in zip(own.digests or [""] * len(own.seeds), own.seeds, strict=True)
        ]
        number = {one: index for index, one in enumerate(dict.fromkeys(known))}
        return cls(
            tuple(runs),
            np.repeat(np.arange(len(arrays)), [len(array) for array in arrays]),
            np.concatenate([np.asarray(own.seeds, dtype=np.int64) for own in runs.values()]),
            np.array([number[one] for one in known]),
            100 * right / images,
            covariance,
            images,
        )

    def of_seeds(self, seeds: Sequence[int]) -> Measured:
        """Only the runs of these seeds; rows that have none of them are gone."""
        return self.some(np.isin(self.seed, seeds))

    def some(self, kept: np.ndarray) -> Measured:
        """Only the runs where `kept`, bool (N,), is true."""
        index = np.flatnonzero(kept)
        left, row = np.unique(self.row[index], return_inverse=True)
        return Measured(
            tuple(self.rows[i] for i in left),
            row,
            self.seed[index],
            self.run[index],
            self.accuracy[index],
            self.covariance[np.ix_(index, index)],
            self.images,
        )

    def seeds_of(self, row: str) -> tuple[int, ...]:
        if row not in self.rows:
            return ()
        return tuple(int(seed) for seed in self.seed[self.row == self.rows.index(row)])


@dataclass(frozen=True)
class Uncertainty:
    """Variance of an estimate in squared points, by where it comes from; `freedom` are those of the
    seeds' part.

    `orders`, of decisions whose average effect is taken over so many sampled ones, is 0 elsewhere.
    """

    seeds: float
    freedom: float
    images: float
    orders: float = 0.0
    orders_freedom: float = math.inf

    @property
    def variance(self) -> float:
        return self.seeds + self.images + self.orders

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.variance)

    def reach(self, tail: float) -> float:
        """How far from the truth the estimate is, on one side, with the probability `tail`.

        Student's quantile for what seeds do and the normal one for images, as in Cochran's
        approximation; Satterthwaite's covers 92 % instead of 95 % for two rows of two seeds, for it
        trusts a small spread.
        """
        parts = (
            (self.seeds, self.freedom),
            (self.images, math.inf),
            (self.orders, self.orders_freedom),
        )
        square = sum(part * _quantile(freedom, tail) ** 2 for part, freedom in parts if part)
        return math.copysign(math.sqrt(square), 0.5 - tail)

    def tail(self, distance: float) -> float:
        """The probability that `reach` turns into `distance`: a one-sided p-value, of 1e-80 or
        more."""
        if self.error == 0:
            return 0.5 if distance == 0 else _LEAST if distance > 0 else 1.0
        if distance < 0:
            return 1 - self.tail(-distance)
        least = min(self.freedom if self.seeds else math.inf, self.orders_freedom)
        low = max(float(special.ndtr(-distance / self.error)), _LEAST)
        high = (
            max(float(special.stdtr(least, -distance / self.error)), low)
            if math.isfinite(least)
            else low
        )
        if high < low * (1 + 1e-9) or self.reach(low) < distance or self.reach(high) > distance:
            return low if self.reach(low) < distance else high
        bounds = math.log(low) - 1e-6, math.log(high) + 1e-6
        found = optimize.brentq(
            lambda p: self.reach(math.exp(p)) - distance, *bounds, xtol=1e-9, rtol=1e-9
        )
        return math.exp(found)


def _quantile(freedom: float, tail: float) -> float:
    return float(special.ndtri(tail) if math.isinf(freedom) else special.stdtrit(freedom, tail))


@dataclass(frozen=True)
class SameSeed:
    """How far the same seed moves rows together: the intraclass correlation of rows within
    seeds."""

    correlation: float
    low: float
    high: float
    used: bool
    """Whether seeds are paired, so that what they share is not noise of a difference."""


@dataclass(frozen=True)
class VarianceComponents:
    """The variance components of a study, fitted once; estimates of any contrast of rows come from
    it."""

    measured: Measured

    @cached_property
    def counts(self) -> np.ndarray:
        """Runs of each row, (rows,)."""
        return np.bincount(self.measured.row, minlength=len(self.measured.rows))

    @cached_property
    def levels(self) -> np.ndarray:
        """Mean accuracy of each row, (rows,)."""
        found: np.ndarray = np.bincount(self.measured.row, self.measured.accuracy) / self.counts
        return found

    @cached_property
    def _distinct(self) -> np.ndarray:
        """The first entry of each run: one that rows share is one run. In order of their
        numbers."""
        return np.unique(self.measured.run, return_index=True)[1]

    @cached_property
    def _several(self) -> np.ndarray:
        """The runs of rows with more than one; a run that rows share counts for the first."""
        found = np.sort(self._distinct)
        kept: np.ndarray = found[self.counts[self.measured.row[found]] > 1]
        return kept

    @cached_property
    def _unpaired(self) -> tuple[np.ndarray, np.ndarray]:
        return self._residuals(_dummies(self.measured.row[self._several]))

    @cached_property
    def _paired(self) -> tuple[np.ndarray, np.ndarray]:
        row, seed = self.measured.row[self._several], self.measured.seed[self._several]
        return self._residuals(np.hstack([_dummies(row), _dummies(seed)]))

    def _residuals(self, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals of the accuracies and each one's share of the degrees of freedom, both
        (runs,)."""
        basis, values, _ = np.linalg.svd(design, full_matrices=False)
        basis = basis[:, values > 1e-9 * values[0]] if len(values) else basis
        y = self.measured.accuracy[self._several]
        return y - basis @ (basis.T @ y), 1 - (basis**2).sum(axis=1)

    @cached_property
    def _seed_effect(self) -> tuple[float, float, float, float, float]:
        """Mean squares of seeds and of what is left, their degrees of freedom, and rows a seed;
        zeros if unknown."""
        if not len(self._several):
            return 0.0, 0.0, 0.0, 0.0, 0.0
        (loose, loose_share), (tight, tight_share) = self._unpaired, self._paired
        within = round(float(tight_share.sum()))
        between = round(float(loose_share.sum())) - within
        if within < 1 or between < 1:
            return 0.0, 0.0, 0.0, 0.0, 0.0
        rest = float((tight**2).sum())
        explained = max(0.0, float((loose**2).sum()) - rest)
        rows_a_seed = float(loose_share.sum()) / between
        return explained / between, rest / within, between, within, rows_a_seed

    @cached_property
    def same_seed(self) -> SameSeed | None:
        """Measured in all rows with several seeds; None where no two rows share two seeds, or
        nothing varies."""
        between, rest, upper, lower, rows = self._seed_effect
        if not lower or not rest:
            return None
        ratios = [
            between / rest / factor
            for factor in (
                1.0,
                stats.f.ppf(1 - LEVEL / 2, upper, lower),
                stats.f.ppf(LEVEL / 2, upper, lower),
            )
        ]
        found, low, high = ((ratio - 1) / (ratio - 1 + rows) for ratio in ratios)
        several = len(np.unique(self.measured.row[self._several]))
        clear = not CLEAR / 2 < stats.f.sf(between / rest, upper, lower) < 1 - CLEAR / 2
        return SameSeed(float(found), float(low), float(high), several >= PAIR_FROM or clear)

    @property
    def _is_paired(self) -> bool:
        return self.same_seed is not None and self.same_seed.used

    @cached_property
    def freedom(self) -> float:
        """Degrees of freedom of the pooled spread between seeds; 0 where no row has two."""
        if not len(self._several):
            return 0.0
        return float((self._paired if self._is_paired else self._unpaired)[1].sum())

    @cached_property
    def shared(self) -> float:
        """Variance of what a seed adds to all rows alike; 0 if seeds are not paired."""
        between, rest, _, _, rows = self._seed_effect
        return max(0.0, (between - rest) / rows) if self._is_paired else 0.0

    @cached_property
    def spread(self) -> np.ndarray:
        """Variance of each row's seeds on these images beside `shared`, (rows,); empty if no row
        has two.

        One for all rows, as a row's own over few seeds says next to nothing; but of a row that
        spreads more, its own is drawn towards the pooled one no further than `PRIOR` degrees of
        freedom take it.
        """
        if not self.freedom:
            return np.empty(0)
        residuals, shares = self._paired if self._is_paired else self._unpaired
        row = self.measured.row[self._several]
        squares = np.bincount(row, residuals**2, minlength=len(self.counts))
        freedom = np.bincount(row, shares, minlength=len(self.counts))
        pooled = squares.sum() / freedom.sum()
        floor = (100 / self.measured.images) ** 2  # an accuracy is known to an image
        found: np.ndarray = np.maximum(
            (PRIOR * pooled + squares) / (PRIOR + freedom), max(pooled, floor)
        )
        return found

    @cached_property
    def of_images(self) -> np.ndarray:
        """Covariance over images of what rows are, apart from their seeds, (rows, rows), squared
        points an image.

        From pairs of runs of different seeds only, so that what runs do by chance is not in it. A
        row with one seed has none, and keeps that chance: its interval errs on the wide side.
        """
        measured = self.measured
        members = _dummies(measured.row)
        differ = (measured.seed[:, None] != measured.seed[None, :]).astype(float)
        pairs = members.T @ differ @ members
        sums = members.T @ (differ * measured.covariance) @ members
        every = members.T @ measured.covariance @ members / np.outer(self.counts, self.counts)
        found: np.ndarray = np.where(pairs > 0, sums / np.maximum(pairs, 1), every)
        return found

    def weights(self, of_rows: Mapping[str, float]) -> np.ndarray:
        """A contrast as an array, (rows,). Raises KeyError where a row has no run."""
        found = np.zeros(len(self.counts))
        place = {row: index for index, row in enumerate(self.measured.rows)}
        for row, weight in of_rows.items():
            found[place[row]] = weight
        return found

    def points(self, weights: np.ndarray) -> float:
        """A contrast of the rows' levels; (rows,) of weights."""
        return float(weights @ self.levels)

    def these_images(self, weights: np.ndarray) -> Uncertainty | None:
        """Of a contrast, were the study done again with new seeds on these images; None if no row
        has two."""
        if not self.freedom:
            return None
        per_run = self._per_run(weights)
        # A run that rows share varies once, by the sum of what it counts in them.
        counted = per_run @ _dummies(self.measured.run)
        own = float(counted**2 @ self.spread[self.measured.row[self._distinct]])
        _, place = np.unique(self.measured.seed, return_inverse=True)
        unbalanced = float((np.bincount(place, per_run) ** 2).sum()) * self.shared
        freedom = self.freedom
        if unbalanced > 1e-12 * own:  # Satterthwaite's, of a sum of two estimates
            freedom = (own + unbalanced) ** 2 / (
                own**2 / freedom + unbalanced**2 / self._seed_effect[2]
            )
        return Uncertainty(own + unbalanced, freedom, 0.0)

    def new_images(self, weights: np.ndarray) -> Uncertainty | None:
        """Of a contrast, were the study done again with new seeds on new images."""
        seeds = self.these_images(weights)
        if seeds is None:
            return None
        images = max(0.0, float(weights @ self.of_images @ weights)) / self.measured.images
        least = 2 * (100 / self.measured.images) ** 2 - seeds.seeds
        return Uncertainty(seeds.seeds, seeds.freedom, max(images, least))

    def covariance_of_levels(self, question: str) -> np.ndarray:
        """Of the rows' levels over new seeds on these images or, for "new", on new ones, (rows,
        rows)."""
        members = _dummies(self.measured.row) / self.counts
        seeds = (self.measured.seed[:, None] == self.measured.seed[None, :]).astype(float)
        alone = _dummies(self.measured.run).T @ members  # (distinct runs, rows)
        own = alone.T @ (self.spread[self.measured.row[self._distinct]][:, None] * alone)
        found: np.ndarray = own + self.shared * (members.T @ seeds @ members)
        return found + self.of_images / self.measured.images if question == "new" else found

    def these_runs(self, weights: np.ndarray) -> Uncertainty:
        """Of a contrast of these very networks on new images: says nothing of other seeds.

        With one image won and one lost added, so that a handful is never certain (Bonett and Price
        2012).
        """
        per_run = self._per_run(weights)
        value = float(per_run @ self.measured.covariance @ per_run) / self.measured.images
        return Uncertainty(0.0, np.inf, max(0.0, value) + 2 * (100 / self.measured.images) ** 2)

    def _per_run(self, weights: np.ndarray) -> np.ndarray:
        found: np.ndarray = (weights / self.counts)[self.measured.row]
        return found


def _dummies(labels: np.ndarray) -> np.ndarray:
    """(runs, distinct labels) of 0 and 1."""
    found: np.ndarray = (labels[:, None] == np.unique(labels)[None, :]).astype(float)
    return found
