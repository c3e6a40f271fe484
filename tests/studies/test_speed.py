"""Rates come true, on machines of any speed: networks here take the time that they are told to, by
a clock of ours."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from ablations import PAPER, get_regime
from models.builder import build
from studies import speed
from studies.speed import measure
from training.execution import ComputeOptions
from training.recipe import Recipe
from training.update import TrainState, noise

CPU = torch.device("cpu")
IMAGES = partial(noise, resolution=32, classes=3, device=CPU)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", made)
    monkeypatch.setattr(speed, "_COUNTED_SECONDS", 0.1)  # as ever: these seconds take no time
    return made


class Network(nn.Module):
    """Passes the time that an update of so many images takes, and keeps the numbers of images."""

    def __init__(self, clock: Clock, seconds: Callable[[int], float]) -> None:
        super().__init__()
        self.clock, self.seconds, self.sizes = clock, seconds, list[int]()
        self.head = nn.Linear(3, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        self.clock.now += self.seconds(len(images))
        return self.head(images.mean((2, 3)))


def train_states(*networks: nn.Module) -> Iterator[TrainState]:
    return (TrainState(network, Recipe(), ComputeOptions(), CPU, "fp32") for network in networks)


# Seconds of an update's fixed cost and of an image, and images at once; the first is the pocket
# study's: four images take 16 ms and 64 not four, but three times that.
QUICK = {
    "pocket": (0.0139, 0.0005, 64),
    "tiny": (0.05, 0.012, 32),
    "deep and narrow": (0.06, 0.0002, 256),
}


@pytest.mark.parametrize("slower", [0.1, 0.3, 1, 3, 5])
@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("seed", range(3))
def test_the_rate_is_that_of_the_real_batch_on_slow_and_fast_machines(
    kind, slower, seed, clock
) -> None:
    fixed, each, batch = QUICK[kind]
    rng = random.Random(seed)
    network = Network(clock, lambda count: slower * (fixed + each * count) * rng.uniform(0.95, 1.1))
    found = measure(train_states(network), Recipe(batch_size=batch), IMAGES)
    assert batch / found.images_per_second == pytest.approx(
        slower * (fixed + each * batch), rel=0.2
    )
    assert (found.source == "measured now") == (max(network.sizes) == batch)
    if slower <= 1 or kind == "pocket":
        assert found.source == "measured now"
    assert clock.now < 6


# Networks of which a batch takes from half a minute to an hour.
SLOW = {
    "tiny at 224": (0.05, 0.1, 512),
    "base at 224": (0.2, 0.9, 64),
    "pocket, 50 times slower": (0.7, 0.025, 1024),
}


@pytest.mark.parametrize("kind", SLOW)
@pytest.mark.parametrize("seed", range(5))
def test_a_batch_that_takes_too_long_is_continued_and_called_an_estimate(kind, seed, clock) -> None:
    fixed, each, batch = SLOW[kind]
    rng = random.Random(seed)
    network = Network(clock, lambda count: (fixed + each * count) * rng.uniform(0.97, 1.03))
    found = measure(train_states(network), Recipe(batch_size=batch), IMAGES)
    assert found.source == "estimated now"
    assert batch / found.images_per_second == pytest.approx(fixed + each * batch, rel=found.error)
    if "50 times" not in kind:
        assert found.error == 0.3
        assert batch / found.images_per_second == pytest.approx(fixed + each * batch, rel=0.2)
    assert max(network.sizes) < batch
    assert clock.now < 20


@pytest.mark.parametrize(("processes", "parts_in_turn"), [(1, 4), (2, 2), (3, 2), (4, 1)])
def test_parts_share_one_step_of_the_optimizer(
    processes, parts_in_turn, clock, monkeypatch
) -> None:
    network = Network(clock, lambda count: 0.01 * count)
    train_state = next(train_states(network))
    real = train_state.optimizer.step

    def step() -> None:
        clock.now += 0.5
        real()

    monkeypatch.setattr(train_state.optimizer, "step", step)
    found = measure(iter([train_state]), Recipe(batch_size=32, micro_batches=4), IMAGES, processes)
    assert 32 / found.images_per_second == pytest.approx(0.08 * parts_in_turn + 0.5)
    assert max(network.sizes) == 8


def test_the_fastest_layout_counts(clock) -> None:
    slow, fast = (
        Network(clock, lambda count: 0.01 * count),
        Network(clock, lambda count: 0.004 * count),
    )
    assert measure(
        train_states(slow, fast), Recipe(batch_size=64), IMAGES
    ).images_per_second == pytest.approx(250)


def test_what_does_not_fit_is_continued(clock) -> None:
    def seconds(count: int) -> float:
        if count > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 0.05 + 0.01 * count

    found = measure(train_states(Network(clock, seconds)), Recipe(batch_size=64), IMAGES)
    assert found.source == "estimated now"


def test_a_real_network_is_measured() -> None:
    model = build(PAPER.architecture("depthwise", get_regime("pocket"), 3), init="he")
    before = {name: value.clone() for name, value in model.named_parameters()}
    recipe = replace(Recipe(batch_size=12), epochs=30)
    assert (
        1
        < measure(
            iter([TrainState(model, recipe, ComputeOptions(), CPU, "fp32")]), recipe, IMAGES
        ).images_per_second
        < 1e6
    )
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
