"""A network-and-recipe is never trained twice in a study, whichever rows ask for it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from studies import run_queue
from studies.index import Index, run_folders
from studies.run import Run, share
from studies.study import MADE_AGAIN
from training.interrupt import StopRequest


@pytest.fixture
def twins(make_run) -> list[Run]:
    """One network and recipe, asked for by two rows."""
    return [
        make_run("13", epochs=1, warmup_epochs=0),
        replace(make_run("13", epochs=1, warmup_epochs=0), step="twin"),
    ]


def record(run: Run, result: bool = False, checkpoint: bool = False, digest: str = "") -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.json").write_text(
        json.dumps({"digest": digest or run.digest, "number": run.number})
    )
    if result:
        content = {
            "digest": run.digest,
            "top1": 50.0,
            "images_per_second": 1.0,
            "seconds": {"total": 1.0},
        }
        (run.folder / "result.json").write_text(json.dumps(content))
    if checkpoint:
        (run.folder / "checkpoint.pt").touch()


def makers(runs: list[Run]) -> list[tuple[str, str | None]]:
    return [(run.step, run.made_as) for run in runs]


def test_of_two_rows_that_ask_for_the_same_run_the_first_makes_it(
    twins, stores, execution, capsys
) -> None:
    one, other = twins
    runs = share(twins)
    assert makers(runs) == [("separate-downsampling", None), ("twin", "separate-downsampling")]
    assert run_queue.run_all(runs, stores, execution, StopRequest()) == 0
    assert "twin seed 0: the run of separate-downsampling, top-1 " in capsys.readouterr().out
    assert sorted(path.name for path in other.folder.iterdir()) == ["config.json"]
    assert Index(one.study.folder).home(other.folder) == one.folder


def test_seeds_and_recipes_of_their_own_are_not_shared(twins) -> None:
    others = [
        *twins,
        replace(twins[1], seed=1),
        replace(twins[1], step="faster", recipe=twins[1].recipe.change(lr=0.1)),
    ]
    assert [run.made_as for run in share(others)] == [None, "separate-downsampling", None, None]


def test_a_row_that_has_finished_or_begun_it_makes_it(twins) -> None:
    one, other = twins
    record(other, checkpoint=True)
    assert makers(share(twins)) == [("twin", None), ("separate-downsampling", "twin")]
    assert makers(share([one])) == [("twin", None), ("separate-downsampling", "twin")]
    record(one, result=True)
    assert makers(share(twins)) == [
        ("separate-downsampling", None),
        ("twin", "separate-downsampling"),
    ]
    record(other, result=True)  # two that are finished stay what they are
    assert makers(share(twins)) == [("separate-downsampling", None), ("twin", None)]


def test_a_record_alone_and_records_that_disagree_are_no_run(twins) -> None:
    one, other = twins
    record(other)
    assert makers(share([one])) == [("separate-downsampling", None)]
    record(other, result=True, digest="another")
    assert makers(share([one])) == [("separate-downsampling", None)]


def test_what_is_going_to_be_made_again_is_not_shared_until_it_is(twins) -> None:
    other = twins[1]
    record(other, result=True)
    assert makers(share(twins, {"twin"})) == [
        ("separate-downsampling", None),
        ("twin", "separate-downsampling"),
    ]
    (other.folder / MADE_AGAIN).touch()
    assert makers(share(twins, {"twin"})) == [("separate-downsampling", "twin"), ("twin", None)]


def test_only_folders_named_as_runs_are_runs(tmp_path: Path) -> None:
    for name in ("gelu/seed-10", "gelu/seed-9", "report/seed-x", "gelu/seed-1/seed-2", "seed-3"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "gelu/seed-4").touch()
    assert [str(path.relative_to(tmp_path)) for path in run_folders(tmp_path)] == [
        "gelu/seed-1",
        "gelu/seed-9",
        "gelu/seed-10",
    ]
