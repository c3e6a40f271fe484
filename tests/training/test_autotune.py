"""The trial picks the fastest layout that computes the same function, and leaves no trace in the
run."""

import functools
import json
from contextlib import nullcontext
from dataclasses import asdict, astuple, replace

import pytest
import torch
import torch._dynamo
import torch._inductor.config as inductor
from torch import nn

from ablations import PAPER, get_regime
from models.builder import build
from training import autotune, checkpoint, loop, update
from training.autotune import Candidate, Choice, Work, cache_file, choose, difference
from training.compute_options import ComputeOptions, memory_format
from training.interrupt import Stopped, StopRequest
from training.update import noise

CPU = torch.device("cpu")
POCKET = get_regime("pocket")
WORK = Work(PAPER.architecture("4", POCKET, 10), 32, 4, "fp32", drop_path=0.2, layer_scale=True)


LAYOUTS = [
    ComputeOptions(True, False, 2),
    ComputeOptions(False, False, 2),
    ComputeOptions(False, False, 1),
    ComputeOptions(True, False, 2, True),
    ComputeOptions(True, False, 1, True),
]


@pytest.fixture
def clock(monkeypatch):
    """clock(seconds by layout): steps are computed as ever and take as long as it says, in ms."""

    def set_clock(seconds) -> None:
        real = Candidate.step

        def step(self, batch) -> float:
            real(self, batch)
            return seconds(self.layout) / 1000

        monkeypatch.setattr(Candidate, "step", step)
        monkeypatch.setattr(autotune, "_DUEL_SECONDS", 0.0)
        monkeypatch.setattr(autotune, "has_compiler", lambda device: False)

    return set_clock


@pytest.fixture
def two_threads(monkeypatch) -> None:
    """torch says that it has two threads, and computes with what it has: two on one core would wait
    for each other."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(autotune, "threads", lambda count: nullcontext())


@pytest.mark.parametrize("fastest", LAYOUTS, ids=str)
def test_the_fastest_layout_is_chosen(fastest, clock, two_threads) -> None:
    # Half a second for every word in which a layout differs from the fastest.
    clock(
        lambda x: (
            1
            + sum(ours != best for ours, best in zip(astuple(x), astuple(fastest), strict=True)) / 2
        )
    )
    choice = choose(WORK, CPU, 10**4, None)
    assert (choice.layout, choice.why) == (fastest, "tried")
    assert str(fastest) in dict(choice.rates)


def test_a_gain_within_the_noise_changes_nothing(clock) -> None:
    clock(lambda layout: 1.0 if layout.channels_last else 0.99)
    assert choose(WORK, CPU, 10**4, None).layout.channels_last


@pytest.mark.parametrize(
    "factor", [-1.0, 1.15]
)  # the second is within bf16's rounding under batch norm
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_faster_layout_that_computes_something_else_is_not_chosen(
    precision, factor, clock, monkeypatch
) -> None:
    clock(lambda layout: 1.0 if layout.channels_last else 2.0)
    real = update.forward_of

    def wrong(model: nn.Module, layout: ComputeOptions):
        forward = real(model, layout)
        return (lambda images: factor * forward(images)) if layout.channels_last else forward

    work = replace(WORK, precision=precision, batch=16)
    assert choose(work, CPU, 10**4, None).layout.channels_last
    monkeypatch.setattr(update, "forward_of", wrong)
    assert not choose(work, CPU, 10**4, None).layout.channels_last


@pytest.mark.parametrize(
    "step",
    [step for step in PAPER.steps_in(POCKET) if step.number in (0, 7, 13, None)],
    ids=lambda s: s.name,
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_layouts_compute_the_same_function(step, precision) -> None:
    work = replace(WORK, architecture=PAPER.architecture(step, POCKET, 10), precision=precision)
    torch.manual_seed(0)
    batch = noise(16, 64, 10, CPU)
    plain = ComputeOptions(channels_last=False)
    exact = Candidate(work, plain, CPU, "fp32").outcome(batch)
    own = difference(Candidate(work, plain, CPU).outcome(batch), exact)
    for rewritten in (False, True):
        layout = ComputeOptions(rewritten=rewritten)
        assert difference(Candidate(work, layout, CPU).outcome(batch), exact) <= 0.05 + 1.5 * own
        assert difference(Candidate(work, layout, CPU, "fp32").outcome(batch), exact) <= 0.05
    assert own < 0.6  # else nothing would be shown


def test_a_timed_step_leaves_the_weights_as_they_are() -> None:
    candidate = Candidate(WORK, ComputeOptions(), CPU)
    train_state = candidate.train_state
    before = [parameter.clone() for parameter in train_state.model.parameters()]
    for _ in range(2):
        candidate.step(noise(4, 32, 10, CPU))
    assert train_state.optimizer.state  # it was stepped
    assert all(
        torch.equal(*pair) for pair in zip(before, train_state.model.parameters(), strict=True)
    )


def test_a_compiler_that_fails_loses(clock, monkeypatch) -> None:
    clock(lambda layout: 0.1 if layout.compile else 1.0)
    tried = []

    def forward_of(model: nn.Module, layout: ComputeOptions):
        if layout.compile:
            tried.append(layout)
            raise RuntimeError("no compiler")
        return lambda images: model(images.contiguous(memory_format=memory_format(layout)))

    monkeypatch.setattr(update, "forward_of", forward_of)
    monkeypatch.setattr(autotune, "has_compiler", lambda device: True)
    assert not choose(WORK, CPU, 10**8, None).layout.compile
    assert tried


def test_a_trial_takes_fewer_images_where_the_batch_does_not_fit(clock, monkeypatch) -> None:
    clock(lambda layout: 1.0)
    real, sizes = Candidate.outcome, []

    def outcome(self, batch):
        sizes.append(batch.valid)
        if self.train_state.precision == "fp32" and batch.valid > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, batch)

    monkeypatch.setattr(Candidate, "outcome", outcome)
    work = replace(WORK, precision="bf16", batch=16)
    assert choose(work, CPU, 10**4, None).why == "tried"
    assert list(dict.fromkeys(sizes)) == [16, 8, 4]
    monkeypatch.setattr(Candidate, "outcome", lambda *_: (_ for _ in ()).throw(MemoryError()))
    assert choose(work, CPU, 10**4, None).why == "there is too little memory for a trial"


def test_every_network_of_a_study_is_compiled(monkeypatch) -> None:
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    with inductor.patch(fallback_random=False), torch._dynamo.config.patch(recompile_limit=2):
        for width in (8, 16, 24, 32):
            model = build(replace(WORK.architecture, width=width, depths=(1, 1, 1, 1)))
            update.forward_of(model, ComputeOptions(compile=True))(torch.rand(2, 3, 32, 32))
    torch.compiler.reset()
    assert len(compiled) == 4


def test_a_run_too_short_to_gain_has_no_trial(tmp_path) -> None:
    choice = choose(WORK, CPU, 5, tmp_path / "layouts.json")
    assert choice == Choice(
        ComputeOptions(threads=torch.get_num_threads()), "the run is too short for a trial"
    )
    assert not (tmp_path / "layouts.json").exists()


def test_a_choice_is_remembered_for_the_same_work_only(tmp_path, clock, monkeypatch) -> None:
    clock(lambda layout: 2.0 if layout.channels_last else 1.0)
    cache = tmp_path / "deep" / "layouts.json"
    first = choose(WORK, CPU, 10**4, cache)
    assert choose(WORK, CPU, 10**4, cache) == Choice(first.layout, "remembered")
    others = [
        {"batch": 5},
        {"resolution": 64},
        {"precision": "bf16"},
        {"architecture": PAPER.architecture("5", POCKET, 10)},
    ]
    for change in others:
        assert choose(replace(WORK, **change), CPU, 10**4, cache).why == "tried"
    assert choose(WORK, CPU, 10**4, cache).why == "remembered"
    monkeypatch.setattr(torch, "__version__", "0")
    assert choose(WORK, CPU, 10**4, cache).why == "tried"


def test_a_damaged_memory_is_ignored_and_replaced(tmp_path, clock) -> None:
    clock(lambda layout: 1.0)
    cache = tmp_path / "layouts.json"
    choose(WORK, CPU, 10**4, cache)
    (key,) = json.loads(cache.read_bytes())
    odd = {"channels_last": 1, "compile": False, "threads": 2}
    damages = (
        b"",
        b"\xff{",
        b"[1]",
        json.dumps({key: 3}).encode(),
        json.dumps({key: {"layout": odd}}).encode(),
        json.dumps({key: {"layout": {**odd, "channels_last": True, "threads": -1}}}).encode(),
    )
    for damage in damages:
        cache.write_bytes(damage)
        assert choose(WORK, CPU, 10**4, cache).why == "tried"
        assert choose(WORK, CPU, 10**4, cache).why == "remembered"


def test_a_memory_that_cannot_be_written_does_not_stop_a_run(tmp_path, clock) -> None:
    clock(lambda layout: 1.0)
    (tmp_path / "file").write_text("in the way")
    assert choose(WORK, CPU, 10**4, tmp_path / "file" / "layouts.json").why == "tried"


def test_the_trial_draws_no_random_number_of_the_run() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    choose(WORK, CPU, 50, None)
    assert torch.equal(torch.rand(3), expected)


def test_the_memory_lies_in_the_users_cache_folder(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_file() == tmp_path / "convnext-ablations/layouts.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_file().is_absolute()


def test_a_run_is_the_same_with_and_without_a_trial_that_chooses_its_layout(
    make_run, stores, execution, monkeypatch, tmp_path
) -> None:
    plain = ComputeOptions(channels_last=False, threads=1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        autotune, "choose", lambda work, device, steps, cache: choose_then_take(work, device)
    )

    def choose_then_take(work, device) -> Choice:
        assert choose(work, device, 10**4, None).why == "tried"
        return Choice(plain, "tried")

    weights = []
    for name, how in (
        ("given", replace(execution, layout=plain)),
        ("tried", replace(execution, trial=True)),
    ):
        run = make_run("4", study=name)
        loop.train(run.spec, stores, how, StopRequest())
        weights.append((run.folder / "model.safetensors").read_bytes())
        assert json.loads((run.folder / "environment.json").read_text())["layout"] == asdict(plain)
    assert weights[0] == weights[1]
    other = make_run("4", study="other")
    loop.train(
        other.spec, stores, replace(execution, layout=ComputeOptions(threads=1)), StopRequest()
    )
    assert (other.folder / "model.safetensors").read_bytes() != weights[
        0
    ]  # so that the test can fail


@pytest.mark.parametrize(
    "began", [ComputeOptions(False, False, 1), ComputeOptions(True, False, 1, True)], ids=str
)
def test_a_resumed_run_keeps_the_layout_it_began_with(
    began, make_run, stores, execution, monkeypatch
) -> None:
    class AfterTwo(StopRequest):
        looks = 2

        def __bool__(self) -> bool:
            self.looks -= 1
            return self.looks < 1

    run = make_run("8")
    with pytest.raises(Stopped):
        loop.train(run.spec, stores, replace(execution, layout=began), AfterTwo())

    def never(*_) -> Choice:
        raise AssertionError("a run that goes on tries nothing")

    monkeypatch.setattr(autotune, "choose", never)
    loop.train(
        run.spec,
        stores,
        replace(execution, layout=ComputeOptions(True, False, 2), trial=True),
        StopRequest(),
    )
    state = checkpoint.load(run.folder / "checkpoint.pt", CPU)
    assert ComputeOptions(**state["layout"]) == began
    whole = make_run("8", study="whole")
    loop.train(whole.spec, stores, replace(execution, layout=began), StopRequest())
    assert (run.folder / "model.safetensors").read_bytes() == (
        whole.folder / "model.safetensors"
    ).read_bytes()


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

    loop.train(runs[0].spec, stores, replace(execution, layout=began), StopRequest())
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        with pytest.raises(Stopped):
            loop.train(runs[1].spec, stores, replace(execution, layout=began), StopRequest())
    loop.train(
        runs[1].spec, stores, replace(execution, layout=ComputeOptions(threads=1)), StopRequest()
    )
    whole, moved = (checkpoint.load(run.folder / "checkpoint.pt", CPU)["model"] for run in runs)
    for name, value in whole.items():
        assert torch.allclose(moved[name], value, atol=1e-4), name


@pytest.mark.parametrize(
    "layout", [None, {"channels_last": True, "bricks": 3}], ids=["none", "unknown word"]
)
def test_a_layout_of_another_version_is_one_sentence(layout, make_run, stores, execution) -> None:
    run = make_run("8", epochs=2)
    loop.train(run.spec, stores, execution, StopRequest())
    state = checkpoint.load(run.folder / "checkpoint.pt", CPU)
    checkpoint.save(run.folder / "checkpoint.pt", {**state, "layout": layout})
    with pytest.raises(
        checkpoint.Damaged, match=r"checkpoint.pt is of another version of this program"
    ):
        loop.train(run.spec, stores, execution, StopRequest())
