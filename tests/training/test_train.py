"""A run learns, leaves what it should, and resumes exactly where it was."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from ablations import PAPER, REGIMES
from models import Architecture
from studies.run import Run
from tests.training.conftest import StopAfter
from training import checkpoint, records, train
from training.checkpoint import Damaged
from training.interrupt import Item, Stopped, StopRequest
from training.spec import ABOUT, collapse
from training.train import NonFinite

CPU = torch.device("cpu")


class StopInEvaluation(StopRequest):
    """Requests a stop when evaluation number `which` begins."""

    def __init__(self, which: int) -> None:
        super().__init__()
        self.left = which

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        self.left -= 1
        self.requested = self.left == 0
        return super().between(items)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of this project catches it."""


@pytest.fixture
def go(stores, execution) -> Callable[..., dict[str, Any]]:
    """go(run, stop, **changes of the execution): train the run."""

    def train_run(run: Run, stop: StopRequest | None = None, **changes: Any) -> dict[str, Any]:
        how = replace(execution, **changes)
        return train.train(run.spec, stores, how, StopRequest() if stop is None else stop)

    return train_run


def at(run: Run, precision: str) -> Run:
    config = replace(run.study.config, precision=precision)
    return replace(run, study=replace(run.study, config=config))


def state_of(run: Run) -> dict[str, Any]:
    return checkpoint.load(run.folder / "checkpoint.pt")


def result_of(run: Run) -> dict[str, Any]:
    return json.loads((run.folder / "result.json").read_text())


def epochs_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def shown(run: Run) -> list[tuple[str, int, float]]:
    """(tag, update, value) of all that TensorBoard shows, times left out."""
    events = EventAccumulator(str(run.folder), {SCALARS: 0})
    events.Reload()
    tags = [tag for tag in events.Tags()[SCALARS] if "second" not in tag]
    return sorted((tag, event.step, event.value) for tag in tags for event in events.Scalars(tag))


def contents(run: Run) -> dict[str, object]:
    """All of a finished run that must not depend on how it came about."""
    state, lines, result = state_of(run), epochs_of(run), result_of(run)
    for record in (*lines, result):
        for name in ("seconds", "images_per_second", "inference_ms_1", "inference_ms_64"):
            record.pop(name, None)
    moments = state["optimizer"]["state"].items()
    return {
        "weights": (run.folder / "model.safetensors").read_bytes(),
        "model": {name: value.numpy().tobytes() for name, value in state["model"].items()},
        "moments": {(i, k): v.numpy().tobytes() for i, s in moments for k, v in s.items()},
        "predictions": (run.folder / "predictions.csv").read_text(),
        "metrics": lines,
        "events": shown(run),
        "files": sorted(path.name.partition(".out.")[0] for path in run.folder.iterdir()),
        "result": {**result, "study": "", "finished": ""},
    }


def test_a_run_learns_to_tell_the_classes_apart(make_run, go) -> None:
    run = make_run(
        "13",
        epochs=14,
        mixup=0.0,
        cutmix=0.0,
        random_erasing=0.0,
        rand_augment_magnitude=0.0,
        drop_path=0.0,
        layer_scale=None,
        init="he",
        crop_scale=(0.6, 1.0),
        flip=0.0,
    )
    assert go(run)["top1"] > 80
    losses = [epoch["train_loss"] for epoch in epochs_of(run)]
    assert losses[-1] < 0.6 * losses[0]


def test_a_run_leaves_its_records(make_run, go, stores, monkeypatch) -> None:
    monkeypatch.setattr(records, "_TIMING_SECONDS", 0.05)  # so that a pause is outvoted
    run = make_run("depthwise", seed=3)
    result = go(run)
    assert json.loads((run.folder / "result.json").read_text()) == result
    with (run.folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == list(stores.test.ids)
    hits = sum(row["label"] == row["top1"] for row in rows)
    assert result["top1"] == pytest.approx(100 * hits / len(rows))
    assert result["top5"] == 100  # three classes
    loss = -sum(math.log(float(row["p_label"])) for row in rows) / len(rows)
    assert result["loss"] == pytest.approx(loss, rel=1e-4)

    lines = epochs_of(run)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    best = max(lines, key=lambda line: line["validation_top1"])
    assert result["selected_epoch"] == best["epoch"]
    losses = {step: value for tag, step, value in shown(run) if tag == "train/loss"}
    assert losses == pytest.approx({line["update"]: line["train_loss"] for line in lines})
    with safe_open(run.folder / "model.safetensors", "pt") as file:
        about = json.loads(file.metadata()[ABOUT])
    assert (about["classes"], about["epoch"]) == (list(stores.classes), best["epoch"])
    depths = tuple(about["architecture"].pop("depths"))
    assert Architecture(depths=depths, **about["architecture"]) == run.architecture

    assert 0 < result["inference_ms_1"] < result["inference_ms_64"]
    weights = (run.folder / "model.safetensors").stat().st_size / 1e6
    assert result["peak_memory_mb"] > 4 * weights, "weights, gradients, two moments, activations"


IN_FULL = {"training-recipe", "separate-downsampling"}


@pytest.mark.parametrize("step", sorted(IN_FULL))
def test_a_run_stopped_in_mid_epoch_ends_as_one_never_stopped(step, make_run, go) -> None:
    whole, stopped = make_run(step, study="whole"), make_run(step, study="stopped")
    go(whole)
    for updates in (2, 1, 6):  # in the first epoch, right after resuming, across an epoch's end
        with pytest.raises(Stopped, match="saved"):
            go(stopped, StopAfter(updates))
    go(stopped)
    assert contents(stopped) == contents(whole)


@pytest.mark.slow
@pytest.mark.parametrize("step", sorted({s.name for s in PAPER.steps_in(REGIMES["mini"])}))
def test_every_step_resumes_with_mixing_an_average_and_parts(step, make_run, go) -> None:
    hard = {"drop_path": 0.3, "mixup": 0.8, "cutmix": 1.0, "ema": 0.9, "micro_batches": 2}
    changes = {"epochs": 1, "warmup_epochs": 0, **hard}
    whole, stopped = (make_run(step, study=study, **changes) for study in ("whole", "stopped"))
    go(whole)
    with pytest.raises(Stopped, match="saved"):
        go(stopped, StopAfter(3))
    go(stopped)
    # Only the stopped run has a previous checkpoint.
    assert {**contents(stopped), "files": None} == {**contents(whole), "files": None}


@pytest.mark.parametrize("which", [1, 4])
def test_a_run_stopped_in_an_evaluation_repeats_it(which, make_run, go, monkeypatch) -> None:
    whole, stopped = make_run("4", study="whole"), make_run("4", study="stopped")
    go(whole)
    with pytest.raises(Stopped, match="in its test" if which == 4 else f"in epoch {which}"):
        go(stopped, StopInEvaluation(which))
    updates: list[int] = []
    real = train.update
    monkeypatch.setattr(train, "update", lambda *args: updates.append(args[1]) or real(*args))
    go(stopped)
    assert contents(stopped) == contents(whole)
    assert updates == list(range(min(which * 6, 18), 18))


DEATHS = (
    (records, "begin", 1),
    (records, "save_weights", 1),
    (train, "write_atomically", 2),  # of metrics.jsonl
    (records, "log", 1),
    (records, "log", 2),
    (checkpoint, "keep_previous", 1),
    (checkpoint, "save", 2),  # after the last epoch
    (records, "inference_profile", 1),  # after the test's event
    (records, "architecture_complexity", 1),  # between predictions.csv and result.json
)
"""Functions, and the call after which the process dies."""


@pytest.mark.slow
def test_a_run_killed_between_two_files_ends_as_one_never_killed(make_run, go, monkeypatch) -> None:
    whole = make_run("3", study="whole", epochs=2)
    go(whole)
    for number, (module, name, call) in enumerate(DEATHS):
        killed = make_run("3", study=f"killed-{number}", epochs=2)
        original, calls = getattr(module, name), []

        def dies(*given: Any, calls=calls, call=call, original=original, **named: Any) -> Any:
            answer = original(*given, **named)
            calls.append(given)
            if len(calls) == call:
                raise Killed
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(module, name, dies)
            with pytest.raises(Killed):
                go(killed)
        go(killed)
        assert contents(killed) == contents(whole), name


def test_the_checkpoint_before_is_enough(make_run, go) -> None:
    whole, robbed = make_run("3", study="whole"), make_run("3", study="robbed")
    go(whole)
    with pytest.raises(Stopped):
        go(robbed, StopAfter(14))
    (robbed.folder / "checkpoint.pt").unlink()
    go(robbed)
    assert contents(robbed) == contents(whole)


def test_a_checkpoint_may_be_written_after_every_update(make_run, go, monkeypatch) -> None:
    saved: list[tuple[int, int]] = []
    monkeypatch.setattr(
        checkpoint, "save", lambda _, c: saved.append((c["state"]["epoch"], c["state"]["batch"]))
    )
    go(make_run("3", epochs=2), checkpoint_minutes=0)
    first, second = ([(epoch, batch) for batch in range(1, 7)] for epoch in (0, 1))
    assert saved == [*first, (1, 0), *second, (2, 0)]


@pytest.mark.parametrize(
    ("precision", "changes"), [("fp32", {"ema": 0.8}), ("fp16", {}), ("bf16", {"micro_batches": 2})]
)
def test_an_average_a_scaler_and_micro_batches_resume_exactly(
    precision, changes, make_run, go
) -> None:
    whole, stopped = (at(make_run("4", study=name, **changes), precision) for name in ("a", "b"))
    go(whole)
    for updates in (2, 5):
        with pytest.raises(Stopped):
            go(stopped, StopAfter(updates))
    go(stopped)
    assert contents(whole) == contents(stopped)


def test_the_moving_average_is_what_is_evaluated_and_kept(make_run, go, execution, stores) -> None:
    """Against an average of the weights in checkpoints of every update."""
    decay, run = 0.6, make_run("4", ema=0.6, epochs=2)
    average = train.initial_model(run.spec, execution).state_dict()
    for _ in range(2 * (len(stores.train) // 12) - 1):
        with pytest.raises(Stopped):
            go(run, StopAfter(1))
        for name, value in state_of(run)["model"].items():
            floating = value.is_floating_point()
            average[name] = decay * average[name] + (1 - decay) * value if floating else value
    go(run)
    state = state_of(run)
    for name, value in state["model"].items():
        floating = value.is_floating_point()
        average[name] = decay * average[name] + (1 - decay) * value if floating else value
        assert torch.allclose(state["average"][name], average[name], atol=1e-6), name
    assert not torch.equal(state["average"]["head.weight"], state["model"]["head.weight"])


def test_the_average_of_the_best_epoch_is_kept_and_tested(make_run, go, monkeypatch) -> None:
    """Where the best epoch is not the last: its averaged weights, not the final ones."""
    real, right, seen = train.evaluate, iter([2, 6, 1, 0]), []

    def evaluate(model, *others):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        result = real(model, *others)
        wrong = torch.arange(len(result.labels)) >= next(right)
        best = (result.labels + wrong)[:, None].expand_as(result.top)
        return replace(result, top=best.contiguous())

    monkeypatch.setattr(train, "evaluate", evaluate)
    run = make_run("4", ema=0.6, epochs=3)
    go(run)
    assert result_of(run)["selected_epoch"] == 2
    kept = load_file(run.folder / "model.safetensors")
    for name, value in kept.items():
        assert torch.equal(value, seen[1][name]), name
        assert torch.equal(value, seen[3][name]), name  # the test's
    weights = [kept, seen[0], seen[2], state_of(run)["model"]]
    assert len({each["head.weight"].double().sum().item() for each in weights}) == 4


def test_workers_do_not_change_the_result(make_run, go) -> None:
    alone, helped = make_run("13", study="alone"), make_run("13", study="helped")
    go(alone)
    go(helped, workers=2)
    assert contents(alone) == contents(helped)


def test_micro_batches_give_the_gradients_of_the_whole_batch(make_run, go) -> None:
    """Layer norm sees one image at a time, so that only rounding may differ."""
    weights = []
    for parts in (1, 2):
        run = make_run("13", study=f"in-{parts}", micro_batches=parts, drop_path=0.0, epochs=2)
        go(run)
        weights.append(state_of(run)["model"])
    for name, whole in weights[0].items():
        assert torch.allclose(whole, weights[1][name], atol=2e-4), name


def test_peak_memory_grows_with_a_part_of_the_batch_and_not_with_the_batch(make_run, go) -> None:
    quick = {"epochs": 1, "warmup_epochs": 0}
    peaks = {
        (batch, parts): go(
            make_run("13", study=f"{batch}-{parts}", batch_size=batch, micro_batches=parts, **quick)
        )["peak_memory_mb"]
        for batch, parts in ((8, 1), (64, 1), (64, 8))
    }
    assert peaks[64, 1] > 1.5 * peaks[8, 1]
    assert peaks[64, 8] == pytest.approx(peaks[8, 1])


def test_seeds_give_different_runs(make_run, go) -> None:
    runs = [make_run("4", seed=seed, epochs=1, warmup_epochs=0) for seed in (0, 1)]
    for run in runs:
        go(run)
    assert contents(runs[0])["weights"] != contents(runs[1])["weights"]


def test_a_loss_that_is_not_a_number_stops_the_run_before_the_update(make_run, go) -> None:
    run = make_run("1", lr=1e30, warmup_epochs=0, min_lr=0.0)
    with pytest.raises(
        NonFinite, match=r"training-recipe seed 0: the loss is nan in epoch 1, batch \d+"
    ):
        go(run)
    assert not (run.folder / "result.json").exists()


def test_a_loss_that_is_not_a_number_after_an_epoch_fails_the_run(make_run, go) -> None:
    """One update makes the weights too large: its own loss was finite, the next is not."""
    run = make_run("1", optimizer="sgd", lr=1e30, warmup_epochs=0, epochs=1, batch_size=64)
    with pytest.raises(NonFinite, match="the validation loss after epoch 1 is nan; likely cause"):
        go(run)
    assert not (run.folder / "result.json").exists()


def test_a_run_that_learned_nothing_is_logged_as_collapsed(make_run, go, capsys) -> None:
    run = make_run("1", optimizer="sgd", lr=1e-9, warmup_epochs=0, min_lr=0.0, epochs=1)
    assert go(run)["collapsed"] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("right", "guesses", "why"),
    [
        (400, 10, ""),
        (108, 10, ""),
        (106, 10, "no better than chance"),
        (0, 10, "no better than chance"),
        (100, 1, "constant predictions"),
    ],
)
def test_a_run_no_better_than_chance_has_collapsed(right: int, guesses: int, why: str) -> None:
    labels = [i % 10 for i in range(10_000)]
    predicted = [i if place < 10 * right else (i + 1) % 10 for place, i in enumerate(labels)]
    assert collapse(labels, predicted if guesses > 1 else [3] * 10_000, 10) == why


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda state: state.pop("options"), "another version"), (lambda state: 0, "damaged")],
    ids=["version", "bit"],
)
def test_a_damaged_checkpoint_is_recognized(damage, message, make_run, go) -> None:
    run = make_run("4")
    with pytest.raises(Stopped):
        go(run, StopAfter(2))
    path, state = run.folder / "checkpoint.pt", state_of(run)
    if damage(state):
        checkpoint.save(path, state)
        checkpoint.previous(path).unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(Damaged, match=rf"checkpoint.pt is .*{message}"):
        go(run)


def test_too_few_images_for_one_batch_are_refused(make_run, go) -> None:
    with pytest.raises(ValueError, match="a batch size of 72 or less fits"):
        go(make_run("4", batch_size=500))


def test_batch_norm_over_a_single_value_is_refused_in_one_line(make_run) -> None:
    parts = {"batch_size": 4, "micro_batches": 4, "mixup": 0.0, "cutmix": 0.0}
    batch_norm, layer_norm = make_run("4", **parts), make_run("13", **parts)
    remedy = r"give fewer --micro-batches than 4 or a larger --batch-size than 4"
    with pytest.raises(ValueError, match=remedy):
        train.require_batch_norm(batch_norm.architecture, batch_norm.recipe, 32)
    train.require_batch_norm(batch_norm.architecture, batch_norm.recipe, 64)
    train.require_batch_norm(layer_norm.architecture, layer_norm.recipe, 32)


def test_bf16_on_the_cpu_trains_too(make_run, go) -> None:
    assert math.isfinite(go(at(make_run("13"), "bf16"))["loss"])
