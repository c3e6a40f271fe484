"""How looking several times is paid for: alpha spending (Lan and DeMets 1983, doi 10.2307/2336502).

A look at n of at most N seeds sees n / N of the information; the estimates of successive looks are
correlated as sums of independent parts are. Each look then has a nominal level; what looks at fewer
seeds spent, later ones lack. On new images successive estimates share their images' part and are
correlated more, so the levels err on the careful side. With few seeds Student's quantile stands in
for the normal one (Jennison and Turnbull 2000, 3.8).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import optimize, special

from studies.plan import Spending

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)
_GRID = np.concatenate([np.geomspace(1e-9, 0.5, 48), np.linspace(0.55, 0.999, 10)])
"""Levels for which the looks' nominal levels are computed; those between by interpolation of
logarithms."""


def spent(level: float, share: float, spending: Spending) -> float:
    """How much of a two-sided level may be spent by the time a share of all information is
    there."""
    if spending == "pocock":
        return float(level * np.log1p((np.e - 1) * share))
    return float(4 * special.ndtr(special.ndtri(level / 4) / share**0.5))


def nominal_levels(level: float, looks: tuple[int, ...], spending: Spending) -> list[float]:
    """The two-sided level of each look's own test, so that all together err with the probability
    `level`."""
    shares = np.array(looks) / looks[-1]
    found: list[float] = []
    place = density = np.empty(
        0
    )  # where the sum of parts may be after a look that did not stop, with weights
    before = 0.0
    for index, share in enumerate(shares):
        allowed = spent(level, share, spending) - before
        before += allowed
        step = (share - (shares[index - 1] if index else 0.0)) ** 0.5
        if index == 0:
            bound = -special.ndtri(allowed / 2)
        else:
            bound = optimize.brentq(
                _excess, 0.0, 40.0, args=(place, density, share**0.5, step, allowed), xtol=1e-8
            )
        found.append(float(2 * special.ndtr(-bound)))
        edge = bound * share**0.5
        # Further out than nine standard deviations there is nothing to integrate.
        half = min(edge, 9 * share**0.5)
        now = half * _NODES
        if index == 0:
            arrived = np.exp(-((now / step) ** 2) / 2) / (step * (2 * np.pi) ** 0.5)
        else:
            moved = (now[:, None] - place[None, :]) / step
            arrived = np.exp(-(moved**2) / 2) @ density / (step * (2 * np.pi) ** 0.5)
        place, density = now, half * _WEIGHTS * arrived
    return found


def _excess(
    bound: float, place: np.ndarray, density: np.ndarray, scale: float, step: float, allowed: float
) -> float:
    """Logarithm of the chance to step beyond a bound, of those who have not yet, over what is
    allowed."""
    edge = bound * scale
    out = special.ndtr((place - edge) / step) + special.ndtr((-place - edge) / step)
    return float(np.log(max(density @ out, 1e-300)) - np.log(allowed))


@lru_cache(maxsize=32)
def _table(looks: tuple[int, ...], spending: Spending) -> np.ndarray:
    """Logarithms of nominal levels, (levels, looks), for `_GRID`."""
    found: np.ndarray = np.log([nominal_levels(float(level), looks, spending) for level in _GRID])
    return found


def nominal(level: float, look: int, looks: tuple[int, ...], spending: Spending) -> float:
    """The level of a look's (0 is the first) own test where the whole is to have `level`; that
    itself for one look."""
    if len(looks) == 1:
        return level
    return float(np.exp(_line(np.log(level), np.log(_GRID), _table(looks, spending)[:, look])))


def whole(p: float, look: int, looks: tuple[int, ...], spending: Spending) -> float:
    """The least level at which a look with the p-value `p` would have stopped (a sequential
    p-value, at most 1)."""
    if len(looks) == 1:
        return p
    return min(
        1.0,
        float(
            np.exp(_line(np.log(max(p, 1e-300)), _table(looks, spending)[:, look], np.log(_GRID)))
        ),
    )


def _line(x: float, xs: np.ndarray, ys: np.ndarray) -> float:
    """Linear interpolation; below the first point along the first line."""
    if x >= xs[0]:
        return float(np.interp(x, xs, ys))
    return float(ys[0] + (x - xs[0]) * (ys[1] - ys[0]) / (xs[1] - xs[0]))
