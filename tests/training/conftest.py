"""A study small enough to be trained in a second."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ablations import PAPER, get_regime
from data import datasets
from data.image_store import open_store
from data.splits import Dataset
from studies.run import Run
from studies.study import open_study
from training.execution import Execution, Stores
from training.interrupt import StopRequest
from training.recipe import CLASSIC, Recipe, StudyConfig

RECIPE = Recipe(
    epochs=3, batch_size=12, lr=2e-3, lr_batch=12, warmup_epochs=1, drop_path=0.2, layer_scale=0.1
)

MakeRun = Callable[..., Run]


class StopAfter(StopRequest):
    """Requests a stop after some updates; the loop checks once after every update."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.left = updates

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture(scope="session")
def dataset(images: Path) -> Dataset:
    return datasets.load(f"imagefolder:{images}", images.parent)


@pytest.fixture(scope="session")
def stores(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    cache = tmp_path_factory.mktemp("cache")
    opened = [open_store(split, cache, 37) for split in dataset.splits.values()]
    return Stores(*opened, dataset.classes)


@pytest.fixture
def make_run(tmp_path: Path, dataset: Dataset) -> MakeRun:
    """make_run(step, seed=0, study="study", **changes of the recipe) -> Run."""

    def make(step: str = "13", seed: int = 0, study: str = "study", **changes: object) -> Run:
        regime = get_regime("mini")
        recipe = RECIPE.change(**changes)
        config = StudyConfig(dataset.name, "pocket", 32, "fp32", recipe, CLASSIC)
        opened = open_study(tmp_path / study, config, {}, dataset.fingerprint())
        found = PAPER.step(step, regime)
        return Run(
            opened,
            found.name,
            found.number,
            seed,
            PAPER.architecture(found, regime, len(dataset.classes)),
            recipe,
        )

    return make


@pytest.fixture
def execution() -> Execution:
    return Execution(torch.device("cpu"))
