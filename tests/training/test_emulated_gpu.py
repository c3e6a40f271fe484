"""Runs on a device that is not the CPU, as far as it can be emulated.

The first tests follow the forward pass with torch's fake tensors, which know shapes and devices.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ablations import PAPER, get_regime
from data import augment
from data.augment import Mix, draw
from data.augmentation import Augmentation
from data.loader import Prepared
from models.builder import build
from models.convolution import rewrite
from training import update
from training.execution import ComputeOptions
from training.recipe import Recipe
from training.update import TrainState, noise

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
POCKET = get_regime("pocket")
PATH = [each.name for each in PAPER.steps_in(POCKET) if not each.reference]


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
    for name in PATH:
        with FakeTensorMode(), torch.device(CUDA):
            architecture = PAPER.architecture(name, POCKET, 10)
            model = build(architecture, drop_path=0.1, layer_scale=0.1, init="he")
            if rewritten:
                rewrite(model)
            images = torch.empty(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)
            logits = model(images)
        assert (logits.device, logits.shape) == (CUDA, (4, 10)), name


@pytest.mark.parametrize("mix", [None, Mix(0.3, None), Mix(0.3, (1, 2, 9, 9))])
def test_a_batch_is_finished_on_the_gpu(mix) -> None:
    draws = draw(Augmentation(random_erasing=1.0), 32, np.full((4, 2), 40), 0, 0, np.arange(4))
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.zeros(4, 32, 32, 3, dtype=torch.uint8)
        labels = torch.zeros(4, dtype=torch.int64)
        batch = Prepared(images, labels, np.arange(4), draws, mix).finish(CUDA)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for part in (batch.images, batch.labels, batch.partner_labels, batch.weight):
        assert part.device == CUDA


def train_state(device: torch.device, **options: object) -> TrainState:
    torch.manual_seed(0)
    model = build(PAPER.architecture("4", POCKET, 10), drop_path=0.3)
    recipe = Recipe(batch_size=16, micro_batches=4)
    precision = options.pop("precision", "fp32")
    return TrainState(model, recipe, ComputeOptions(**options), device, precision)


def batches(device: torch.device) -> Iterator[object]:
    torch.manual_seed(1)
    made = [noise(4, 32, 10, device) for _ in range(4)]
    while True:
        yield from made


def weights_after(updates: int, **options: object) -> list[torch.Tensor]:
    """The weights, statistics and losses after some updates on the CPU."""
    state, given = train_state(CPU, **options), batches(CPU)
    for number in range(updates):
        update.update(state, number, given, 1e-2)
    losses = torch.tensor(state.monitor.loss_sum)
    return [losses, *(value.clone() for value in state.model.state_dict().values())]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_recorded_part_and_casts_kept_for_an_update_change_no_bit(precision, monkeypatch) -> None:
    """A recording is emulated: what is replayed is run again."""

    def run_again(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
        for _ in range(3):
            work()
        return work

    monkeypatch.setattr(update, "record", run_again)
    plain = weights_after(3, precision=precision, cast_once=False)
    for options in ({"cast_once": True}, {"recorded": True}):
        changed = weights_after(3, precision=precision, **options)
        for one, other in zip(plain, changed, strict=True):
            assert torch.equal(one, other), options


def test_weights_are_cast_once_an_update(monkeypatch) -> None:
    casts = []

    class CountCasts(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            casts.append(func is torch.ops.aten._to_copy.default)
            return func(*args, **(kwargs or {}))

    counts = []
    for once in (False, True):
        state, given = train_state(CPU, precision="bf16", cast_once=once), batches(CPU)
        casts.clear()
        with CountCasts():
            update.gradients(state, 0, given)
        counts.append(sum(casts))
    assert counts[1] < counts[0] / 1.5


def test_runs_on_an_emulated_device() -> None:
    """In a process of its own: the device must be known before autograd starts its threads."""
    cases = str(Path(__file__).with_name("emulated_cases.py"))
    pytest_alone = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", cases]
    done = subprocess.run(pytest_alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
