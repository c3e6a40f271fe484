"""The report as its reader finds it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import ablations
from ablations.designs import DesignSpec, Effect, build_design
from report import claims, numbers
from report.judgement import Answer, Judgement, Verdict
from report.page import FIGURES, TABLES, write
from report.statistics import Estimate, Uncertainty
from studies.plan import Family, Plan, note_plan
from tests.report.conftest import StudyFolder
from utils.files import one_writer

Make = Callable[..., StudyFolder]
PAIR = ("training-recipe", "baseline")


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


@pytest.fixture
def three_seeds(make_study: Make) -> StudyFolder:
    """Three seeds: width gains 10 points on depthwise, inverted-bottleneck about nothing."""
    study = make_study(test=1000, synthetic=False)
    rng = np.random.default_rng(0)
    for seed, (low, high) in enumerate([(600, 700), (604, 706), (608, 700)]):
        study.add("depthwise", rng.permutation(1000) < low, seed=seed)
        study.add("width", rng.permutation(1000) < high, seed=seed)
        study.add("inverted-bottleneck", rng.permutation(1000) < high, seed=seed)
    return study


def page(study: StudyFolder) -> str:
    return (study.root / "report" / "report.md").read_text(encoding="utf-8")


def table(text: str, title: str) -> dict[str, list[str]]:
    """The first table of a section, by the first cell of its rows."""
    (block, *_) = re.findall(r"(?:^\|.*\|$\n?)+", section(text, title), flags=re.MULTILINE)
    rows = [line.split("|")[1:-1] for line in block.splitlines()[2:]]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def test_everything_promised_is_there(whole: StudyFolder) -> None:
    files = {path.name for path in (whole.root / "report").iterdir()}
    images = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    tables = {f"{name}.csv" for name in TABLES}
    assert files == images | tables | {"report.md", "report.html"}
    assert not list(whole.root.glob(".report-*")), "the folder it was made in is gone"
    assert set(re.findall(r"\((\w+)\.png\)", page(whole))) == set(FIGURES)


def test_the_first_screen_has_scope_reach_and_each_claim(whole: StudyFolder) -> None:
    first, _, rest = page(whole).partition("\n## The paper's claims\n")
    assert "**These images are synthetic**" in first
    assert "1,800 training, 200 validation and 400 test images of 6 classes at 64 pixels" in first
    assert "the paper's without RandAugment" not in first, "it is not known to be off"
    assert (
        "With one seed and 400 test images: by how much these very networks differ, to ±" in first
    )
    assert "so one seed gives no verdict" in first
    claims = table(page(whole), "The paper's claims")
    outcome, here, interval, paper, n, _ = claims["1 training-recipe"]
    assert (outcome, here, paper, n) == ("one seed, no verdict", "+2.50", "+2.69", "1")
    assert re.fullmatch(r"\[\+\d\.\d\d, \+\d\.\d\d\]", interval)
    assert "kernel-5 against 7 depthwise-first" in claims
    assert "13 separate-downsampling" not in claims, "layer-norm has no finished run"
    assert claims["13 separate-downsampling against swin-pocket"][3] == "+0.67"
    assert "**From outside.**" in section(page(whole), "The paper's claims")
    assert rest.index("\n## How sure\n") < rest.index("\n## The steps\n")


def test_the_smallest_difference_comes_before_any_result(three_seeds: StudyFolder) -> None:
    first, _, rest = three_seeds.report()[1].partition("\n## ")
    found = re.search(r"A true difference of (\d+\.\d\d) points of top-1 accuracy", first)
    assert found is not None
    assert float(found[1]) < 100
    assert "To find 0.3 points as surely, 1,000 seeds would not do" in first
    assert "No comparison can show a difference to be smaller than 0.3 points" in first
    assert "Of 3 claims: 2 confirmed, 1 undecided" in rest
    for line in ("Question", "Spread", "Family", "Interim analyses", "Limits"):
        assert f"\n- **{line}**: " in rest


@pytest.mark.parametrize(
    ("verdict", "low", "high", "paper", "outcome"),
    [
        ("gain", 1.8, 2.2, 1.0, "confirmed"),
        ("gain", 1.8, 2.2, -1.0, "contradicted"),
        ("no difference", -0.1, 0.1, 1.0, "contradicted"),
        ("no difference", -0.1, 0.1, 0.2, "confirmed"),
        ("not resolved", -1.9, 2.1, 0.5, "undecided"),
        ("not resolved", -1.9, 2.1, 9.0, claims.EXCLUDED),
        ("not resolved", -1.9, 2.1, -9.0, claims.EXCLUDED),
    ],
)
def test_a_claim_is_confirmed_contradicted_or_open(
    verdict: Verdict, low: float, high: float, paper: float, outcome: str
) -> None:
    one = Judgement(Effect("b", "", {"b": 1.0, "a": -1.0}), 0.3, "fixed")
    unsure = Uncertainty(1.0, 4, 0.0)
    one.estimated = Estimate((low + high) / 2, unsure, {"fixed": unsure}, 3, 3)
    one.answers["fixed"] = Answer("fixed", verdict=verdict, low=low, high=high)
    assert claims.outcome(one, paper) == outcome


def test_the_steps_have_difference_interval_and_verdict_first(three_seeds: StudyFolder) -> None:
    three_seeds.add("baseline", 300)
    text = three_seeds.report()[1]
    assert re.search(r"\| step +\| +difference \| +95 % interval \| verdict ", text)
    rows = table(text, "The steps")
    assert list(rows) == ["0 baseline", "4 depthwise", "5 width", "6 inverted-bottleneck"], (
        "only the steps that were requested"
    )
    difference, interval, verdict, n, top1, change = rows["5 width"]
    assert (difference, verdict, n) == ("+9.80", "gain", "3")
    assert interval.startswith("[+")
    assert top1 == "70.20 ± 0.35 (n = 3)"
    assert change == "width as in Swin"
    assert rows["6 inverted-bottleneck"][2] == "not resolved"
    assert rows["4 depthwise"][2] == "patchify-stem has no finished run"
    assert "synthetic" not in text
    assert "Deviation: no plan was written before the first result." in text
    assert "Not run: seeds 1 and 2 of 0 baseline." in text


def test_a_design_without_the_path_begins_with_its_own_table(make_study: Make) -> None:
    study = make_study(test=500)
    regime = ablations.get_regime("pocket")
    design = build_design(ablations.PAPER, regime, DesignSpec("leave-one-out"))
    study.note(designs=[design.record])
    rng = np.random.default_rng(0)
    for place, row in enumerate(design.variants):
        for seed in range(2):
            right = 300 - 60 * ("gelu" in row.name) + 4 * ((place + seed) % 3)
            study.add(row.name, rng.permutation(500) < right, seed=seed)
    text = study.report()[1]
    assert re.findall(r"\n## (.*)", text)[:2] == ["Leave one out: roadmap paper", "How sure"]
    assert "![Leave one out: roadmap paper](design_1_leave_one_out.png)" in text
    assert table(text, "Leave one out: roadmap paper")["gelu"][2] == "gain"


def test_both_intervals_are_shown_only_where_they_differ(three_seeds: StudyFolder) -> None:
    text = three_seeds.report()[1]
    assert "<br>this test set [" in section(text, "The steps"), "images at random: 1,000 are few"
    for seed in range(3):  # the images that are right are the same: new ones add nothing
        three_seeds.add("kernel-7", 700 + 8 * seed, seed=seed)
        three_seeds.add("gelu", 700 + 8 * seed, seed=seed)
    assert "<br>" not in "".join(table(three_seeds.report()[1], "The steps")["9 gelu"])


def test_nothing_goes_beyond_what_accuracy_can_be(make_study: Make) -> None:
    assert numbers.interval(*numbers.possible(-119.0, 60.0)) == "[−100.00, +60.00]"
    study = make_study(test=100)
    for seed in range(2):
        study.add("depthwise", 30 + 40 * seed, seed=seed)
        study.add("width", 70 - 40 * seed, seed=seed)
    assert "**What it can find: nothing.**" in study.report()[1]


def test_collapsed_and_odd_runs_are_named_and_leave_the_others_their_verdicts(
    make_study: Make,
) -> None:
    study = make_study(test=600)
    rng = np.random.default_rng(0)
    for place, step in enumerate(study.steps[:5]):
        for seed in range(3):
            hits = 300 + 60 * place + 3 * ((place + seed) % 3)
            hits = {"stage-ratio": 100, "depthwise": hits - 150 * (seed == 2)}.get(step, hits)
            study.add(step, rng.permutation(600) < hits, seed=seed)
    text = study.report()[1]
    first, rows = text.partition("\n## ")[0], table(text, "The steps")
    assert "**3 runs collapsed**: stage-ratio/seed-0 (no better than chance), " in first
    assert "Likely causes: " in first
    assert "**depthwise, seed 2, is far from the other runs.**" in first
    verdicts = [row[2] for row in rows.values()]
    assert verdicts[1] == "gain"
    assert verdicts[2:4] == ["collapsed, no verdict"] * 2
    assert verdicts[4] == "not resolved"


def test_steps_of_a_part_of_the_path_add_no_comparison(make_study: Make) -> None:
    study = make_study(test=200)
    for step in (*PAIR, "stage-ratio"):
        study.add(step, 100)
    note_plan(study.root, Plan((Family("paper", (PAIR, ("stage-ratio", PAIR[0])), (1,)),), (0,)))
    text = study.report()[1]
    assert "not planned" not in text
    assert list(table(text, "The paper's claims")) == ["1 training-recipe", "2 stage-ratio"]


def test_a_difference_has_one_value_wherever_it_is_shown(make_study: Make) -> None:
    """Decided after two seeds: the third run of one row changes its mean, and no difference."""
    study = make_study(test=1000)
    for seed in range(3):
        study.add("baseline", 500 + 3 * seed, seed=seed)
        study.add("training-recipe", 700 - 3 * seed + 60 * (seed == 2), seed=seed)
    note_plan(study.root, Plan((Family("paper, cumulative", (PAIR,), (2, 3)),), (0, 1, 2)))
    tables, text = study.report()
    assert table(text, "The steps")["1 training-recipe"][0] == "+19.70"
    assert table(text, "The paper's claims")["1 training-recipe"][1] == "+19.70"
    for name, column in (("costs", "points"), ("steps", "difference"), ("claims", "difference")):
        assert tables[name][column].dropna().tolist() == pytest.approx([19.7])
    assert "A comparison keeps the seeds of the analysis that decided it" in text


def test_what_is_missing_is_listed(whole: StudyFolder, make_study: Make) -> None:
    lines = section(page(whole), "Missing, left out and changed since the plan")
    assert "- 12 layer-norm: seed 0 is unfinished (3 epochs done)." in lines
    study = make_study(test=200)
    for step in PAIR:
        study.add(step, 100)
    plan = Plan((Family("paper", (PAIR, ("gelu", "kernel-7")), (3,)),), (0, 1, 2))
    note_plan(study.root, plan)
    text = study.report()[1]
    assert "- Not run: seeds 1 and 2 of 0 baseline and 1 training-recipe." in text
    assert "- Not run: seeds 0, 1 and 2 of 8 kernel-7 and 9 gelu." in text


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


def test_csv_files_have_full_precision_and_a_row_for_each_thing(whole: StudyFolder) -> None:
    folder = whole.root / "report"
    known = {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES}
    steps, runs, curves = (known[name] for name in ("steps", "runs", "curves"))
    assert list(steps["name"]) == [name for name in whole.steps if name != "kernel-11"]
    by_name = steps.set_index("name")
    assert by_name.loc["training-recipe", "top1"] == 52.5
    assert by_name.loc["training-recipe", "difference"] == 2.5
    assert by_name.loc["depthwise", "paper_difference"] == 78.28 - 79.51
    wanted = "fixed_test_low new_images_high these_runs_low p p_holm p_margin_holm detectable"
    assert set(wanted.split()) <= set(steps.columns)
    assert len(runs) == 17
    assert list(runs[runs["state"] == "unfinished"]["step"]) == ["layer-norm"]
    assert len(curves) == 16 * 4 + 3
    lines = (whole.folder("width") / "metrics.jsonl").read_text().splitlines()
    mine = curves[(curves["step"] == "width") & (curves["epoch"] == 3)]
    assert mine["validation_top1"].item() == json.loads(lines[2])["validation_top1"]
    provenance = known["provenance"].set_index("what")["value"]
    assert provenance["Config hash"] == whole.hash
    assert (
        provenance["Runs"]
        == "16 finished (0 of them shared between rows), 1 unfinished, 0 left out"
    )
    assert provenance["Code version"] == "abc1234"
    assert known["recipe"].set_index("field").loc["optimizer"].tolist() == ["adamw", "sgd"]
    assert known["time"].set_index("part").loc["backward", "seconds"] == 16 * 60


def test_the_html_page_is_one_file_with_the_runs_in_a_fold(whole: StudyFolder) -> None:
    text = (whole.root / "report" / "report.html").read_text(encoding="utf-8")
    assert len(text.encode()) < 5e5
    sources = re.findall(r' (?:src|href)="([^"]*)"', text.split("</main>")[0])
    for source in sources:
        beside = (whole.root / "report" / source).is_file()
        assert source.startswith("data:") or beside or f'id="{source[1:]}"' in text, source
    for name in FIGURES:
        assert f'<figure id="figure-{name}">' in text
    assert "<summary>Runs (17)</summary>" in text
    assert "abc1234" in text
    assert "abc1234" not in page(whole), "the tables of runs are no part of the Markdown page"


def test_the_same_runs_give_the_same_bytes(whole: StudyFolder) -> None:
    folder = whole.root / "report"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    write(whole.root)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_report_without_a_finished_run_has_curves_and_what_is_missing(
    make_study: Make, epochs: int
) -> None:
    study = make_study()
    study.add("depthwise", 0, finished=False, epochs=epochs)
    text = study.write()
    assert "No run is finished yet" in text
    assert f"- 4 depthwise: seed 0 is unfinished ({epochs} epochs done)." in text
    drawn = {path.name for path in (study.root / "report").glob("*.png")}
    assert drawn == ({"learning_curves.png"} if epochs else set())


def test_a_report_grows_and_shrinks_with_the_study(make_study: Make) -> None:
    study = make_study()
    study.add("depthwise", 200)
    assert "No step can be compared yet" in study.write()
    study.add("width", 300)
    assert table(study.write(), "The steps")["5 width"][2] == "one seed, no verdict"
    assert (study.root / "report" / "differences.svg").exists()
    study.edit("config.json", "width", study_hash="feedbeeffeed")
    text = study.write()
    assert not (study.root / "report" / "differences.svg").exists(), "its run is out"
    assert "- width/seed-0: it was made by another config" in text.partition("\n## ")[0]
    assert table(text, "The steps")["5 width"][2] == "no finished run"


def test_hostile_names_cannot_break_the_page(make_study: Make) -> None:
    study = make_study()
    study.add("depthwise", 200)
    name = "a|b <script>alert(1)</script>\n# not a heading {{ 7*7 }} [x](http://x) `code`"
    dataset = json.loads((study.root / "study.json").read_text())["dataset"]
    study.note(name=name, dataset={**dataset, "description": "pipes | and\nlines <b>"})
    text = study.write()
    assert "49" not in text.splitlines()[0]
    before_the_script, _, _ = (
        (study.root / "report" / "report.html").read_text(encoding="utf-8").partition("</main>")
    )
    assert "<script" not in before_the_script
    assert "<b>" not in before_the_script
    assert 'href="http' not in before_the_script
    assert before_the_script.count("<h1") == 1
