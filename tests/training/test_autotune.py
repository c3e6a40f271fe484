"""The trial picks the fastest options that compute the same function, and changes nothing else."""

import functools
import json
import math
from contextlib import nullcontext
from dataclasses import asdict, astuple, replace

import pytest
import torch
import torch._dynamo
import torch._inductor.config as inductor
from torch import nn

from ablations import PAPER, get_regime
from models.builder import build
from tests.training.conftest import StopAfter
from training import autotune, checkpoint, train
from training.autotune import Work, choose, difference, micro_batches_that_fit
from training.execution import ComputeOptions
from training.interrupt import Stopped, StopRequest
from training.recipe import Recipe

CPU = torch.device("cpu")
POCKET = get_regime("mini")
WORK = Work(PAPER.architecture("4", POCKET, 10), Recipe(batch_size=4), 32, "fp32", CPU)
ALL = [
    ComputeOptions(True, False, 2),
    ComputeOptions(False, False, 2),
    ComputeOptions(False, False, 1),
    ComputeOptions(True, False, 2, True),
    ComputeOptions(True, False, 1, True),
]


@pytest.fixture
def seconds_of(monkeypatch):
    """seconds_of(function of options): an update takes that long, and torch has two threads."""

    def set_seconds(function) -> None:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        monkeypatch.setattr(autotune, "_seconds", lambda work, options, tries=1: function(options))
        monkeypatch.setattr(autotune, "has_compiler", lambda device: False)
        monkeypatch.setattr(ComputeOptions, "applied", lambda options: nullcontext())

    return set_seconds


@pytest.mark.parametrize("fastest", ALL, ids=str)
def test_the_fastest_options_are_chosen(fastest, seconds_of) -> None:
    # Half a second for every field that differs from the fastest.
    pairs = lambda options: zip(astuple(options), astuple(fastest), strict=True)  # noqa: E731
    seconds_of(lambda options: 1 + sum(one != best for one, best in pairs(options)) / 2)
    chosen, rates = choose(WORK, 10**4)
    assert chosen == fastest
    assert rates[fastest] == 4


def test_a_gain_within_the_noise_changes_nothing(seconds_of) -> None:
    seconds_of(lambda options: 1.0 if options.channels_last else 0.99)
    assert choose(WORK, 10**4)[0].channels_last


@pytest.mark.parametrize("factor", [-1.0, 1.05])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_faster_options_that_compute_something_else_are_not_chosen(
    precision, factor, seconds_of, monkeypatch
) -> None:
    seconds_of(lambda options: 1.0 if options.channels_last else 2.0)
    work, real = replace(WORK, precision=precision), ComputeOptions.forward_of

    def wrong(self: ComputeOptions, model: nn.Module):
        forward = real(self, model)
        return (lambda images: factor * forward(images)) if self.channels_last else forward

    assert choose(work, 10**4)[0].channels_last
    monkeypatch.setattr(ComputeOptions, "forward_of", wrong)
    assert not choose(work, 10**4)[0].channels_last


@pytest.mark.parametrize("step", [s.name for s in PAPER.steps_in(POCKET) if s.number is not None])
def test_all_options_compute_the_same_function_with_a_wide_margin(step) -> None:
    work = replace(WORK, architecture=PAPER.architecture(step, POCKET, 10))
    plain = autotune._outcome(work, ComputeOptions(channels_last=False))
    for options in (ComputeOptions(), ComputeOptions(rewritten=True)):
        assert difference(autotune._outcome(work, options), plain) < autotune._TOLERANCE / 5


def test_the_comparison_is_in_true_float32_on_a_gpu(monkeypatch) -> None:
    """Its TF32 alone would move batch norm networks by a third."""
    switched: list[bool] = []
    monkeypatch.setattr(autotune, "allow_tf32", lambda allowed, _: switched.append(allowed))
    autotune._outcome(WORK, ComputeOptions())
    assert switched == [False, False]
    assert all(torch.isfinite(each).all() for each in autotune._outcome(WORK, ComputeOptions()))


@pytest.mark.slow
def test_a_compiler_or_a_memory_that_fails_loses(seconds_of, monkeypatch) -> None:
    def seconds(options: ComputeOptions) -> float:
        if options.compile:
            raise RuntimeError("no compiler")
        if not options.channels_last:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    seconds_of(seconds)
    monkeypatch.setattr(autotune, "has_compiler", lambda device: True)
    chosen, rates = choose(WORK, 10**8)
    assert chosen == ComputeOptions(threads=2)
    assert [rate for options, rate in rates.items() if options.compile] == [0]


def test_compilation_is_tried_where_the_run_is_long_enough_to_pay_for_it(
    seconds_of, monkeypatch
) -> None:
    times = {True: 0.5, False: 1.0}
    seconds_of(lambda options: times[options.compile])
    monkeypatch.setattr(autotune, "has_compiler", lambda device: True)
    monkeypatch.setattr(autotune, "_outcome", lambda work, options: [torch.ones(1)])
    assert choose(WORK, 2000)[0].compile
    assert not choose(WORK, 1000)[0].compile
    assert not choose(WORK, 2000, may_compile=False)[0].compile
    times[True] = 0.95
    assert choose(WORK, 10_000)[0].compile
    assert not choose(WORK, 2000)[0].compile, "it gains less than compiling takes"


def test_every_network_of_a_study_is_compiled(monkeypatch) -> None:
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with inductor.patch(fallback_random=False), torch._dynamo.config.patch(recompile_limit=2):
        for width in (8, 16, 24, 32):
            model = build(replace(WORK.architecture, width=width, depths=(1, 1, 1, 1)))
            ComputeOptions(compile=True).forward_of(model)(torch.rand(2, 3, 32, 32))
    torch.compiler.reset()
    assert len(compiled) == 4


def test_a_run_too_short_to_gain_has_no_trial_and_is_timed_by_its_real_batch(monkeypatch) -> None:
    counts, real = [], Work.noise
    monkeypatch.setattr(Work, "noise", lambda work, n: counts.append(n) or real(work, n))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    work = replace(WORK, recipe=Recipe(batch_size=24, micro_batches=2))
    assert choose(work, 5) == (ComputeOptions(threads=torch.get_num_threads()), {})
    assert counts == [12]
    assert torch.equal(torch.rand(3), expected), "a trial draws no random number of the run"


def test_a_timed_update_leaves_the_weights_as_they_are() -> None:
    states = []
    real = Work.train_state

    def train_state(self, options, precision):
        states.append(real(self, options, precision))
        return states[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Work, "train_state", train_state)
        assert 0 < autotune._seconds(WORK, ComputeOptions(), tries=1) < math.inf
    fresh = WORK.train_state(ComputeOptions(), "fp32").model
    assert states[0].optimizer.state  # it was stepped
    for ours, other in zip(states[0].model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(ours, other)


@pytest.mark.parametrize(
    ("batch", "mixup", "fits", "parts"),
    [(96, 0.8, 32, 3), (96, 0.8, 1, None), (6, 0.8, 3, 3), (6, 0.0, 3, 2)],
)
def test_the_batch_that_fits_is_found_by_trying(batch, mixup, fits, parts, monkeypatch) -> None:
    """Mixing needs parts of an even number of images."""

    def gradients(_, __, batches) -> None:
        if next(batches).valid > fits:
            raise RuntimeError("cuDNN error: unable to find an engine to execute this computation")

    recipe = Recipe(batch_size=batch).change(mixup=mixup, cutmix=mixup)
    monkeypatch.setattr(autotune, "gradients", gradients)
    assert micro_batches_that_fit(replace(WORK, recipe=recipe, resolution=8)) == parts


@pytest.mark.slow
def test_a_run_is_the_same_with_and_without_a_trial_that_chooses_its_options(
    make_run, stores, execution, monkeypatch
) -> None:
    plain = ComputeOptions(channels_last=False, threads=1)

    def choose_then_take(work, updates):
        assert choose(work, 10**4)[1]
        return plain, {}

    monkeypatch.setattr(train, "choose", choose_then_take)
    given, trial = replace(execution, options=plain), replace(execution, trial=True)
    weights = []
    for name, how in (("given", given), ("tried", trial)):
        run = make_run("4", study=name, epochs=1, warmup_epochs=0)
        train.train(run.spec, stores, how, StopRequest())
        weights.append((run.folder / "model.safetensors").read_bytes())
        about = json.loads((run.folder / "environment.json").read_text())
        assert about["options"] == asdict(plain)
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    "began", [ComputeOptions(False, False, 1), ComputeOptions(True, False, 1, True)], ids=str
)
def test_a_resumed_run_keeps_the_options_it_began_with(
    began, make_run, stores, execution, monkeypatch
) -> None:
    changes = {"epochs": 1, "warmup_epochs": 0}
    run, whole = make_run("8", **changes), make_run("8", study="whole", **changes)
    with pytest.raises(Stopped):
        train.train(run.spec, stores, replace(execution, options=began), StopAfter(2))
    monkeypatch.setattr(train, "choose", lambda *_: pytest.fail("a resumed run has no trial"))
    other = replace(execution, options=ComputeOptions(True, False, 2), trial=True)
    train.train(run.spec, stores, other, StopRequest())
    state = checkpoint.load(run.folder / "checkpoint.pt")
    assert ComputeOptions(**state["options"]) == began
    train.train(whole.spec, stores, replace(execution, options=began), StopRequest())
    weights = [(one.folder / "model.safetensors").read_bytes() for one in (run, whole)]
    assert weights[0] == weights[1]


def test_a_run_resumed_on_another_device_keeps_the_order_of_its_weights(
    make_run, stores, execution, monkeypatch
) -> None:
    began = ComputeOptions(channels_last=False, threads=1)
    runs = [make_run("8", study=study) for study in ("whole", "moved")]
    real, saves = checkpoint.save, []

    def save(path, state) -> None:
        real(path, {**state, "device": "cuda"})
        saves.append(path)
        if len(saves) == 2:
            raise Stopped

    train.train(runs[0].spec, stores, replace(execution, options=began), StopRequest())
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        with pytest.raises(Stopped):
            train.train(runs[1].spec, stores, replace(execution, options=began), StopRequest())
    other = replace(execution, options=ComputeOptions(threads=1))
    train.train(runs[1].spec, stores, other, StopRequest())
    whole, moved = (checkpoint.load(run.folder / "checkpoint.pt")["model"] for run in runs)
    for name, value in whole.items():
        assert torch.allclose(moved[name], value, atol=1e-4), name
