"""A loss that is not finite is found late, without waiting, and still nothing is updated with it or
saved."""

import contextlib
import math
import time
from dataclasses import replace

import pytest
import torch

from training import checkpoint, monitor, update
from training import train as loop
from training.interrupt import Stopped, StopRequest
from training.monitor import BadLoss, Clock, LossMonitor

CPU = torch.device("cpu")
NEVER = StopRequest()


@pytest.fixture
def late(monkeypatch) -> None:
    """The CPU behaves as a GPU: losses become known two updates late."""
    monkeypatch.setattr(monitor, "updates_ahead", lambda device: 2)


def test_without_delay_a_bad_loss_is_known_at_once() -> None:
    watched = LossMonitor(CPU, 2.0)
    watched.add(0, torch.tensor(1.5))
    assert watched.last == 1.5
    with pytest.raises(BadLoss, match="the loss is inf in update 1"):
        watched.add(1, torch.tensor(math.inf))


def test_with_delay_it_is_known_in_time_and_stops_the_device_at_once(late) -> None:
    watched, saved = LossMonitor(CPU), LossMonitor(CPU)
    for i in range(4):
        watched.add(i, torch.tensor(float(i)))
    assert (watched.last, watched.loss_sum, watched.stop.item()) == (1.0, 6.0, 0.0)
    for i, loss in ((4, -math.inf), (5, 1.0)):
        watched.add(i, torch.tensor(loss))
        assert watched.stop.item() == 1, "for all later updates too"
    with pytest.raises(BadLoss, match="the loss is -inf in update 4"):
        watched.add(6, torch.tensor(1.0))
    saved.add(7, torch.tensor(math.nan))
    with pytest.raises(BadLoss, match="update 7"):
        saved.drain()


@pytest.mark.parametrize("step", ["baseline", "13"])
def test_a_run_is_the_same_with_losses_known_late(
    step, make_run, stores, execution, monkeypatch
) -> None:
    weights = []
    for delay in (0, 2):
        monkeypatch.setattr(monitor, "updates_ahead", lambda _, delay=delay: delay)
        optimizer = {"optimizer": "sgd"} if step == "baseline" else {}
        run = make_run(step, study=f"delay-{delay}", **optimizer)
        loop.train(run.spec, stores, execution, NEVER)
        weights.append((run.folder / "model.safetensors").read_bytes())
        weights.append((run.folder / "predictions.csv").read_bytes())
    assert weights[:2] == weights[2:]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weights_are_left_as_the_last_good_update_left_them(
    optimizer, make_run, stores, execution, late, monkeypatch
):
    """The third loss is no number; the host learns it two updates later, when it stops, and no
    weight has moved."""
    real, models, seen = update.loss_function, [], []
    build = loop.initial_model
    monkeypatch.setattr(
        loop, "initial_model", lambda *a, **how: models.append(build(*a, **how)) or models[-1]
    )

    def loss(*arguments):
        seen.append([p.detach().clone() for p in models[0].parameters()])
        return real(*arguments) * (math.nan if len(seen) == 3 else 1.0)

    monkeypatch.setattr(update, "loss_function", loss)
    run = make_run("4", optimizer=optimizer, warmup_epochs=0)
    with pytest.raises(
        loop.NonFinite, match="the loss is nan in epoch 1, batch 3; nothing .* rate too high"
    ):
        loop.train(run.spec, stores, execution, NEVER)
    assert len(seen) == 5
    assert any(not torch.equal(a, b) for a, b in zip(seen[1], seen[2]))
    for later in (seen[3], seen[4], list(models[0].parameters())):
        assert all(torch.equal(a, b) for a, b in zip(seen[2], later, strict=True))
    assert not (run.folder / "checkpoint.pt").exists()


def test_a_bad_last_loss_of_an_epoch_is_found_before_it_is_saved(
    make_run, stores, execution, late, monkeypatch
):
    real, calls = update.loss_function, []
    updates = len(stores.train) // 12

    def loss(*arguments):
        calls.append(1)
        return real(*arguments) * (math.nan if len(calls) == 2 * updates else 1.0)

    monkeypatch.setattr(update, "loss_function", loss)
    run = make_run("4")
    with pytest.raises(
        loop.NonFinite, match=rf"epoch 2, batch {updates}; .* holds the last good state"
    ):
        loop.train(run.spec, stores, execution, NEVER)
    assert checkpoint.load(run.folder / "checkpoint.pt")["state"]["epoch"] == 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_fp16_skips_updates_that_overflow_and_recovers(
    optimizer, make_run, stores, execution
) -> None:
    """Scaled by 2^16 at first, the gradients overflow: the scaler skips updates until its scale
    fits."""
    run = make_run("4", optimizer=optimizer, warmup_epochs=0, init="he")
    run = replace(run, study=replace(run.study, config=replace(run.study.config, precision="fp16")))
    result = loop.train(run.spec, stores, execution, NEVER)
    assert math.isfinite(result["loss"])
    state = checkpoint.load(run.folder / "checkpoint.pt")
    assert 0 < state["scaler"]["scale"] <= 2**16
    for each in state["optimizer"]["state"].values():
        assert all(value.isfinite().all() for value in each.values())


def test_a_phase_that_an_exception_leaves_keeps_its_time(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[-1])
    clock = Clock({"data": 5.0})
    with contextlib.suppress(Stopped), clock("evaluation"):
        now.append(103.0)
        raise Stopped
    now.append(104.0)
    seconds = clock.read()
    assert (seconds["data"], seconds["evaluation"], seconds["other"]) == (5, 3, 1)
    assert sum(seconds.values()) == 9
