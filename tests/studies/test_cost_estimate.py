"""The forecast of a study, and its correction."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ablations import PAPER, get_regime
from data import datasets
from data.augmentation import Augmentation
from data.sizes import Sizes, sizes
from models.builder import empty
from studies import speed
from studies.cost_estimate import CostEstimate, run_bytes
from studies.run import Run
from studies.speed import Speed
from studies.study import Study
from training.execution import Execution, open_stores
from training.recipe import CLASSIC, Recipe, StudyConfig
from training.spec import short_side
from training.update import make_optimizer

CPU = torch.device("cpu")
FIFTY = Speed(50.0, "measured now")
RECIPE = Recipe(
    epochs=4,
    batch_size=12,
    lr_batch=12,
    warmup_epochs=1,
    augmentation=Augmentation(mixup=0.0, cutmix=0.0),
)
SIZES = Sizes(
    train=100, validation=20, test=30, classes=3, download=0, cache=0, height=37, width=40
)


def planned(folder: Path, step: str, seed: int = 0) -> Run:
    study = Study(folder, StudyConfig("pocket", "pocket", 32, "fp32", RECIPE), "")
    found = PAPER.step(step)
    return Run(
        study, step, found.number, seed, PAPER.architecture(found, get_regime("pocket"), 3), RECIPE
    )


def make(*runs: Run) -> CostEstimate:
    return CostEstimate(runs, SIZES, Execution(CPU))


def test_the_forecast_is_corrected_by_what_runs_took(tmp_path) -> None:
    bill = make(
        planned(tmp_path, "depthwise"), planned(tmp_path, "gelu"), planned(tmp_path, "depthwise", 1)
    )
    first, second, third = bill.expected
    assert min(first, second, third) > 0
    assert bill.seconds_left() == pytest.approx(first + second + third)
    said = bill.finished("depthwise", 0, 3 * first)
    # The other step by the factor seen, the same step by what it really took.
    assert bill.seconds_left() == pytest.approx(3 * second + 3 * first)
    assert "2 runs left" in said
    assert "3.00 times what was forecast" in said
    bill.finished("gelu", 0, second)
    assert bill.finished("depthwise", 1, 1.0) == "all 3 runs are finished"
    assert bill.seconds_left() == 0


def test_the_first_line_says_what_is_trained_how_long_and_where_the_report_will_be(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(speed, "measure", lambda *_: FIFTY)
    runs = [planned(tmp_path, step, seed) for step in ("depthwise", "gelu") for seed in (0, 1)]
    assert re.fullmatch(
        r"2 networks on 100 images of pocket, 32x32: about \d+ s of training on this machine, "
        r"give or take 15%; "
        rf"the report: {re.escape(str(tmp_path / 'report'))}",
        make(*runs).expectation,
    )


def test_rows_that_differ_by_a_rate_alone_are_measured_once(tmp_path, monkeypatch) -> None:
    measured = []
    monkeypatch.setattr(speed, "measure", lambda *_: measured.append(1) or FIFTY)
    run = planned(tmp_path, "depthwise")
    other = replace(run, step="depthwise-lr-0.5x", recipe=run.recipe.change(lr=2e-3))
    assert make(
        run, other, replace(other, step="larger", recipe=RECIPE.change(batch_size=24))
    ).speeds.keys() == {"depthwise", "depthwise-lr-0.5x", "larger"}
    assert len(measured) == 2


def test_a_finished_run_is_taken_instead_of_a_measurement(tmp_path, monkeypatch) -> None:
    """Of the same device; and its whole time, evaluation included."""
    measured = []
    monkeypatch.setattr(speed, "measure", lambda *_: measured.append(1) or FIFTY)
    device = make(planned(tmp_path, "gelu")).device_name
    assert len(measured) == 1
    for step, name in (("gelu", device), ("depthwise", "another device")):
        (tmp_path / step / "seed-0").mkdir(parents=True)
        result = {
            "device": name,
            "top1": 50.0,
            "images_per_second": 7.0,
            "seconds": {"total": 1234.0},
        }
        (tmp_path / step / "seed-0/result.json").write_text(json.dumps(result))
    bill = make(
        *(planned(tmp_path, step, seed) for step in ("gelu", "depthwise") for seed in (0, 1))
    )
    assert len(measured) == 2
    assert bill.expected[1] == 1234.0
    assert bill.speeds["depthwise"].images_per_second == 50.0
    assert bill.standings == ["finished", "to train", "finished", "to train"]
    assert bill.seconds_left() == pytest.approx(1234.0 + bill.expected[3])


def test_an_unfinished_run_counts_for_what_is_left_of_it(tmp_path) -> None:
    folder = tmp_path / "gelu/seed-0"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").touch()
    (folder / "metrics.jsonl").write_text("{}\n" * 3)
    bill = make(planned(tmp_path, "gelu"))
    assert bill.standings == ["to resume"]
    assert bill.seconds_left() == pytest.approx(bill.expected[0] / 4)


def test_what_other_processes_finished_is_not_left(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(speed, "measure", lambda *_: FIFTY)
    bill = make(*(planned(tmp_path, "gelu", seed) for seed in (0, 1, 2)))
    done = tmp_path / "gelu/seed-1/result.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    assert bill.finished("gelu", 0, 5.0).startswith("1 run left, about 5 s")


@pytest.mark.parametrize(
    "text", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"]
)
def test_a_device_without_room_for_two_images_is_told(text, tmp_path, monkeypatch) -> None:
    def full(*_: object) -> int:
        raise RuntimeError(text)

    monkeypatch.setattr(speed, "measure", full)
    with pytest.raises(
        ValueError,
        match="^gelu runs out of memory, even with two images: choose a lower --resolution",
    ):
        make(planned(tmp_path, "gelu"))


def test_measurements_are_remembered_by_a_study_only(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(speed, "measure", lambda *_: FIFTY)
    first = make(planned(tmp_path, "gelu"))
    speed.remember(tmp_path, first.device_name, first.speeds)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "study.json").write_text("{}")
    speed.remember(tmp_path, first.device_name, first.speeds)
    monkeypatch.setattr(speed, "measure", lambda *_: pytest.fail("measured again"))
    assert make(planned(tmp_path, "gelu")).speeds["gelu"].source == "remembered"
    (tmp_path / "speeds.json").write_text("torn")
    monkeypatch.setattr(speed, "measure", lambda *_: Speed(60.0, "measured now"))
    assert make(planned(tmp_path, "gelu")).speeds["gelu"].images_per_second == 60.0


@pytest.mark.parametrize(
    "recipe", [RECIPE, CLASSIC, replace(RECIPE, ema=0.9)], ids=["adamw", "sgd", "average"]
)
def test_disk_is_what_weights_and_checkpoints_take(recipe, tmp_path) -> None:
    from training import checkpoint

    model = empty(planned(tmp_path, "gelu").architecture)
    optimizer = make_optimizer(model, recipe, CPU)
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if recipe.ema:
        state["average"] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoint.save(tmp_path / "c", state)
    params = sum(parameter.numel() for parameter in model.parameters())
    expected = 2 * params * 4 + 3 * (tmp_path / "c").stat().st_size
    assert run_bytes(params, recipe, 0) == pytest.approx(expected, rel=0.1)


def test_what_a_data_set_takes_is_known_before_it_is_there(images, tmp_path) -> None:
    known = sizes(datasets.check("food101", tmp_path), tmp_path / "cache", 256)
    assert (known.train, known.validation, known.test, known.classes) == (
        68_175,
        7_575,
        25_250,
        101,
    )
    assert known.download > 5e9
    assert known.cache == 101_000 * 256 * 341 * 3
    found = datasets.check(f"imagefolder:{images}", tmp_path)
    dataset = found.load()
    before = sizes(found, tmp_path / "cache", 37)
    assert (before.train, before.validation, before.test) == tuple(
        len(s) for s in dataset.splits.values()
    )
    assert list(tmp_path.iterdir()) == []
    stores = open_stores(dataset, tmp_path / "cache", short_side(32, (0.5, 1.0)))  # 37
    assert before.cache == sum(
        store.nbytes for store in (stores.train, stores.validation, stores.test)
    )
    assert sizes(found, tmp_path / "cache", 37).cache == 0


def test_the_total_says_how_sure_it_is(tmp_path, monkeypatch) -> None:
    found = iter([Speed(50.0, "measured now", error=0.1), Speed(50.0, "estimated now", error=0.5)])
    monkeypatch.setattr(speed, "measure", lambda *_: next(found))
    said = str(make(planned(tmp_path, "depthwise"), planned(tmp_path, "gelu")))
    last = said.splitlines()[-1]
    assert last.endswith("; 1 of 2 rates are estimated, for their batches take too long to try")
    error = re.search(r", give or take (\d+)%", last)
    assert error
    assert 10 < int(error[1]) < 50  # between the two, weighed by their seconds
