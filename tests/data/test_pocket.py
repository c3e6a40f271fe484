"""The pocket images: Food-101's layout, the same bytes every time, and no dish told by its
colours."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import Food101

import data
from data import pocket
from data.pocket_dishes import DISHES
from data.pocket_images import IMAGES, generate
from data.splits import Split
from tests.conftest import MadeOnce

SMALL = {"train": 3, "test": 2}


@pytest.fixture(scope="module")
def root(made_once: MadeOnce) -> Path:
    return made_once("pocket", lambda root: data.load("pocket", root))


@pytest.fixture(scope="module")
def dataset(root: Path) -> data.Dataset:
    return data.load("pocket", root)


def test_the_folder_is_food101s(root: Path) -> None:
    folder = root / pocket.FOLDER / "food-101"
    assert {path.name for path in folder.iterdir()} == {"images", "meta"}
    meta = {path.name for path in (folder / "meta").iterdir()}
    assert meta == {"train.json", "test.json", "train.txt", "test.txt", "classes.txt", "labels.txt"}
    classes = (folder / "meta" / "classes.txt").read_text().split()
    assert classes == sorted(classes) == sorted(path.name for path in (folder / "images").iterdir())
    for part in ("train", "test"):
        official = Food101(folder.parent, split=part)
        assert official.classes == classes
        assert len(official) == IMAGES[part] * len(classes)
        lines = (folder / "meta" / f"{part}.txt").read_text().split()
        assert lines == [f"{path.parent.name}/{path.stem}" for path in official._image_files]
    with Image.open(folder / "images" / "pizza" / "1000.jpg") as image:
        assert image.format == "JPEG"


def test_images_are_larger_than_a_network_sees_and_of_varied_shape(dataset: data.Dataset) -> None:
    sizes = {dataset.train.source.size(index) for index in range(len(dataset.train))}
    assert len(sizes) > 3
    assert min(min(size) for size in sizes) >= 96
    assert dataset.synthetic
    assert "synthetic" in dataset.description
    assert [len(split) for split in dataset.splits.values()] == [2160, 240, 900]


def test_every_run_draws_the_same_bytes(root: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        generate(folder, SMALL, workers)
        images = list(folder.rglob("*.jpg"))
        assert len(images) == 5 * len(DISHES)
        for path in images:
            assert (
                path.read_bytes() == (root / pocket.FOLDER / path.relative_to(folder)).read_bytes()
            )


def test_no_two_images_are_alike(root: Path) -> None:
    contents = [path.read_bytes() for path in (root / pocket.FOLDER).rglob("*.jpg")]
    assert len(set(contents)) == len(contents) == sum(IMAGES.values()) * len(DISHES)


def histograms(split: Split) -> torch.Tensor:
    """float32 (N, 512): share of the pixels in each of 8 x 8 x 8 cells of the RGB cube."""
    rows = []
    for index in range(len(split)):
        cells = (split.read(index) // 32).astype(np.int64) @ np.array([64, 8, 1])
        rows.append(np.bincount(cells.ravel(), minlength=512) / cells.size)
    return torch.tensor(np.array(rows), dtype=torch.float32)


def linear_accuracy(
    train: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, truth: torch.Tensor
) -> float:
    """Test accuracy of a multinomial logistic regression."""
    mean, deviation = train.mean(0), train.std(0) + 1e-6
    train, test = (train - mean) / deviation, (test - mean) / deviation
    weight = torch.zeros(train.shape[1], len(DISHES), requires_grad=True)
    bias = torch.zeros(len(DISHES), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=150, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (
            torch.nn.functional.cross_entropy(train @ weight + bias, labels)
            + 0.01 * weight.square().sum()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert (
        (train @ weight + bias).argmax(1) == labels
    ).float().mean() > 0.4  # it did learn something
    return ((test @ weight + bias).argmax(1) == truth).float().mean().item()


def test_colours_alone_do_not_tell_the_dishes(dataset: data.Dataset) -> None:
    train, test = histograms(dataset.train), histograms(dataset.test)
    labels, truth = torch.tensor(dataset.train.labels), torch.tensor(dataset.test.labels)
    assert linear_accuracy(train, labels, test, truth) < 0.4
    assert linear_accuracy(train.sqrt(), labels, test.sqrt(), truth) < 0.4


def test_an_interrupted_generation_is_never_taken_for_complete(tmp_path: Path) -> None:
    home = Path(data.__file__).parents[1]
    program = (
        "import sys, pathlib, data.pocket_images as p; "
        "p.generate(pathlib.Path(sys.argv[1]), workers=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path / pocket.FOLDER], cwd=home)
    while process.poll() is None and len(list(tmp_path.rglob("*.jpg"))) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / pocket.FOLDER).exists()
    data.check("pocket", tmp_path)
    generate(tmp_path / pocket.FOLDER, SMALL)
    assert len(list(tmp_path.rglob("*.jpg"))) == 5 * len(DISHES)


def test_two_processes_at_once_draw_once(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, data.pocket_images as p\n"
        "p.generate(pathlib.Path(sys.argv[1]), {'train': 4, 'test': 1}, workers=1)"
    )
    command = [sys.executable, "-c", program, tmp_path / "pocket"]
    both = [subprocess.Popen(command, cwd=Path(data.__file__).parents[1]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    generate(tmp_path / "alone", {"train": 4, "test": 1}, workers=1)
    for path in (tmp_path / "alone").rglob("*.*"):
        assert (
            path.read_bytes()
            == (tmp_path / "pocket" / path.relative_to(tmp_path / "alone")).read_bytes()
        )
    assert {path.name for path in tmp_path.iterdir()} == {"pocket", "alone"}


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """With a real limit on the size of files, which every image exceeds."""
    program = (
        "import resource, sys, pathlib, data.pocket_images as p\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    p.generate(pathlib.Path(sys.argv[1]), {'train': 2, 'test': 1}, 2)\n"
        "except OSError as error:\n    print(error)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "pocket"],
        cwd=Path(data.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        answer.stdout
        == f"the pocket images could not be written to {tmp_path / 'pocket'} (File too large)\n"
    )
    assert not (tmp_path / "pocket").exists()


def test_damaged_pocket_images_are_refused_with_the_way_out(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / pocket.FOLDER, tmp_path / pocket.FOLDER)
    (tmp_path / pocket.FOLDER / "food-101" / "images" / "sushi" / "1003.jpg").unlink()
    with pytest.raises(
        ValueError,
        match=r"1 of its 3,300 images are missing \(sushi/1003\); delete .* to draw it again",
    ):
        data.check("pocket", tmp_path)
