"""Variance components of a study: seeds and test images as crossed random effects.

A run's accuracy is its variant's mean, plus what its seed adds to every image, plus chance, image
by image. On a fixed test set the last two cannot be separated: together they are the spread
between seeds. For new images, only what a variant's seeds agree on, image by image, is added, so
nothing is counted twice.

The estimates need the accuracy of each run and, for new images, the covariance over images of each
pair of runs. Units are those of the accuracy, in a study points of top-1.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

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
ODD_LEVEL = 0.001
"""A run is odd if its studentized residual is this unlikely among all runs (Bonferroni)."""
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
    covariance: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """(N, N) over images, in squared points per image; empty without images."""
    images: int = 0
    """0: the runs are known by their accuracy alone."""
    resolution: float = 0.0
    """The least step of an accuracy: one image, or the last printed digit."""
    scale: float = 100.0
    """The accuracy of a run that is right on every image."""
    collapsed: frozenset[int] = frozenset()
    """The numbers, in `run`, of runs that did not learn."""

    @classmethod
    def from_predictions(
        cls,
        variant: Sequence[str],
        seed: Sequence[int],
        correct: np.ndarray,
        digest: Sequence[Hashable] | None = None,
        collapsed: Sequence[bool] = (),
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
            100 / images,
            collapsed=frozenset(run_index[key] for key, did in zip(keys, collapsed) if did),
        )

    def with_seeds(self, seeds: Sequence[int]) -> Measurements:
        """Keep only the runs of these seeds. Variants without any of them are dropped."""
        return self.select(np.isin(self.seed, seeds))

    def select(self, mask: np.ndarray) -> Measurements:
        """Keep only the runs where `mask`, bool (N,), is true."""
        index = np.flatnonzero(mask)
        kept, variant = np.unique(self.variant[index], return_inverse=True)
        return replace(
            self,
            variants=tuple(self.variants[i] for i in kept),
            variant=variant,
            seed=self.seed[index],
            run=self.run[index],
            accuracy=self.accuracy[index],
            covariance=self.covariance[np.ix_(index, index)] if self.images else self.covariance,
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
    def parts(self) -> tuple[tuple[float, float], ...]:
        """Each part with its degrees of freedom."""
        return (self.seeds, self.df), (self.images, math.inf), (self.orders, self.orders_df)

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
        square = sum(part * _quantile(df, tail) ** 2 for part, df in self.parts if part)
        return math.copysign(math.sqrt(square), 0.5 - tail)

    def tail(self, distance: float) -> float:
        """Invert `half_width`: the one-sided p-value of a distance, at least 1e-80."""
        if distance < 0:
            return 1 - self.tail(-distance)
        if self.standard_error == 0 or distance >= self.half_width(_SMALLEST_P):
            return 0.5 if distance == 0 else _SMALLEST_P
        ends = math.log(_SMALLEST_P), math.log(0.5)
        log_p = optimize.brentq(lambda p: self.half_width(math.exp(p)) - distance, *ends)
        return math.exp(log_p)

    def power(self, gap: float, level: float) -> float:
        """The probability that a two-sided test at `level` detects a true gap.

        By the noncentral t distribution: exact for seeds alone, else with Satterthwaite's degrees
        of freedom.
        """
        if self.standard_error == 0:
            return 1.0
        df = min(satterthwaite(self.parts).df, 1e9)
        bound, shift = self.half_width(level / 2), min(gap / self.standard_error, 1e3)
        tails = special.nctdtr(df, shift, np.array([bound, -bound]) / self.standard_error)
        below, beyond = np.nan_to_num(tails)  # scipy gives NaN far out in a tail
        return float(1 - below + beyond)

    def detectable(self, level: float) -> float:
        """The gap that a two-sided test at `level` detects with 80 % power."""
        most = 2 * (self.half_width(level / 2) + self.half_width(1 - POWER))
        if most == 0:
            return 0.0
        return float(optimize.brentq(lambda gap: self.power(gap, level) - POWER, 0, most))


def satterthwaite(parts: Iterable[tuple[float, float]]) -> Uncertainty:
    """The sum of independent estimates of variances, each with its degrees of freedom."""
    known = [(part, df) for part, df in parts if part > 0]
    whole = sum(part for part, _ in known)
    spread = sum(part**2 / df for part, df in known)
    return Uncertainty(whole, whole**2 / spread if spread else math.inf, 0.0)


def _quantile(df: float, tail: float) -> float:
    return float(special.ndtri(tail) if math.isinf(df) else special.stdtrit(df, tail))


@dataclass(frozen=True)
class Estimate:
    """A weighted sum of variants' accuracies in points, such as a difference of two."""

    points: float
    these_runs: Uncertainty
    """Of these very networks on new images: it says nothing about other seeds."""
    uncertainty: Mapping[str, Uncertainty]
    """By question, "fixed" and, with images, "new"; empty if a variant has one seed."""
    seeds: float
    """The equal number of seeds per variant that gives the seeds' part of the variance."""
    pooled_seeds: float
    """The mean number of seeds of the study's variants, from which the df come."""

    def with_seeds(self, question: str, seeds: int) -> Uncertainty:
        """The expected uncertainty with this many seeds in every variant."""
        now = self.uncertainty[question]
        df = now.df / max(1e-9, self.pooled_seeds - 1) * (seeds - 1)
        return replace(now, seeds=now.seeds * self.seeds / seeds, df=df)

    def seeds_needed(self, question: str, gap: float, level: float) -> int | None:
        """The seeds per variant that detect a true gap with 80 % power; None if 1,000 would not."""

        def detects(seeds: int) -> bool:
            return self.with_seeds(question, seeds).power(gap, level) >= POWER

        if not detects(MOST_SEEDS):
            return None
        return bisect.bisect_left(range(MOST_SEEDS), True, lo=2, key=detects)


@dataclass(frozen=True)
class Pool:
    """The runs of the variants that share one variance between seeds, and their residuals."""

    entries: np.ndarray
    """(n,) of the study's runs."""
    residuals: np.ndarray
    """(n,) without the variants' means and, where seeds are paired, without those of seeds."""
    share: np.ndarray
    """(n,) each residual's part of the degrees of freedom."""
    paired: bool = False
    """Whether seeds are paired, so that their common effect is not noise in a difference."""
    correlation: float | None = None
    """Of the same seed in two variants (intraclass); None where no two variants share two seeds, or
    nothing varies."""
    shared_seed_variance: float = 0.0
    """The variance of what a seed adds to all variants alike; 0 if seeds are not paired."""
    seed_df: int = 0
    """Degrees of freedom of seeds' means; 0 where no two variants share two seeds."""
    out: tuple[int, ...] = ()
    """The variants that are not in the pool because of odd or collapsed runs."""
    odd_runs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """By variant, the seeds of runs too far from the others for its spread to be shared."""

    @property
    def df(self) -> float:
        return float(self.share.sum())

    @property
    def variance(self) -> float:
        return float(self.residuals @ self.residuals) / self.df if self.df else 0.0

    def odd(self, resolution: float) -> np.ndarray:
        """Of `entries`, those whose externally studentized residual is too large for chance."""
        left = self.df - 1
        if left < 0.5:
            return self.entries[:0]
        free = np.maximum(self.share, 1e-9)
        squares = np.where(self.share > 1e-9, self.residuals**2 / free, 0.0)
        deleted = (self.residuals @ self.residuals - squares) / left
        t = np.sqrt(squares / np.maximum(deleted, max(resolution**2 / 12, 1e-300)))
        is_far = 2 * len(t) * special.stdtr(left, -t) < ODD_LEVEL
        # Two runs of a variant are equally far from their mean.
        odd: np.ndarray = self.entries[is_far & (t > t.max() * (1 - 1e-9))]
        return odd


def fit_pool(runs: Measurements, entries: np.ndarray, pair: bool | None = None) -> Pool:
    """Fit variants, and seeds where they are paired; `pair` decides that, by default a rule."""
    if not len(entries):
        return Pool(entries, np.empty(0), np.empty(0))
    variants, y = _dummies(runs.variant[entries]), runs.accuracy[entries]
    one_way = _residuals(variants, y)
    two_way = _residuals(np.hstack([variants, _dummies(runs.seed[entries])]), y)
    df, residual_df = (round(float(share.sum())) for _, share in (one_way, two_way))
    seed_df = df - residual_df
    if residual_df < 1 or seed_df < 1:
        return Pool(entries, *one_way)
    whole, within = (float((residuals**2).sum()) for residuals, _ in (one_way, two_way))
    if not within:
        return Pool(entries, *one_way, seed_df=seed_df)
    between, residual = max(0.0, whole - within) / seed_df, within / residual_df
    f, per_seed = between / residual, float(one_way[1].sum()) / seed_df
    p = float(stats.f.sf(f, seed_df, residual_df))
    clear = not PAIRING_LEVEL / 2 < p < 1 - PAIRING_LEVEL / 2
    paired = variants.shape[1] >= PAIR_FROM or clear if pair is None else pair
    correlation = (f - 1) / (f - 1 + per_seed)
    if not paired:
        return Pool(entries, *one_way, False, correlation, seed_df=seed_df)
    shared = max(0.0, (between - residual) / per_seed)
    return Pool(entries, *two_way, True, correlation, shared, seed_df)


def _residuals(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The residuals and each one's share of the degrees of freedom, both (runs,)."""
    basis, values, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, values > 1e-9 * values[0]]
    return y - basis @ (basis.T @ y), 1 - (basis**2).sum(axis=1)


@dataclass(frozen=True)
class VarianceComponents:
    """The variance components of a study, fitted once; any contrast is estimated from them."""

    runs: Measurements
    pair: bool | None = None
    """Whether seeds are paired; None: by the rule."""

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
    def collapsed(self) -> frozenset[str]:
        """The variants of which no run learned anything."""
        learned = ~np.isin(self.runs.run, list(self.runs.collapsed))
        names = enumerate(self.runs.variants)
        return frozenset(name for i, name in names if i not in self.runs.variant[learned])

    @cached_property
    def pool(self) -> Pool:
        """The runs that share a variance, and those that do not.

        A variant with an odd run leaves the pool, until there is none; one with a run that
        collapsed is never in it. A run that variants share counts for the first of them.
        """
        runs, odd = self.runs, dict[str, tuple[int, ...]]()
        out = set(runs.variant[np.isin(runs.run, list(runs.collapsed))].tolist())
        entries = np.sort(self._distinct)
        entries = entries[self.counts[runs.variant[entries]] > 1]
        while True:
            left = entries[~np.isin(runs.variant[entries], list(out))]
            pool = fit_pool(runs, left, self.pair)
            found = pool.odd(runs.resolution)
            if not len(found):
                return replace(pool, out=tuple(out), odd_runs=odd)
            variant = int(runs.variant[found[0]])
            seeds = runs.seed[found[runs.variant[found] == variant]]
            odd[runs.variants[variant]] = tuple(seeds.tolist())
            out.add(variant)

    @cached_property
    def apart(self) -> np.ndarray:
        """(variants,) bool: those that keep their own variance, with n - 1 degrees of freedom."""
        return np.isin(np.arange(len(self.counts)), self.pool.out) & (self.counts > 1)

    @property
    def no_spread(self) -> bool:
        """Whether seeds agree as far as the accuracy is known: deterministic, or rounded."""
        return self.pool.df > 0 and self.pool.variance <= self.runs.resolution**2 / 12

    @property
    def pooled_seeds(self) -> float:
        """The mean number of seeds of the variants in the pool."""
        counts = self.counts[(self.counts > 1) & ~self.apart]
        return float(counts.mean()) if len(counts) else 1.0

    @cached_property
    def seed_variance(self) -> np.ndarray:
        """(variants,) variance between a variant's seeds on the fixed test set, in the pool without
        the shared part.

        One pooled variance for all, because a variant's own over few seeds is hardly known. The
        variance of a variant that spreads more is shrunk towards the pooled one with `PRIOR_DF`.
        """
        pool, runs, size = self.pool, self.runs, len(self.counts)
        variant, floor = runs.variant[pool.entries], runs.resolution**2 / 12
        squares = np.bincount(variant, pool.residuals**2, minlength=size)
        df = np.bincount(variant, pool.share, minlength=size)
        shrunk = (PRIOR_DF * pool.variance + squares) / (PRIOR_DF + df)
        centred = np.bincount(
            runs.variant, (runs.accuracy - self.means[runs.variant]) ** 2, minlength=size
        )
        own = centred / np.maximum(self.counts - 1, 1)
        pooled = np.maximum(shrunk, pool.variance)
        variance: np.ndarray = np.maximum(np.where(self.apart, own, pooled), floor)
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
        if missing := contrast.keys() - set(self.runs.variants):
            raise KeyError(*missing)
        return np.array([contrast.get(name, 0.0) for name in self.runs.variants])

    def estimate(self, contrast: Mapping[str, float], *, borrow: bool = False) -> Estimate:
        """Estimate a contrast, a weight for each variant.

        With `borrow`, a variant with one seed is taken to spread as the others do.

        Raises:
            KeyError: a variant has no run.
        """
        weights = self.weights(contrast)
        used = weights != 0
        both = {"fixed": self.fixed_test(weights), "new": self.new_images(weights)}
        several = borrow or (self.counts[used] > 1).all()
        squares = weights[used] ** 2
        return Estimate(
            float(weights @ self.means),
            self.these_runs(weights),
            {question: one for question, one in both.items() if one and several},
            float(squares.sum() / (squares / self.counts[used]).sum()) if used.any() else 0.0,
            self.pooled_seeds,
        )

    def usual_pair(self) -> Estimate:
        """The difference of two variants of the pool, as if each had one seed; its points are 0."""
        fixed = Uncertainty(2 * self.pool.variance, self.pool.df, 0.0)
        return Estimate(0.0, fixed, {"fixed": fixed}, 1.0, self.pooled_seeds)

    def fixed_test(self, weights: np.ndarray) -> Uncertainty | None:
        """The uncertainty over new seeds on this test set; None if nothing tells the spread.

        The pooled variance, that of seeds that are not shared, and those of variants apart are
        added as Welch and Satterthwaite do.
        """
        pool, apart, runs = self.pool, self.apart, self.runs
        if not pool.df and not apart[weights != 0].all():
            return None
        per_run = self._per_run(weights)
        # A run that variants share varies once, by the sum of its weights.
        distinct = np.bincount(np.unique(runs.run, return_inverse=True)[1], per_run)
        variant = runs.variant[self._distinct]
        squares = distinct**2 * self.seed_variance[variant]
        own = np.bincount(variant, squares, minlength=len(self.counts))
        _, place = np.unique(runs.seed, return_inverse=True)
        unshared = float((np.bincount(place, per_run) ** 2).sum()) * pool.shared_seed_variance
        pooled = float(own[~apart].sum())
        parts = [(pooled, pool.df), (unshared if unshared > 1e-12 * pooled else 0, pool.seed_df)]
        parts += zip(own[apart].tolist(), (self.counts[apart] - 1).tolist(), strict=True)
        return satterthwaite(parts)

    def alone(self, one: str, other: str) -> tuple[float, Uncertainty]:
        """The difference of two variants by their own runs, each with several.

        Paired over the seeds that both have if seeds are paired, else with Welch's variance.
        """
        runs = self.runs
        own = [runs.variant == runs.variants.index(name) for name in (one, other)]
        shared, *places = np.intersect1d(*(runs.seed[mask] for mask in own), return_indices=True)
        a, b = (runs.accuracy[mask] for mask in own)
        if self.pool.paired and len(shared) > 1:
            samples = [a[places[0]] - b[places[1]]]
        else:
            samples = [a, -b]
        parts = [(float(each.var(ddof=1)) / len(each), len(each) - 1) for each in samples]
        return sum(float(each.mean()) for each in samples), satterthwaite(parts)

    def new_images(self, weights: np.ndarray) -> Uncertainty | None:
        """The uncertainty over new seeds and new test images; None if no variant has two seeds."""
        fixed = self.fixed_test(weights)
        if fixed is None or not self.runs.images:
            return None
        images = max(0.0, float(weights @ self.image_covariance @ weights)) / self.runs.images
        least = 2 * (self.runs.scale / self.runs.images) ** 2 - fixed.seeds
        return Uncertainty(fixed.seeds, fixed.df, max(images, least))

    def these_runs(self, weights: np.ndarray) -> Uncertainty:
        """The uncertainty of these networks over new images, whatever other seeds would do.

        One image won and one lost are added, so that a handful of images is never taken for
        certainty (Bonett and Price 2012).
        """
        per_run, images = self._per_run(weights), self.runs.images
        if not images:
            return Uncertainty(0.0, math.inf, math.nan)
        variance = max(0.0, float(per_run @ self.runs.covariance @ per_run)) / images
        return Uncertainty(0.0, math.inf, variance + 2 * (self.runs.scale / images) ** 2)

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
