"""Branches for CUDA as far as they can be followed without it: torch's fake tensors know shapes and
devices only."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ablations import PAPER, get_regime
from data import augment
from data.augment import Mix, draw
from data.augmentation import Augmentation
from data.loader import Prepared
from models.builder import build
from models.convolution import rewrite

CUDA = torch.device("cuda", 0)
PATH = [step.name for step in PAPER.steps_in(get_regime("mini")) if not step.reference]


@pytest.fixture(autouse=True)
def no_fake_constants_are_kept() -> Iterator[None]:
    kept = augment._noise_bank, augment._row_factors
    for each in kept:
        each.cache_clear()
    yield
    for each in kept:
        each.cache_clear()


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_forward_pass_stays_on_the_gpu(rewritten) -> None:
    for step in PATH:
        with FakeTensorMode(), torch.device(CUDA):
            model = build(
                PAPER.architecture(step, get_regime("mini"), 10),
                drop_path=0.1,
                layer_scale=0.1,
                init="he",
            )
            if rewritten:
                rewrite(model)
            images = torch.empty(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)
            logits = model(images)
        assert (logits.device, logits.shape) == (CUDA, (4, 10)), step


@pytest.mark.parametrize("mix", [None, Mix(0.3, None), Mix(0.3, (1, 2, 9, 9))])
def test_a_batch_is_finished_on_the_gpu(mix) -> None:
    draws = draw(Augmentation(random_erasing=1.0), 32, np.full((4, 2), 40), 0, 0, np.arange(4))
    with FakeTensorMode(allow_non_fake_inputs=True):
        images, labels = (
            torch.zeros(4, 32, 32, 3, dtype=torch.uint8),
            torch.zeros(4, dtype=torch.int64),
        )
        batch = Prepared(images, labels, np.arange(4), draws, mix).finish(CUDA)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for part in (batch.images, batch.labels, batch.partner_labels, batch.weight):
        assert part.device == CUDA
