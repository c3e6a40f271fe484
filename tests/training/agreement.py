"""An update of every step of the paper's roadmap, by however many processes torchrun started this
with.

    torchrun --nproc-per-node=K tests/training/agreement.py FOLDER

leaves the sha256 of all that process k holds then in FOLDER/k.json: weights, batch norm's
statistics, their average, its predictions, losses; by name.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ablations import PAPER, REGIMES
from data.loader import Batch, eval_batches, train_batches
from models.builder import build
from training.evaluation import evaluate
from training.execution import ComputeOptions
from training.processes import ALONE, Processes, joined
from training.recipe import Recipe
from training.spec import rank_info
from training.update import TrainState, update

RECIPE = Recipe(batch_size=16, micro_batches=4, drop_path=0.3, layer_scale=0.1, init="he", ema=0.9)


class Images:
    """Random images but the same each time."""

    def __init__(self) -> None:
        self.images = torch.randint(
            0, 256, (40, 36, 36, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        self.labels = torch.arange(40) % 5

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def one_step(name: str, dtype: torch.dtype, processes: Processes) -> dict[str, Tensor]:
    regime, device = REGIMES["mini"], torch.device("cpu")
    torch.manual_seed(0)
    architecture = PAPER.architecture(PAPER.step(name, regime), regime, 5)
    model = build(
        architecture, drop_path=RECIPE.drop_path, layer_scale=RECIPE.layer_scale, init="he"
    ).to(dtype)
    optimizer = "sgd" if name == "baseline" else "adamw"
    recipe = replace(RECIPE, optimizer=optimizer)
    train_state = TrainState(model, recipe, ComputeOptions(), device, "fp32", 0, processes)

    def batches() -> Iterator[Batch]:
        for batch in train_batches(
            Images(),
            recipe.augmentation,
            32,
            seed=0,
            epoch=0,
            batch_size=16,
            micro_batches=4,
            rank=processes.rank,
            world=processes.count,
        ):
            yield replace(batch, images=batch.images.to(dtype), weight=batch.weight.to(dtype))

    update(train_state, 0, batches(), lr=1e-2)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    evaluated = evaluate(
        model.float(),
        eval_batches(Images(), 32, batch_size=8, rank=processes.rank, world=processes.count),
        tuple(map(str, range(40))),
        device,
        "fp32",
        processes,
    )
    average = {} if train_state.average is None else train_state.average.state_dict()
    return {
        **{f"{name} {key}": value for key, value in weights.items()},
        **{f"{name} average of {key}": value for key, value in average.items()},
        f"{name} evaluated": torch.cat(
            [evaluated.p_label, evaluated.p_top1, evaluated.top.flatten()]
        ),
        f"{name} loss": torch.tensor(train_state.monitor.loss_sum),
    }


def all_steps(processes: Processes = ALONE) -> dict[str, str]:
    """By precision, step and tensor: its kind, its shape and every bit of it in a digest."""
    made = {}
    for dtype in (torch.float64, torch.float32):
        for step in PAPER.steps_in(REGIMES["mini"]):
            for key, value in one_step(step.name, dtype, processes).items():
                assert value.isfinite().all(), key
                kind = f"{value.dtype} {tuple(value.shape)} ".encode()
                made[f"{dtype} {key}"] = hashlib.sha256(kind + value.numpy().tobytes()).hexdigest()
    return made


if __name__ == "__main__":
    with joined(rank_info()) as processes:
        (Path(sys.argv[1]) / f"{processes.rank}.json").write_text(json.dumps(all_steps(processes)))
