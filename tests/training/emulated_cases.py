"""Runs on the emulated device; test_emulated_gpu.py runs this file in a process of its own."""

import time
from dataclasses import replace

import pytest
import torch

from studies import run_queue
from tests.training.conftest import StopAfter
from tests.training.emulated import DEVICE, EmulatedTensor, Emulation
from tests.training.test_emulated_gpu import batches, train_state
from training import evaluation, records, train, update
from training.interrupt import Stopped, StopRequest


class DoneEvent:
    def __init__(self, device: torch.device) -> None: ...

    def record(self) -> None: ...

    def synchronize(self) -> None: ...


@pytest.fixture
def gpu(monkeypatch) -> torch.device:
    """The emulated device, with memory and streams that never fail."""
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


def test_the_second_update_does_not_wait_for_the_device(gpu) -> None:
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
    # Five updates of four parts: two parts and two losses are never waited for.
    assert (seconds["data"], seconds["backward"]) == (0.0, 18.0 + 3.0)
