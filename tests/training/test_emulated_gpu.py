"""Runs on a device that is not the CPU, as far as it can be emulated (tests/training/emulated.py).

The first tests follow the forward pass with torch's fake tensors, which know shapes and devices.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

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
from studies import run_queue
from training import evaluation, records, train, update
from training.execution import ComputeOptions
from training.interrupt import Stopped, StopRequest
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


class DoneEvent:
    def __init__(self, device: torch.device) -> None: ...

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


@pytest.fixture
def gpu(monkeypatch) -> torch.device:
    """The emulated device, with memory and streams that never fail."""
    from tests.training.emulated import DEVICE, EmulatedTensor, Emulation

    empty = torch.empty

    def empty_unpinned(*sizes: object, pin_memory: bool = False, **others: object) -> torch.Tensor:
        return empty(*sizes, **others)

    monkeypatch.setattr(torch, "empty", empty_unpinned)
    for module, name in ((evaluation, "_predict"), (records, "_inference_ms")):
        function = getattr(module, name).__wrapped__  # wrappers have no inference mode
        monkeypatch.setattr(module, name, torch.no_grad()(function))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: None)
    monkeypatch.setattr(EmulatedTensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(Emulation, "fits", float("inf"))
    monkeypatch.setattr(torch, "Event", DoneEvent)
    monkeypatch.setattr(records, "peak_memory", lambda device: 1)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    Emulation.waits.clear()
    yield DEVICE
    torch.__future__.set_overwrite_module_params_on_conversion(False)


class StopAfter(StopRequest):
    def __init__(self, updates: int) -> None:
        super().__init__()
        self.left = updates

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.mark.parametrize("name", ["training-recipe", "separate-downsampling"])
def test_a_run_stopped_and_resumed_on_a_gpu_is_the_cpus_to_the_bit(
    name, make_run, stores, execution, gpu
) -> None:
    hard = {"micro_batches": 2, "ema": 0.9, "drop_path": 0.2, "mixup": 0.8, "epochs": 2}
    here, there = make_run(name, study="cpu", **hard), make_run(name, study="gpu", **hard)
    train.train(here.spec, stores, execution, StopRequest())
    on_gpu = replace(execution, device=gpu)
    with pytest.raises(Stopped):
        train.train(there.spec, stores, on_gpu, StopAfter(4))
    train.train(there.spec, stores, on_gpu, StopRequest())
    for file in ("model.safetensors", "predictions.csv"):
        assert (here.folder / file).read_bytes() == (there.folder / file).read_bytes(), file


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


def test_the_second_update_does_not_wait_for_the_device(gpu) -> None:
    from tests.training.emulated import Emulation

    state, given = train_state(gpu), batches(gpu)
    update.update(state, 0, given, 1e-3)
    Emulation.waits.clear()
    update.update(state, 1, given, 1e-3)
    assert not Emulation.waits
    assert state.monitor.delay == 2
    float(state.monitor.stop)
    assert Emulation.waits, "the emulation would have noticed"


def test_tensors_of_two_devices_cannot_meet(gpu) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        train_state(gpu).model(torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize(
    "message", ["CUDA out of memory. Tried", "GET was unable to find an engine to execute this"]
)
def test_each_lack_of_memory_is_answered_with_the_batch_that_fits(
    message, make_run, stores, execution, gpu, monkeypatch, capsys
) -> None:
    from tests.training.emulated import Emulation

    monkeypatch.setattr(Emulation, "message", message)
    monkeypatch.setattr(Emulation, "fits", 13)
    run = make_run("4", epochs=1, warmup_epochs=0, batch_size=24)
    assert run_queue.run_all([run], stores, replace(execution, device=gpu), StopRequest()) == 1
    printed = capsys.readouterr().err
    assert "ran out of memory: 24 images at once do not fit: give --micro-batches 2," in printed
    assert f"(torch: {message}" in printed


def test_time_is_booked_where_it_is_spent(gpu, monkeypatch) -> None:
    """A device that is behind is waited for after the backward pass, never in "data"."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def synchronize(event: DoneEvent) -> None:
        now[0] += 1.0

    monkeypatch.setattr(DoneEvent, "synchronize", synchronize)
    state, given = train_state(gpu), batches(gpu)
    for number in range(5):
        update.update(state, number, given, 1e-3)
    seconds = state.clock.read()
    assert (seconds["data"], seconds["backward"]) == (0.0, 3.0)
