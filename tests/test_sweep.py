"""all --sweep from the command line: what is trained, what is shared, what is reported, what is
refused."""

import pytest

import runner
from tests.conftest import STUDY

pytestmark = pytest.mark.usefixtures("no_figures")

SWEEP = ["all", *STUDY, "--no-trial", "--sweep", "lr=0.5x,1x"]


def test_each_value_is_trained_once_and_the_rows_own_shares_its_run(
    study_places, tmp_path, capsys
) -> None:
    assert runner.main([*SWEEP, *study_places, "--dry-run"]) == 0
    assert "3 runs, 1 finished, 1 shared, 1 to train" in capsys.readouterr().out
    assert not (tmp_path / "finished_study/runs/s/patchify-stem-lr-0.5x").exists()
    assert runner.main([*SWEEP, *study_places]) == 0
    study = tmp_path / "finished_study/runs/s"
    assert (study / "patchify-stem-lr-0.5x/seed-0/result.json").exists()
    assert not (study / "patchify-stem-lr-1x/seed-0/result.json").exists()
    values = (study / "report/sweep_1_lr_values.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in values[1:]] == [
        ["patchify-stem", "0.5x", "False"],
        ["patchify-stem", "1x", "True"],
    ]
    assert runner.main(["pack", str(study)]) == 0
    assert runner.main(["report", str(study.with_name("s.pack"))]) == 0
    page = (study / "report/report.md").read_text()
    assert (study.with_name("s-report") / "report.md").read_text() == page
    assert "## Sweep of lr: roadmap paper" in page
    # The study's plan is as it was, and the same command finds nothing left to do.
    assert "was planned" not in page
    capsys.readouterr()
    assert runner.main([*SWEEP, *study_places]) == 0
    assert "3 runs, 2 finished, 1 shared\n" in capsys.readouterr().out.replace(
        ", 0 to resume, 0 to train", ""
    )
