"""Looking several times costs what the published tables say it costs."""

from __future__ import annotations

import numpy as np
import pytest
from report.spending import nominal, nominal_levels, spent, whole
from scipy import special


# Jennison and Turnbull (2000), Group Sequential Methods, section 7.2: five equal looks, two-sided
# 0.05.
@pytest.mark.parametrize(
    ("spending", "bounds"),
    [
        ("pocock", [2.438, 2.427, 2.410, 2.397, 2.386]),
        ("obrien-fleming", [4.877, 3.357, 2.680, 2.290, 2.031]),
    ],
)
def test_bounds_are_the_published_ones(spending, bounds) -> None:
    found = [-special.ndtri(level / 2) for level in nominal_levels(0.05, (1, 2, 3, 4, 5), spending)]
    assert found == pytest.approx(bounds, abs=0.002)


@pytest.mark.parametrize("spending", ["pocock", "obrien-fleming"])
def test_all_looks_together_err_as_often_as_promised(spending) -> None:
    looks = (2, 3, 4, 5, 6, 8, 10)
    bounds = -special.ndtri(np.array(nominal_levels(0.05, looks, spending)) / 2)
    steps = np.random.default_rng(0).standard_normal((200_000, 10)).cumsum(axis=1)
    z = steps[:, np.array(looks) - 1] / np.sqrt(looks)
    assert (np.abs(z) > bounds).any(axis=1).mean() == pytest.approx(0.05, abs=0.002)
    assert spent(0.05, 1.0, spending) == pytest.approx(0.05)


@pytest.mark.parametrize("spending", ["pocock", "obrien-fleming"])
def test_a_level_and_its_share_at_a_look_are_each_others_inverse(spending) -> None:
    looks = (2, 4, 7)
    for look in range(3):
        for level in (1e-6, 0.003, 0.05, 0.4):
            own = nominal(level, look, looks, spending)
            assert own < level
            assert whole(own, look, looks, spending) == pytest.approx(level, rel=1e-6)
            assert own == pytest.approx(nominal_levels(level, looks, spending)[look], rel=0.02)


def test_one_look_costs_nothing() -> None:
    assert nominal(0.05, 0, (5,), "pocock") == 0.05
    assert whole(0.03, 0, (5,), "obrien-fleming") == 0.03
