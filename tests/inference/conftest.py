"""Two tiny trained runs of one study, made once."""

from pathlib import Path

import pytest
from PIL import Image

import runner
from tests.conftest import BuildOnce


@pytest.fixture(scope="session")
def images(build_once: BuildOnce, images: Path) -> Path:
    """The striped images at three times the size: larger than a study's cache keeps them."""

    def enlarge(root: Path) -> None:
        for path in images.glob("*/*.jpg"):
            (root / path.parent.name).mkdir(exist_ok=True)
            with Image.open(path) as image:
                image.resize((3 * image.width, 3 * image.height)).save(
                    root / path.relative_to(images)
                )

    return build_once("large-images", enlarge)


def options(images: Path, root: Path) -> list[str]:
    """Options of a short training on the images, with everything else in `root`."""
    line = f"--preset pocket --regime pocket --dataset imagefolder:{images} --runs {root}/runs "
    line += f"--study s --data-dir {root}/data --resolution 48 --epochs 2 --warmup-epochs 0 "
    line += "--batch-size 24 --layer-scale 0.5 --device cpu"
    (root / "data").mkdir(exist_ok=True)
    return line.split(" ")


@pytest.fixture(scope="session")
def study(build_once: BuildOnce, images: Path) -> Path:
    """A study on striped images with the steps depthwise and separate-downsampling (with layer
    scale)."""

    def train(root: Path) -> None:
        for step in ("4", "13"):
            assert runner.main(["train", step, *options(images, root)]) == 0

    return build_once("study", train) / "runs/s"


@pytest.fixture(scope="session")
def convnext(study: Path) -> Path:
    return study / "separate-downsampling/seed-0"


@pytest.fixture(scope="session")
def depthwise(study: Path) -> Path:
    return study / "depthwise/seed-0"
