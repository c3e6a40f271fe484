"""Fashion-MNIST: found in Debian's folder, in the data folder, or downloaded; padded to 32x32
RGB."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import FashionMNIST

import data
from data import fashion_mnist
from tests.conftest import MadeOnce


@pytest.fixture(scope="module")
def idx(made_once: MadeOnce) -> Path:
    """Gzipped IDX files of Fashion-MNIST's sizes: image i is all i % 251, its label i % 10."""
    return made_once("idx", write_idx)


def write_idx(folder: Path) -> None:
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        numbers = np.arange(count)
        pixels = np.repeat((numbers % 251).astype(np.uint8), 784).tobytes()
        images = b"".join(number.to_bytes(4, "big") for number in (2051, count, 28, 28)) + pixels
        labels = (
            b"".join(number.to_bytes(4, "big") for number in (2049, count))
            + (numbers % 10).astype(np.uint8).tobytes()
        )
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content, 1))


def test_fashion_mnist_is_unpacked_from_debians_folder(
    idx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", idx)
    data.check("fashion-mnist", tmp_path)
    assert not list(tmp_path.iterdir())
    dataset = data.load("fashion-mnist", tmp_path)
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (
        54_000,
        6_000,
        10_000,
    )
    assert [dataset.validation.labels.count(label) for label in range(10)] == [600] * 10
    image = dataset.test.read(77)
    assert image.shape == (32, 32, 3)
    assert image.dtype == np.uint8
    assert (image[2:30, 2:30] == 77).all()
    assert image.astype(int).sum() == 77 * 784 * 3  # the border is black
    assert dataset.test.labels[77] == 7
    official = FashionMNIST(str(tmp_path), train=False)
    assert dataset.classes == tuple(FashionMNIST.classes)
    assert dataset.test.labels == tuple(official.targets.tolist())
    assert all(
        (dataset.test.read(i)[2:30, 2:30, 1] == official.data[i].numpy()).all()
        for i in range(0, 10_000, 97)
    )
    # Found in ROOT from now on.
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    assert data.load("fashion-mnist", tmp_path).fingerprint == dataset.fingerprint
    raw = tmp_path / "FashionMNIST" / "raw"
    with open(raw / "train-images-idx3-ubyte", "r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(
        ValueError, match="is half downloaded: 1,000,000 bytes instead of 47,040,016"
    ):
        data.check("fashion-mnist", tmp_path)
    (raw / "train-images-idx3-ubyte").unlink()
    with pytest.raises(ValueError, match="is half downloaded: train-images-idx3-ubyte is missing"):
        data.check("fashion-mnist", tmp_path)


def test_fashion_mnist_is_downloaded_and_verified(
    idx: Path, server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    names = [path.name for path in idx.iterdir()]
    for name in names:
        shutil.copy(idx / name, folder)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"{address}/"])
    checksums = [(name, hashlib.md5((idx / name).read_bytes()).hexdigest()) for name in names]
    monkeypatch.setattr(FashionMNIST, "resources", [(name, "0" * 32) for name, _ in checksums])
    with pytest.raises(OSError, match="Fashion-MNIST could not be downloaded"):
        data.load("fashion-mnist", tmp_path)
    monkeypatch.setattr(FashionMNIST, "resources", checksums)
    assert len(data.load("fashion-mnist", tmp_path).test) == 10_000


@pytest.mark.skipif(
    not fashion_mnist.DEBIAN.is_dir(),
    reason="Debian's package dataset-fashion-mnist is not installed",
)
def test_debians_fashion_mnist_shows_real_products(tmp_path: Path) -> None:
    dataset = data.load("fashion-mnist", tmp_path)
    assert dataset.classes[dataset.test.labels[0]] == "Ankle boot"
    assert 20 < dataset.test.read(0).mean() < 120


def test_no_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(OSError, match="Fashion-MNIST could not be downloaded") as caught:
        data.load("fashion-mnist", tmp_path)
    assert "\n" not in str(caught.value)
