"""What a trained network costs is measured at a run's end, and changes nothing of it."""

from dataclasses import replace

import pytest
import torch

from studies.run import Run
from tests.training.conftest import MakeRun
from training import inference_profile, loop
from training.compute_options import ComputeOptions, lay_out
from training.execution import Execution, Stores
from training.interrupt import StopRequest
from training.update import TrainState


def measured(run: Run, **changes: int) -> dict[str, float]:
    from models.builder import build

    recipe = replace(run.recipe, **changes)
    train_state = TrainState(
        lay_out(build(run.architecture), ComputeOptions()),
        recipe,
        ComputeOptions(),
        torch.device("cpu"),
        "fp32",
    )
    return inference_profile.measure(train_state, 32)


def test_a_run_says_what_inference_and_training_took(
    make_run: MakeRun, stores: Stores, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        inference_profile, "_SECONDS", 0.05
    )  # as ever, so that a pause of the machine is outvoted
    run = make_run()
    result = loop.train(run.spec, stores, execution, StopRequest())
    assert 0 < result["inference_ms_1"] < result["inference_ms_64"], (
        "64 images take longer than one"
    )
    weights = (run.folder / "model.safetensors").stat().st_size / 1e6
    assert result["peak_memory_mb"] > 4 * weights, (
        "AdamW: weights, gradients, two moments, and the activations"
    )
    assert make_run().digest == run.digest == result["digest"]


def test_memory_grows_with_a_part_of_the_batch_and_not_with_the_batch(make_run: MakeRun) -> None:
    small, large = (measured(make_run(), batch_size=size)["peak_memory_mb"] for size in (8, 64))
    assert large > 1.5 * small
    parts = measured(make_run(), batch_size=64, micro_batches=8)["peak_memory_mb"]
    assert parts == pytest.approx(small)
