"""The pocket images: the same every time, and no class known by its colors."""

import numpy as np
import pytest
import torch

from data import datasets
from data.splits import Dataset, Split


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return datasets.load("pocket", tmp_path_factory.mktemp("pocket"))


def test_the_counts_and_sizes_are_those_of_a_study(dataset: Dataset) -> None:
    assert [len(split) for split in dataset.splits.values()] == [2160, 240, 900]
    assert len(set().union(*(split.ids for split in dataset.splits.values()))) == 3300
    assert dataset.synthetic
    for split in dataset.splits.values():
        assert len({split.labels.count(label) for label in range(10)}) == 1
    sizes = {index: dataset.train.source.size(index) for index in range(100)}
    assert len(set(sizes.values())) > 3
    assert min(min(size) for size in sizes.values()) >= 96
    for index, size in sizes.items():
        assert dataset.train.read(index).shape == (*size, 3)


def test_an_image_is_a_function_of_its_number(dataset: Dataset) -> None:
    backwards = dataset.test.take(range(19, -1, -1), "backwards")
    images = [dataset.test.read(index) for index in range(20)]
    for index, image in enumerate(images):
        assert np.array_equal(backwards.read(19 - index), image)
    assert len({image.tobytes() for image in images}) == 20


def histograms(split: Split, count: int) -> torch.Tensor:
    """float32 (N, 512): square root of the share of pixels in each of 8 x 8 x 8 RGB cells."""
    rows = []
    for index in range(count):
        cells = (split.read(index) // 32).astype(np.int64) @ np.array([64, 8, 1])
        rows.append(np.bincount(cells.ravel(), minlength=512) / cells.size)
    return torch.tensor(np.array(rows), dtype=torch.float32).sqrt()


def test_colors_alone_do_not_tell_the_class(dataset: Dataset) -> None:
    """A linear classifier of color histograms is not far from chance, which is 0.1."""
    train, test = histograms(dataset.train, 600), histograms(dataset.test, 300)
    truth = torch.nn.functional.one_hot(torch.tensor(dataset.train.labels[:600])).float()
    gram = train.T @ train + 0.1 * torch.eye(512)
    found = (test @ torch.linalg.solve(gram, train.T @ truth)).argmax(1)
    accuracy = (found == torch.tensor(dataset.test.labels[:300])).float().mean()
    assert accuracy < 0.4
