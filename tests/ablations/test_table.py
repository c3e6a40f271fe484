"""The paper's FLOPs come out of the builder."""

import pickle
from itertools import islice
from pathlib import Path

import pytest

from ablations import PAPER, get_regime, paper_row, table
from tests.conftest import BuildOnce

CONTRADICTED = {"layer-norm", "separate-downsampling"}
"""Rows of the smaller regime for which the paper prints two different numbers."""


@pytest.fixture(scope="module", params=["tiny", pytest.param("base", marks=pytest.mark.slow)])
def counted(request, build_once: BuildOnce):
    def count(folder: Path) -> None:
        rows = table.count_steps(PAPER, get_regime(request.param))
        (folder / "rows").write_bytes(pickle.dumps({row.name: row for row in rows}))

    return pickle.loads((build_once(f"counted-{request.param}", count) / "rows").read_bytes())


def test_every_row_rounds_to_the_printed_digit_but_the_two_that_the_paper_contradicts(
    counted,
) -> None:
    odd = {name for name, row in counted.items() if row.agrees is False}
    assert odd == (CONTRADICTED if counted["baseline"].regime == "tiny" else set())
    assert sum(row.agrees is not None for row in counted.values()) == 17
    for name in odd:
        assert "the paper prints" in counted[name].note


def test_every_row_counts_what_was_recounted(counted) -> None:
    for row in counted.values():
        paper = paper_row(row.regime, row.name)
        if paper.gflops_recount is not None:
            assert f"{row.gflops_paper_convention:.3f}" == f"{paper.gflops_recount:.3f}"


def test_parameters_are_the_known_ones(counted) -> None:
    if counted["baseline"].regime == "base":
        assert counted["separate-downsampling"].params == 88_591_464
        return
    millions = {name: row.params / 1e6 for name, row in counted.items()}
    assert counted["baseline"].params == 25_557_032
    assert counted["separate-downsampling"].params == 28_589_128
    expected = {"stage-ratio": 28.63, "patchify-stem": 28.62, "depthwise": 15.72, "width": 33.76}
    expected |= {"inverted-bottleneck": 25.85, "depthwise-first": 25.63, "kernel-5": 25.72}
    expected |= {"kernel-7": 25.86, "kernel-9": 26.05, "kernel-11": 26.29}
    for name, value in expected.items():
        assert round(millions[name], 2) == value, name


def test_pocket_is_counted_and_compared_with_nothing() -> None:
    rows = list(islice(table.count_steps(PAPER, get_regime("mini"), 64, 10), 4))
    assert len(rows) == 4
    assert all(row.agrees is None and row.gflops_paper is None for row in rows)
    assert all(row.gflops_fvcore < 0.02 for row in rows)
