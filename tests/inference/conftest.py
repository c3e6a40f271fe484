"""Two tiny trained runs of one study, made once."""

from pathlib import Path

import pytest

import runner
from tests.conftest import MadeOnce


@pytest.fixture(scope="session")
def study(made_once: MadeOnce, pictures: Path) -> Path:
    """A study on striped pictures with the steps depthwise and separate-downsampling (with layer scale)."""

    def train(root: Path) -> None:
        (root / "data").mkdir()
        place = ["--preset", "pocket", "--regime", "pocket", "--dataset", f"imagefolder:{pictures}",
                 "--runs", str(root / "runs"), "--study", "s", "--data-dir", str(root / "data"), "--resolution", "48",
                 "--epochs", "2", "--warmup-epochs", "0", "--batch-size", "24", "--layer-scale", "0.5",
                 "--device", "cpu"]  # fmt: skip
        for step in ("4", "13"):
            assert runner.main(["train", step, *place]) == 0

    return made_once("study", train) / "runs/s"


@pytest.fixture(scope="session")
def convnext(study: Path) -> Path:
    return study / "separate-downsampling/seed-0"


@pytest.fixture(scope="session")
def depthwise(study: Path) -> Path:
    return study / "depthwise/seed-0"
