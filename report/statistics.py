"""Variance components of a study: seeds and test images as crossed random effects.

A run's accuracy is its variant's mean, plus what its seed adds to every image, plus chance, image
by image. On a fixed test set the last two cannot be separated: together they are the spread
between seeds. For new images, only what a variant's seeds agree on, image by image, is added, so
nothing is counted twice.

The estimates need the accuracy of each run and the covariance over images of each pair of runs.
Units are points of top-1 and squared points throughout.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

LEVEL = 0.05
POWER = 0.8
MOST_SEEDS = 1000
PAIR_FROM = 4
"""From this many variants on, seeds are paired without a test: it costs one variant's degrees of
freedom."""
PAIRING_LEVEL = 0.01
"""Fewer variants are paired only if the correlation is significant at this level. At 5 %, the
choice costs 1.5 points of coverage."""
PRIOR_DF = 6
"""The weight of the pooled variance, in degrees of freedom, in the estimate for a variant that
spreads more than the others."""
_SMALLEST_P = 1e-80
_BLOCK = 8192  # images at a time: 100 runs take 3 MB


@dataclass(frozen=True)
class Measurements:
    """The finished runs of a study as a table of (variant, seed, accuracy), N runs in any order."""

    variants: tuple[str, ...]
    variant: np.ndarray
    """(N,) index into `variants`."""
    seed: np.ndarray
    run: np.ndarray
    """(N,) equal for entries that are one run, shared by several variants."""
    accuracy: np.ndarray
    """(N,) points."""
    covariance: np.ndarray
    """(N, N) over images, in squared points per image."""
    images: int

    @classmethod
    def from_predictions(
        cls,
        variant: Sequence[str],
        seed: Sequence[int],
        correct: np.ndarray,
        digest: Sequence[Hashable] | None = None,
    ) -> Measurements:
        """Make the table from `correct`, 0 or 1, (N, images).

        Entries of one `digest` are one run; without digests every entry is a run of its own.
        """
        total, images = correct.shape
        assert len(variant) == len(seed) == total > 0
        both_right = np.zeros((total, total))
        for start in range(0, images, _BLOCK):
            # float32 sums of ones are exact below 2 ** 24, whatever the order of summation.
            block = correct[:, start : start + _BLOCK].astype(np.float32)
            both_right += block @ block.T
        right = np.diag(both_right)
        covariance = (both_right - np.outer(right, right) / images) * (100**2 / max(1, images - 1))
        names = list(dict.fromkeys(variant))
        keys = list(digest) if digest is not None else list(range(total))
        run_index = {key: index for index, key in enumerate(dict.fromkeys(keys))}
        return cls(
            tuple(names),
            np.array([names.index(name) for name in variant]),
            np.array(seed, dtype=np.int64),
            np.array([run_index[key] for key in keys]),
            100 * right / images,
            covariance,
            images,
        )

    def with_seeds(self, seeds: Sequence[int]) -> Measurements:
        """Keep only the runs of these seeds. Variants without any of them are dropped."""
        return self.select(np.isin(self.seed, seeds))

    def select(self, mask: np.ndarray) -> Measurements:
        """Keep only the runs where `mask`, bool (N,), is true."""
        index = np.flatnonzero(mask)
        kept, variant = np.unique(self.variant[index], return_inverse=True)
        return Measurements(
            tuple(self.variants[i] for i in kept),
            variant,
            self.seed[index],
            self.run[index],
            self.accuracy[index],
            self.covariance[np.ix_(index, index)],
            self.images,
        )

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """The seeds of a variant's runs; empty if it has none."""
        if variant not in self.variants:
            return ()
        return tuple(int(seed) for seed in self.seed[self.variant == self.variants.index(variant)])


@dataclass(frozen=True)
class Uncertainty:
    """The variance of an estimate in squared points, by source.

    `df` are the degrees of freedom of the seeds' part. `orders` is the part that comes from drawing
    the orders of decisions at random; it is 0 unless an effect is an average over sampled orders.
    """

    seeds: float
    df: float
    images: float
    orders: float = 0.0
    orders_df: float = math.inf

    @property
    def variance(self) -> float:
        return self.seeds + self.images + self.orders

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.variance)

    def half_width(self, tail: float) -> float:
        """The distance from the truth that the estimate exceeds on one side with probability
        `tail`.

        Uses Student's quantile for seeds and the normal one for images, as in Cochran's
        approximation. Satterthwaite's covers 92 % instead of 95 % for two variants of two seeds,
        because it trusts a small spread.
        """
        parts = (
            (self.seeds, self.df),
            (self.images, math.inf),
            (self.orders, self.orders_df),
        )
        square = sum(part * _quantile(df, tail) ** 2 for part, df in parts if part)
        return math.copysign(math.sqrt(square), 0.5 - tail)

    def tail(self, distance: float) -> float:
        """Invert `half_width`: the one-sided p-value of a distance, at least 1e-80."""
        if self.standard_error == 0:
            return 0.5 if distance == 0 else _SMALLEST_P if distance > 0 else 1.0
        if distance < 0:
            return 1 - self.tail(-distance)
        z = -distance / self.standard_error
        least_df = min(self.df if self.seeds else math.inf, self.orders_df)
        low = max(float(special.ndtr(z)), _SMALLEST_P)
        high = max(float(special.stdtr(least_df, z)), low) if math.isfinite(least_df) else low
        if self.half_width(low) < distance:
            return low
        if high < low * (1 + 1e-9) or self.half_width(high) > distance:
            return high
        log_p = optimize.brentq(
            lambda p: self.half_width(math.exp(p)) - distance,
            math.log(low) - 1e-6,
            math.log(high) + 1e-6,
            xtol=1e-9,
            rtol=1e-9,
        )
        return math.exp(log_p)

    def detectable(self, level: float) -> float:
        """The gap that a two-sided test at `level` detects with 80 % power."""
        return self.half_width(level / 2) + self.half_width(1 - POWER)


def _quantile(df: float, tail: float) -> float:
    return float(special.ndtri(tail) if math.isinf(df) else special.stdtrit(df, tail))


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of variants' accuracies in points, such as a difference of two."""

    points: float
    these_runs: Uncertainty
    """Of these very networks on new images: it says nothing about other seeds."""
    uncertainty: Mapping[str, Uncertainty]
    """By question, "fixed" and "new"; empty if a variant has one seed."""
    seeds: float
    """The equal number of seeds per variant that gives the seeds' part of the variance."""
    pooled_seeds: float
    """The mean number of seeds of the study's variants, from which the df come."""

    def with_seeds(self, question: str, seeds: int) -> Uncertainty:
        """The expected uncertainty with this many seeds in every variant."""
        now = self.uncertainty[question]
        df = now.df / max(1e-9, self.pooled_seeds - 1) * (seeds - 1)
        return replace(now, seeds=now.seeds * self.seeds / seeds, df=df)

    def seeds_needed(self, question: str, level: float) -> int | None:
        """The seeds per variant that detect a gap as large as the observed one with 80 % power.

        None if 1,000 would not.
        """

        def detects(seeds: int) -> bool:
            return self.with_seeds(question, seeds).detectable(level) <= abs(self.points)

        if not detects(MOST_SEEDS):
            return None
        return bisect.bisect_left(range(MOST_SEEDS), True, lo=2, key=detects)


class SeedCorrelation(NamedTuple):
    """The intraclass correlation of variants within seeds, with a 95 % interval."""

    correlation: float
    low: float
    high: float
    paired: bool
    """Whether seeds are paired, so that their common effect is not noise in a difference."""


class _SeedEffect(NamedTuple):
    """The mean squares of seeds and residuals, their df, and the variants per seed."""

    between: float
    residual: float
    between_df: int
    residual_df: int
    variants: float


@dataclass(frozen=True)
class VarianceComponents:
    """The variance components of a study, fitted once; any contrast is estimated from them."""

    runs: Measurements

    @cached_property
    def counts(self) -> np.ndarray:
        """(variants,) runs of each variant."""
        return np.bincount(self.runs.variant, minlength=len(self.runs.variants))

    @cached_property
    def means(self) -> np.ndarray:
        """(variants,) mean accuracy of each variant."""
        means: np.ndarray = np.bincount(self.runs.variant, self.runs.accuracy) / self.counts
        return means

    @cached_property
    def _distinct(self) -> np.ndarray:
        """The first entry of each distinct run, in order of run number."""
        return np.unique(self.runs.run, return_index=True)[1]

    @cached_property
    def _replicated(self) -> np.ndarray:
        """The runs of variants with several; a shared run counts for the first variant."""
        entries = np.sort(self._distinct)
        kept: np.ndarray = entries[self.counts[self.runs.variant[entries]] > 1]
        return kept

    @cached_property
    def _one_way(self) -> tuple[np.ndarray, np.ndarray]:
        return self._residuals(_dummies(self.runs.variant[self._replicated]))

    @cached_property
    def _two_way(self) -> tuple[np.ndarray, np.ndarray]:
        kept = self._replicated
        return self._residuals(
            np.hstack([_dummies(self.runs.variant[kept]), _dummies(self.runs.seed[kept])])
        )

    def _residuals(self, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The residuals and each one's share of the degrees of freedom, both (runs,)."""
        basis, values, _ = np.linalg.svd(design, full_matrices=False)
        basis = basis[:, values > 1e-9 * values[0]] if len(values) else basis
        y = self.runs.accuracy[self._replicated]
        return y - basis @ (basis.T @ y), 1 - (basis**2).sum(axis=1)

    @cached_property
    def _seed_effect(self) -> _SeedEffect | None:
        """The analysis of variance of seeds; None without enough degrees of freedom."""
        if not len(self._replicated):
            return None
        (one_way, one_way_df), (two_way, two_way_df) = self._one_way, self._two_way
        residual_df = round(float(two_way_df.sum()))
        between_df = round(float(one_way_df.sum())) - residual_df
        if residual_df < 1 or between_df < 1:
            return None
        residual = float((two_way**2).sum())
        between = max(0.0, float((one_way**2).sum()) - residual)
        return _SeedEffect(
            between / between_df,
            residual / residual_df,
            between_df,
            residual_df,
            float(one_way_df.sum()) / between_df,
        )

    @cached_property
    def seed_correlation(self) -> SeedCorrelation | None:
        """None where no two variants share two seeds, or nothing varies."""
        effect = self._seed_effect
        if effect is None or not effect.residual:
            return None
        f = effect.between / effect.residual
        dfs = effect.between_df, effect.residual_df
        quantiles = 1.0, stats.f.ppf(1 - LEVEL / 2, *dfs), stats.f.ppf(LEVEL / 2, *dfs)
        ratios = [f / quantile - 1 for quantile in quantiles]
        correlation, low, high = (float(r / (r + effect.variants)) for r in ratios)
        significant = not PAIRING_LEVEL / 2 < stats.f.sf(f, *dfs) < 1 - PAIRING_LEVEL / 2
        many = len(np.unique(self.runs.variant[self._replicated])) >= PAIR_FROM
        return SeedCorrelation(correlation, low, high, many or bool(significant))

    @property
    def _paired(self) -> bool:
        return self.seed_correlation is not None and self.seed_correlation.paired

    @cached_property
    def df(self) -> float:
        """Degrees of freedom of the pooled variance between seeds; 0 if no variant has two."""
        if not len(self._replicated):
            return 0.0
        return float((self._two_way if self._paired else self._one_way)[1].sum())

    @cached_property
    def shared_seed_variance(self) -> float:
        """The variance of what a seed adds to all variants alike; 0 if seeds are not paired."""
        if self._seed_effect is None or not self._paired:
            return 0.0
        between, residual, _, _, variants = self._seed_effect
        return max(0.0, (between - residual) / variants)

    @cached_property
    def seed_variance(self) -> np.ndarray:
        """(variants,) variance between a variant's seeds on the fixed test set, without the shared
        part; empty if no variant has two seeds.

        One pooled variance for all, because a variant's own over few seeds is hardly known. The
        variance of a variant that spreads more is shrunk towards the pooled one with `PRIOR_DF`.
        """
        if not self.df:
            return np.empty(0)
        residuals, share = self._two_way if self._paired else self._one_way
        variant = self.runs.variant[self._replicated]
        squares = np.bincount(variant, residuals**2, minlength=len(self.counts))
        df = np.bincount(variant, share, minlength=len(self.counts))
        pooled = squares.sum() / df.sum()
        floor = (100 / self.runs.images) ** 2  # the resolution of an accuracy is one image
        variance: np.ndarray = np.maximum(
            (PRIOR_DF * pooled + squares) / (PRIOR_DF + df), max(pooled, floor)
        )
        return variance

    @cached_property
    def image_covariance(self) -> np.ndarray:
        """(variants, variants) covariance over images without the seeds' part, in squared points
        per image.

        Taken from pairs of runs with different seeds only, which leaves out the chance of single
        runs. A variant with one seed has no such pair and keeps that chance: its interval errs on
        the wide side.
        """
        runs = self.runs
        members = _dummies(runs.variant)
        differ = (runs.seed[:, None] != runs.seed[None, :]).astype(float)
        pairs = members.T @ differ @ members
        sums = members.T @ (differ * runs.covariance) @ members
        every = members.T @ runs.covariance @ members / np.outer(self.counts, self.counts)
        covariance: np.ndarray = np.where(pairs > 0, sums / np.maximum(pairs, 1), every)
        return covariance

    def weights(self, contrast: Mapping[str, float]) -> np.ndarray:
        """A contrast as an array, (variants,). Raises KeyError if a variant has no run."""
        weights = np.zeros(len(self.counts))
        place = {name: index for index, name in enumerate(self.runs.variants)}
        for name, weight in contrast.items():
            weights[place[name]] = weight
        return weights

    def estimate(self, contrast: Mapping[str, float], *, borrow: bool = False) -> Estimate:
        """Estimate a contrast, a weight for each variant.

        With `borrow`, a variant with one seed is taken to spread as the others do.

        Raises:
            KeyError: a variant has no run.
        """
        weights = self.weights(contrast)
        used = weights != 0
        fixed, new = self.fixed_test(weights), self.new_images(weights)
        several = borrow or bool((self.counts[used] > 1).all())
        squares = weights[used] ** 2
        pool = self.counts[self.counts > 1]
        return Estimate(
            float(weights @ self.means),
            self.these_runs(weights),
            {"fixed": fixed, "new": new} if several and fixed and new else {},
            float(squares.sum() / (squares / self.counts[used]).sum()) if used.any() else 0.0,
            float(pool.mean()) if len(pool) else 1.0,
        )

    def fixed_test(self, weights: np.ndarray) -> Uncertainty | None:
        """The uncertainty over new seeds on this test set; None if no variant has two seeds."""
        if not self.df:
            return None
        per_run = self._per_run(weights)
        # A run that variants share varies once, by the sum of its weights.
        distinct = per_run @ _dummies(self.runs.run)
        own = float(distinct**2 @ self.seed_variance[self.runs.variant[self._distinct]])
        _, place = np.unique(self.runs.seed, return_inverse=True)
        unbalanced = float((np.bincount(place, per_run) ** 2).sum()) * self.shared_seed_variance
        df = self.df
        if self._seed_effect and unbalanced > 1e-12 * own:  # Satterthwaite, a sum of two estimates
            between_df = self._seed_effect.between_df
            df = (own + unbalanced) ** 2 / (own**2 / df + unbalanced**2 / between_df)
        return Uncertainty(own + unbalanced, df, 0.0)

    def new_images(self, weights: np.ndarray) -> Uncertainty | None:
        """The uncertainty over new seeds and new test images; None if no variant has two seeds."""
        fixed = self.fixed_test(weights)
        if fixed is None:
            return None
        images = max(0.0, float(weights @ self.image_covariance @ weights)) / self.runs.images
        least = 2 * (100 / self.runs.images) ** 2 - fixed.seeds
        return Uncertainty(fixed.seeds, fixed.df, max(images, least))

    def these_runs(self, weights: np.ndarray) -> Uncertainty:
        """The uncertainty of these networks over new images, whatever other seeds would do.

        One image won and one lost are added, so that a handful of images is never taken for
        certainty (Bonett and Price 2012).
        """
        per_run = self._per_run(weights)
        variance = float(per_run @ self.runs.covariance @ per_run) / self.runs.images
        return Uncertainty(0.0, np.inf, max(0.0, variance) + 2 * (100 / self.runs.images) ** 2)

    def covariance_of_means(self, question: str) -> np.ndarray:
        """(variants, variants) covariance of the means over new seeds on the "fixed" test set, or
        on "new" images."""
        members = _dummies(self.runs.variant) / self.counts
        same_seed = (self.runs.seed[:, None] == self.runs.seed[None, :]).astype(float)
        distinct = _dummies(self.runs.run).T @ members  # (distinct runs, variants)
        run_variance = self.seed_variance[self.runs.variant[self._distinct]]
        covariance: np.ndarray = distinct.T @ (run_variance[:, None] * distinct)
        covariance += self.shared_seed_variance * (members.T @ same_seed @ members)
        return covariance + self.image_covariance / self.runs.images * (question == "new")

    def _per_run(self, weights: np.ndarray) -> np.ndarray:
        per_run: np.ndarray = (weights / self.counts)[self.runs.variant]
        return per_run


def _dummies(labels: np.ndarray) -> np.ndarray:
    """(runs, distinct labels) of 0 and 1."""
    dummies: np.ndarray = (labels[:, None] == np.unique(labels)[None, :]).astype(float)
    return dummies


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's corrected p-values (1979), without the 0.1 s of statsmodels' garbage collection."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.arange(len(p), 0, -1) * np.asarray(p)[order])
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1.0)
    return corrected
