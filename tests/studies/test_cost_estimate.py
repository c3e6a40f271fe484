"""The cost of a study, estimated first and corrected by its finished runs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ablations import PAPER, get_regime
from data import datasets
from data.augmentation import Augmentation
from data.sizes import Sizes, sizes
from models.builder import empty
from models.complexity import architecture_complexity
from studies import cost_estimate
from studies.cost_estimate import CostEstimate, Rate, memory_advice, run_bytes
from studies.run import Run
from studies.study import Study
from training.execution import Execution, open_stores
from training.recipe import CLASSIC, Recipe, StudyConfig
from training.spec import short_side
from training.update import make_optimizer

CPU, ROOT = torch.device("cpu"), Path(__file__).parents[2]
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
    architecture = PAPER.architecture(found, get_regime("mini"), 3)
    return Run(study, step, found.number, seed, architecture, RECIPE)


def estimate(*runs: Run) -> CostEstimate:
    return CostEstimate(runs, SIZES, Execution(CPU))


def finish(run: Run, seconds: float, device: str) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    result = {
        "top1": 50.0,
        "test_images": 900,
        "images_per_second": 7.0,
        "seconds": {"total": seconds},
    }
    (run.folder / "result.json").write_text(json.dumps(result | {"device": device}))


@pytest.fixture
def timed(monkeypatch) -> list[str]:
    """The steps whose updates are timed, all at 50 images a second."""
    steps: list[str] = []
    rate = Rate(50.0, "measured now")
    monkeypatch.setattr(cost_estimate, "_TRIES", 1)
    monkeypatch.setattr(
        cost_estimate, "_time_updates", lambda run, _: (steps.append(run.step), rate)[1]
    )
    return steps


def test_the_time_left_follows_the_finished_runs_row_by_row(tmp_path, timed) -> None:
    runs = [planned(tmp_path, "depthwise", seed) for seed in (0, 1)]
    other = planned(tmp_path, "gelu")
    cost = estimate(runs[0], other, runs[1])
    first, second, third = cost.expected
    assert min(first, second, third) > 0
    assert cost.seconds_left() == pytest.approx(first + second + third)
    finish(runs[0], 3 * first, cost.device_name)
    (message,) = cost.progress()
    # The other row by the ratio seen so far, the same row by what its run took.
    assert cost.seconds_left() == pytest.approx(3 * second + 3 * first)
    assert message.startswith("depthwise seed 0: top-1 50.00 % on 900 test images in ")
    assert "; 2 runs left, about " in message
    finish(other, second, cost.device_name)
    finish(runs[1], 1.0, cost.device_name)  # by another process
    assert cost.progress()[-1].endswith("; all runs are finished")
    assert cost.seconds_left() == 0


def test_the_best_of_several_tries_counts_and_equal_work_is_timed_once(
    tmp_path, monkeypatch
) -> None:
    tries: list[str] = []

    def slow_at_first(run: Run, _: Execution) -> Rate:
        tries.append(run.step)
        return Rate(10.0 if len(tries) <= 2 else 30.0, "measured now")

    monkeypatch.setattr(cost_estimate, "_TRIES", 3)
    monkeypatch.setattr(cost_estimate, "_time_updates", slow_at_first)
    run = planned(tmp_path, "depthwise")
    same = replace(run, step="depthwise-lr-0.5x", recipe=run.recipe.change(lr=2e-3))
    cost = estimate(run, same, replace(run, step="larger", recipe=RECIPE.change(batch_size=24)))
    assert tries == ["depthwise", "larger"] * 3  # spread over the rows
    assert {step: rate.images_per_second for step, rate in cost.rates.items()} == {
        "depthwise": 30.0,
        "depthwise-lr-0.5x": 30.0,
        "larger": 30.0,
    }


def test_where_timing_takes_long_the_other_networks_are_counted(tmp_path, timed, monkeypatch):
    monkeypatch.setattr(cost_estimate, "_TIMING_SECONDS", 0.0)
    runs = [planned(tmp_path, step) for step in ("depthwise", "inverted-bottleneck", "gelu")]
    cost = estimate(*runs)
    assert timed == ["depthwise"]
    flops = [architecture_complexity(run.architecture, 32).flops_paper_convention for run in runs]
    for run, count in zip(runs[1:], flops[1:]):
        rate = cost.rates[run.step]
        assert rate.source == "by FLOPs"
        assert rate.images_per_second == pytest.approx(50.0 * flops[0] / count)


def test_a_torch_without_triton_counts_without_a_warning() -> None:
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "from pathlib import Path\n"
        "from tests.studies.test_cost_estimate import cost_estimate, planned\n"
        "print(cost_estimate._flops(planned(Path(), 'gelu')))"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0
    assert done.stderr == ""


def test_a_finished_run_of_this_device_replaces_the_timing(tmp_path, timed) -> None:
    device = estimate(planned(tmp_path, "gelu")).device_name
    assert timed == ["gelu"]
    finish(planned(tmp_path, "gelu"), 1234.0, device)
    finish(planned(tmp_path, "depthwise"), 99.0, "another device")
    runs = [planned(tmp_path, step, seed) for step in ("gelu", "depthwise") for seed in (0, 1)]
    cost = estimate(*runs)
    assert timed == ["gelu", "depthwise"]
    assert cost.states == ["finished", "to train", "finished", "to train"]
    assert cost.seconds_left() == pytest.approx(1234.0 + cost.expected[3])
    assert "from a finished run" in str(cost)


def test_an_unfinished_run_counts_for_the_rest_of_its_epochs(tmp_path, timed) -> None:
    run = planned(tmp_path, "gelu")
    run.folder.mkdir(parents=True)
    (run.folder / "checkpoint.pt").touch()
    (run.folder / "metrics.jsonl").write_text("{}\n" * 3)
    cost = estimate(run)
    assert cost.states == ["to resume"]
    assert cost.seconds_left() == pytest.approx(cost.expected[0] / 4)


def test_real_updates_are_timed_with_all_images_of_a_part_or_with_fewer(
    tmp_path, monkeypatch
) -> None:
    run = planned(tmp_path, "gelu")
    assert estimate(run).rates["gelu"].source == "measured now"
    monkeypatch.setattr(cost_estimate, "_TRY_SECONDS", 0.0)
    rate = estimate(run).rates["gelu"]
    assert rate.source == "estimated now"
    assert rate.images_per_second > 0


@pytest.mark.parametrize(
    "text", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"]
)
def test_a_batch_that_does_not_fit_is_refused_when_it_is_tried(text, tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(cost_estimate, "gradients", full)
    message = "^gelu ran out of memory: 12 images at once do not fit: give --micro-batches 2,"
    with pytest.raises(ValueError, match=message):
        estimate(planned(tmp_path, "gelu"))


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


def test_the_size_of_a_data_set_is_known_before_it_is_there(images, tmp_path) -> None:
    known = sizes(datasets.check("food101", tmp_path), tmp_path / "cache", 256)
    assert (known.train, known.validation, known.test) == (68_175, 7_575, 25_250)
    assert known.download > 5e9
    assert known.cache == 101_000 * 256 * 341 * 3
    located = datasets.check(f"imagefolder:{images}", tmp_path)
    before = sizes(located, tmp_path / "cache", 37)
    assert list(tmp_path.iterdir()) == []
    stores = open_stores(located.load(), tmp_path / "cache", short_side(32, (0.5, 1.0)))  # 37
    splits = stores.train, stores.validation, stores.test
    assert before.cache == sum(store.nbytes for store in splits)
    assert sizes(located, tmp_path / "cache", 37).cache == 0


def test_the_advice_for_too_large_a_batch_is_for_the_recipe_of_the_step(tmp_path) -> None:
    modern = planned(tmp_path, "gelu")
    advice = memory_advice(modern, CPU)
    assert advice == "12 images at once do not fit: give --micro-batches 2, parts of 6"
    classic = replace(modern, recipe=RECIPE.change(batch_size=18))
    assert "give --classic.micro-batches 2, parts of 9" in memory_advice(classic, CPU)
    pair = replace(modern, recipe=RECIPE.change(batch_size=2, mixup=0.2))
    assert "choose a lower --resolution or another device" in memory_advice(pair, CPU)
