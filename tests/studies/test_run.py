"""The same network and recipe is never trained twice in a study, whichever rows request it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from studies import run_queue
from studies.run import Index, Run, deduplicate, run_folders
from studies.study import OVERWRITTEN
from training.interrupt import StopRequest

LAST = "separate-downsampling"


@pytest.fixture
def twins(make_run) -> list[Run]:
    """One network and recipe, requested by two rows."""
    run = make_run("13", epochs=1, warmup_epochs=0)
    return [run, replace(run, step="twin")]


def record(run: Run, result: bool = False, checkpoint: bool = False, digest: str = "") -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    config = {"digest": digest or run.digest, "number": run.number}
    (run.folder / "config.json").write_text(json.dumps(config))
    if result:
        numbers = {"top1": 50.0, "images_per_second": 1.0, "seconds": {"total": 1.0}}
        (run.folder / "result.json").write_text(json.dumps({"digest": run.digest, **numbers}))
    if checkpoint:
        (run.folder / "checkpoint.pt").touch()


def makers(runs: list[Run]) -> list[tuple[str, str | None]]:
    return [(run.step, run.alias_of) for run in runs]


def test_the_first_of_two_rows_with_the_same_run_trains_it(
    twins, stores, execution, capsys
) -> None:
    one, other = twins
    runs = deduplicate(twins)
    assert makers(runs) == [(LAST, None), ("twin", LAST)]
    assert run_queue.run_all(runs, stores, execution, StopRequest()) == 0
    assert f"twin seed 0: the run of {LAST}, top-1 " in capsys.readouterr().out
    assert sorted(path.name for path in other.folder.iterdir()) == ["config.json"]
    assert Index(one.study.folder).result_dir(other.folder) == one.folder


def test_other_seeds_and_recipes_are_not_shared(twins) -> None:
    faster = replace(twins[1], step="faster", recipe=twins[1].recipe.change(lr=0.1))
    runs = [*twins, replace(twins[1], seed=1), faster]
    assert [run.alias_of for run in deduplicate(runs)] == [None, LAST, None, None]


def test_a_row_that_has_finished_or_begun_the_run_keeps_it(twins) -> None:
    one, other = twins
    record(other, checkpoint=True)
    assert makers(deduplicate(twins)) == [("twin", None), (LAST, "twin")]
    assert makers(deduplicate([one])) == [("twin", None), (LAST, "twin")]
    record(one, result=True)
    assert makers(deduplicate(twins)) == [(LAST, None), ("twin", LAST)]
    record(other, result=True)  # two that are finished stay as they are
    assert makers(deduplicate(twins)) == [(LAST, None), ("twin", None)]


def test_a_config_alone_and_records_that_disagree_are_no_run(twins) -> None:
    one, other = twins
    record(other)
    assert makers(deduplicate([one])) == [(LAST, None)]
    record(other, result=True, digest="another")
    assert makers(deduplicate([one])) == [(LAST, None)]


def test_a_run_that_will_be_overwritten_is_not_shared_before_it_is(twins) -> None:
    other = twins[1]
    record(other, result=True)
    assert makers(deduplicate(twins, {"twin"})) == [(LAST, None), ("twin", LAST)]
    (other.folder / OVERWRITTEN).touch()
    assert makers(deduplicate(twins, {"twin"})) == [(LAST, "twin"), ("twin", None)]


def test_only_folders_named_as_runs_are_runs(tmp_path: Path) -> None:
    for name in ("gelu/seed-10", "gelu/seed-9", "report/seed-x", "gelu/seed-1/seed-2", "seed-3"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "gelu/seed-4").touch()
    names = [str(path.relative_to(tmp_path)) for path in run_folders(tmp_path)]
    assert names == ["gelu/seed-1", "gelu/seed-9", "gelu/seed-10"]
