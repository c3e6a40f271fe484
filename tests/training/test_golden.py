"""Golden losses: they change only where the computation does."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.builder import build
from studies.run import Run
from training.interrupt import StopRequest
from training.train import record_initial_weights, train

GOLDEN = {
    "training-recipe": [1.21625, 1.26994, 1.18461],
    "depthwise": [1.20827, 1.33966, 1.22768],
    "layer-norm": [1.37397, 1.33660, 1.34672],
    "separate-downsampling": [1.33575, 1.78329, 1.47048],
}
"""Training loss of each epoch, with torch 2.11 and 2.15 alike."""


def from_a_formula(run: Run, file: Path) -> Run:
    """The run with initial weights that are the same in every version of torch."""
    rng = np.random.default_rng(0)
    state = build(run.architecture, layer_scale=run.recipe.layer_scale).state_dict()
    for name, tensor in state.items():
        if tensor.ndim <= 1 or name.endswith("layer_scale"):
            continue
        fan_in = tensor[0].numel()
        state[name] = torch.from_numpy(rng.normal(0, fan_in**-0.5, tensor.shape)).float()
    save_file(state, file)
    config = replace(run.study.config, init_weights=record_initial_weights(file))
    return replace(run, study=replace(run.study, config=config), init_weights=file)


@pytest.mark.parametrize("step", GOLDEN)
def test_losses_are_those_of_before(step, make_run, stores, execution, tmp_path) -> None:
    run = from_a_formula(make_run(step, epochs=3), tmp_path / "start.safetensors")
    train(run.spec, stores, execution, StopRequest())
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    # Rounding, as by another number of threads, moved the third by 0.0007.
    assert [json.loads(line)["train_loss"] for line in lines] == pytest.approx(
        GOLDEN[step], rel=4e-3
    )
