"""What docs/scaling.md computes."""

from pathlib import Path

import pytest

from benchmarks import scaling

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()


@pytest.mark.parametrize(
    "table", [scaling.study_table, scaling.network_table, scaling.limits_table]
)
def test_the_page_shows_the_tables_that_are_computed(table) -> None:
    assert table() in PAGE


def test_runs_share_gpus_and_the_longest_run_is_the_least_that_a_study_takes() -> None:
    runs = [3.0, 1.0, 1.0, 1.0]
    assert scaling.makespan(runs, 1) == 6
    assert scaling.makespan(runs, 2) == scaling.makespan(runs, 64) == 3


def test_rates_are_those_published_where_they_are() -> None:
    by_name = {network.name: network for network in scaling.networks()}
    assert len(by_name) == 17
    assert by_name["training-recipe"].rate(1_218) == 1_218
    assert by_name["separate-downsampling"].rate(1_218) == pytest.approx(819)
