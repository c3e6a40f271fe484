"""The report as its reader finds it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from report.page import FIGURES, TABLES, write
from studies.plan import Family, Plan, note_plan
from tests.report.conftest import StudyFolder
from utils.files import one_writer
from utils.markdown import amount, plain, signed, table
from utils.text import duration, listed

Make = Callable[..., StudyFolder]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """All steps but two, one seed; step k is right on the first 200 + 10 k of 400 images. Its
    report is made."""
    study = StudyFolder(tmp_path_factory.mktemp("runs") / "demo")
    for place, step in enumerate(study.steps):
        if step == "layer-norm":
            study.add(step, 0, finished=False, epochs=3)
        elif step != "kernel-11":
            study.add(step, 300 if step == "gelu" else 200 + 10 * place)
    write(study.root)
    return study


def page(study: StudyFolder) -> str:
    return (study.root / "report" / "report.md").read_text(encoding="utf-8")


def tables(text: str, *, links: bool = False) -> list[list[list[str]]]:
    """Every Markdown table of a page as rows of cells, of links only their words unless `links`."""
    if not links:
        text = re.sub(r"\[([^\]]*)\]\(#[\w-]*\)", r"\1", text)
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE)
    return [
        [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.splitlines()
        ]
        for block in blocks
    ]


def main_rows(study: StudyFolder) -> dict[str, list[str]]:
    return {row[1].strip("*"): row for row in tables(page(study))[0][2:]}


def section(study: StudyFolder, title: str) -> str:
    return page(study).split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_everything_promised_is_there(whole: StudyFolder) -> None:
    files = {path.name for path in (whole.root / "report").iterdir()}
    images = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    tables = {f"{name}.csv" for name in TABLES}
    assert files == images | tables | {"report.md", "report.html", "tensorboard"}
    assert not list(whole.root.glob(".report-*")), "the folder it was made in is gone"


def test_every_table_is_well_formed(whole: StudyFolder) -> None:
    found = tables(page(whole))
    assert len(found) == 12
    for rows in found:
        assert len({len(row) for row in rows}) == 1
        assert all(re.fullmatch(r":?-+:?", cell) for cell in rows[1])


def test_the_main_table_has_a_row_for_every_step_with_its_numbers(whole: StudyFolder) -> None:
    rows = main_rows(whole)
    assert list(rows) == whole.steps
    # baseline: 200 of 400 right; training-recipe: 210 of 400, 10 images more.
    assert rows["baseline"][:2] == ["0", "baseline"]
    assert rows["baseline"][5:] == ["50.00", "–", "–", "–", "–", "76.13", "–"]
    number, name, change, params, gflops, top1, *judged, paper, paper_difference = rows[
        "training-recipe"
    ]
    difference, these, new, verdict = judged
    assert (number, name, change) == ("1", "training-recipe", "the modern training recipe")
    assert (params, gflops, top1) == ("0.101", "0.0290", "52.50")
    assert (difference, these) == ("+2.50", "–")
    assert re.fullmatch(r"\[\+\d\.\d\d, \+\d\.\d\d\] for these runs", new)
    assert verdict == "one seed, no verdict"
    assert (paper, paper_difference) == ("78.82 ± 0.07", "+2.69")
    # gelu is held against kernel-7 (290 right), not against kernel-11, the row above it.
    assert rows["gelu"][6] == "+2.50"
    assert rows["kernel-5"][0] == "–"
    assert rows["kernel-5"][2].endswith("(from 7 depthwise-first)")


def test_what_cannot_be_compared_says_why(whole: StudyFolder) -> None:
    rows = main_rows(whole)
    assert rows["kernel-11"][3:10] == ["–", "–", "–", "–", "–", "–", "no finished run"]
    assert rows["separate-downsampling"][6:10] == ["–", "–", "–", "layer-norm has no finished run"]
    assert rows["swin-pocket"][6:10] == ["–", "–", "–", "–"]
    assert rows["swin-pocket"][10] == "81.30", "the pocket Swin is held against the paper's Swin-T"


def test_what_is_missing_is_listed(whole: StudyFolder) -> None:
    missing = section(whole, "What is missing")
    assert "- Not run yet: kernel-11." in missing
    assert "- 12 layer-norm: seed 0 is unfinished (3 epochs done)." in missing
    assert len(re.findall("^- ", missing, flags=re.MULTILINE)) == 2
    assert "16 of 18 steps have a finished run" in page(whole)


def test_processes_put_a_report_in_its_place_one_after_the_other(make_study: Make) -> None:
    study = make_study(test=200)
    study.add("depthwise", 100)
    with ThreadPoolExecutor(1) as pool:
        with one_writer(study.root / "report"):
            other = pool.submit(write, study.root)
            while not (list(study.root.glob(".report-*/report.html")) or other.done()):
                time.sleep(0.05)
            with pytest.raises(TimeoutError):
                other.result(timeout=0.5)
            assert not (study.root / "report").exists()
        assert other.result().exists()
    assert [path.name for path in study.root.glob(".report*")] == []


def test_seeds_of_the_plan_that_no_run_has_are_missing(make_study: Make) -> None:
    study = make_study(test=200)
    for step in ("baseline", "training-recipe"):
        study.add(step, 100)
    note_plan(
        study.root, Plan((Family("paper", (("training-recipe", "baseline"),), (3,)),), (0, 1, 2))
    )
    write(study.root)
    assert "- In the plan and not run for any step: seeds 1 and 2." in section(
        study, "What is missing"
    )


def test_the_page_is_honest_about_images_seeds_and_the_paper(whole: StudyFolder) -> None:
    text = page(whole)
    assert "**These images are synthetic**" in text
    assert "**one seed, no verdict**: the interval is for *these runs* on new images" in text
    assert "compared with the paper's rows of the regime tiny" in text
    assert "Compare the differences, not the levels" in text
    assert "Spearman" in text


def test_the_provenance_names_code_data_and_machines(whole: StudyFolder) -> None:
    *_, known, recipe, time = tables(page(whole))
    provenance = {row[0]: row[1] for row in known[2:]}
    assert provenance["Config hash"] == whole.hash
    assert provenance["Images"] == "1,800 training, 200 validation, 400 test"
    assert provenance["Resolution"] == "64 pixels"
    assert provenance["Runs"] == "16 finished, 1 unfinished, 0 left out"
    assert provenance["Code version"] == "abc1234"
    assert provenance["Libraries"] == "python 3.11, torch 2.15, torchvision 0.29"
    assert provenance["Time of the finished runs"] == "27 min"
    assert ["optimizer", "adamw", "sgd"] in recipe
    assert ["betas", "0.9, 0.999", "0.9, 0.999"] in recipe
    assert ["backward", "16 min", "60.0 %"] in time


def test_csv_files_have_full_precision_and_a_row_for_each_thing(whole: StudyFolder) -> None:
    folder = whole.root / "report"
    steps, runs, curves = (
        pd.read_csv(folder / f"{name}.csv") for name in ("steps", "runs", "curves")
    )
    assert list(steps["name"]) == whole.steps
    expected = (
        "number name change after params gflops_fvcore gflops_paper_convention runs top1 top1_std"
    )
    expected += " difference fixed_test_low new_images_high p p_holm p_margin_holm verdict"
    expected += " detectable seeds_needed paper_top1 paper_difference"
    assert set(expected.split()) <= set(steps.columns)
    by_name = steps.set_index("name")
    assert by_name.loc["training-recipe", "top1"] == 52.5
    assert by_name.loc["training-recipe", "difference"] == 2.5
    assert by_name.loc["depthwise", "paper_difference"] == 78.28 - 79.51
    assert len(runs) == 17
    assert list(runs[runs["state"] == "unfinished"]["step"]) == ["layer-norm"]
    assert {
        "step",
        "seed",
        "state",
        "reason",
        "top1",
        "seconds_total",
        "device",
        "code_version",
    } <= set(runs.columns)
    assert len(curves) == 16 * 4 + 3
    assert {
        "step",
        "seed",
        "epoch",
        "lr",
        "train_loss",
        "validation_top1",
        "seconds_forward",
    } <= set(curves.columns)
    stored = json.loads((whole.folder("width") / "metrics.jsonl").read_text().splitlines()[2])[
        "validation_top1"
    ]
    mine = curves[(curves["step"] == "width") & (curves["epoch"] == 3)]
    assert mine["validation_top1"].item() == stored


def test_the_html_page_is_one_file(whole: StudyFolder) -> None:
    text = (whole.root / "report" / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 5e5
    sources = re.findall(r' (?:src|href)="([^"]*)"', text.split("</main>")[0])
    assert all(source.startswith(("data:", "#")) for source in sources)
    for anchor in (source[1:] for source in sources if source.startswith("#")):
        assert f'id="{anchor}"' in text, anchor
    for name in FIGURES:
        assert f'<figure id="figure-{name}">' in text
    assert text.count("<table>") == 12


def test_every_number_of_the_steps_leads_to_its_runs(whole: StudyFolder) -> None:
    raw = [row for row in tables(page(whole), links=True)[0][2:] if row[5] != "–"]
    assert raw[0][5] == "[50.00](#runs-baseline)"
    runs = {row[0]: row for row in tables(section(whole, "Runs"))[0][2:]}
    first = runs['<a id="run-baseline-0"></a><a id="runs-baseline"></a>baseline/seed-0']
    assert first[1:6] == ["50.00", "99.00", "baseline-0", "abc1234", "cpu"]
    assert len(runs) == len(raw) == 16


def test_the_same_runs_give_the_same_bytes(whole: StudyFolder) -> None:
    """All but TensorBoard's files, which have times in them."""
    folder = whole.root / "report"
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    write(whole.root)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_a_report_without_a_finished_run_has_curves_and_what_is_missing(make_study: Make) -> None:
    study = make_study()
    study.add("depthwise", 0, finished=False, epochs=2)
    write(study.root)
    assert "No run is finished yet" in page(study)
    assert "- 4 depthwise: seed 0 is unfinished (2 epochs done)." in page(study)
    drawn = {path.name for path in (study.root / "report").glob("*.png")}
    assert drawn == {"learning_curves.png"}
    assert len(pd.read_csv(study.root / "report" / "curves.csv")) == 2


def test_a_report_on_a_run_that_just_began_is_made(make_study: Make) -> None:
    study = make_study()
    study.add("depthwise", 0, finished=False, epochs=0)
    write(study.root)
    assert "seed 0 is unfinished (0 epochs done)" in page(study)
    assert not list((study.root / "report").glob("*.png"))


def test_a_report_on_one_run_is_made_and_grows_and_shrinks_with_the_study(make_study: Make) -> None:
    study = make_study()
    study.add("depthwise", 200)
    write(study.root)
    assert "No step can be compared yet" in page(study)
    assert main_rows(study)["depthwise"][9] == "patchify-stem has no finished run"
    study.add("width", 300)
    write(study.root)
    assert main_rows(study)["width"][9] == "one seed, no verdict"
    assert (study.root / "report" / "differences.svg").exists()
    study.edit("config.json", "width", study_hash="feedbeeffeed")
    write(study.root)
    assert not (study.root / "report" / "differences.svg").exists(), (
        "a figure of a run that is out must go"
    )
    assert "- width/seed-0: it was made by another config" in section(study, "Runs left out")
    assert main_rows(study)["width"][9] == "no finished run"
    assert "5 width: no run that can be reported" in page(study)


def test_a_folder_without_runs_is_refused_and_nothing_is_written(make_study: Make) -> None:
    study = make_study()
    with pytest.raises(ValueError, match="holds no run yet"):
        write(study.root)
    assert [path.name for path in study.root.iterdir()] == ["study.json"]


def test_several_seeds_give_mean_deviation_and_plain_verdicts(make_study: Make) -> None:
    study = make_study(test=1000, synthetic=False)
    rng = np.random.default_rng(0)
    for seed, (low, high) in enumerate([(600, 700), (604, 706), (608, 700)]):
        study.add("depthwise", rng.permutation(1000) < low, seed=seed)
        study.add("width", rng.permutation(1000) < high, seed=seed)
        study.add("inverted-bottleneck", rng.permutation(1000) < high, seed=seed)
    study.add("baseline", 300, seed=0)
    write(study.root)
    rows = main_rows(study)
    assert rows["depthwise"][5] == "60.40 ± 0.40 (n = 3)"
    assert rows["width"][6] == "+9.80"
    assert all(rows["width"][column].startswith("[+") for column in (7, 8))
    assert rows["width"][9] == "gain"
    assert rows["inverted-bottleneck"][9] == "not resolved"
    text = page(study)
    assert "synthetic" not in text
    assert "| 5 width against 4 depthwise " in section(study, "How sure")
    assert "Deviation: no plan was written before the first result." in section(study, "The plan")
    assert "Seed 1 was not run for 0 baseline." in section(study, "What is missing")


def test_hostile_names_cannot_break_the_page(make_study: Make) -> None:
    study = make_study()
    study.add("depthwise", 200)
    path = study.root / "study.json"
    content = json.loads(path.read_text())
    content["name"] = (
        "a|b <script>alert(1)</script>\n# not a heading {{ 7*7 }} [x](http://x) `code`"
    )
    content["dataset"]["description"] = "pipes | and\nlines"
    path.write_text(json.dumps(content))
    write(study.root)
    assert all(len({len(row) for row in rows}) == 1 for rows in tables(page(study)))
    assert "49" not in page(study).splitlines()[0]
    text = (study.root / "report" / "report.html").read_text(encoding="utf-8")
    before_the_script = text.split("</main>")[0]
    assert "<script" not in before_the_script
    assert 'href="http' not in before_the_script
    assert before_the_script.count("<h1") == 1
    assert "<script>alert" not in text


def test_text_is_made_plain() -> None:
    assert plain("a|b_c _d_ *e*\n<f>") == r"a\|b_c \_d\_ \*e\* &lt;f&gt;"


def test_numbers_are_written_as_a_reader_expects() -> None:
    assert (signed(1.234), signed(-0.5), signed(-0.001)) == ("+1.23", "−0.50", "0.00")
    assert (amount(4.089), amount(0.0310), amount(0)) == ("4.09", "0.0310", "0.00")
    assert (duration(80), duration(600), duration(9000)) == ("80 s", "10 min", "2 h 30 min")
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("none", "a", "a, b and c")
    assert table(["x", "y"], [["a", 1.50]], "lr").splitlines()[0].startswith("| x")


def test_importing_the_room_is_light() -> None:
    heavy = "pandas", "matplotlib", "numpy", "torch", "jinja2"
    check = f"import sys, report; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_run_left_out_is_named_at_the_top(make_study: Make) -> None:
    study = make_study(test=50)
    for step in ("depthwise", "width", "gelu"):
        study.add(step, 20)
    study.edit("result.json", "gelu", code_version="fff9999")
    notes: list[str] = []
    write(study.root, tell=notes.append)
    (note,) = notes
    assert note.startswith("gelu/seed-0 is left out: its code version is fff9999")
    assert "- gelu/seed-0: its code version is fff9999" in page(study).partition("## In short")[0]
    assert main_rows(study)["gelu"][5] == "–"
