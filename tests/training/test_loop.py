"""A run learns, leaves what it should, and goes on exactly where it was."""

import csv
import json
import math
from collections.abc import Iterable, Iterator
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
from training import checkpoint, records
from training import train as loop
from training.checkpoint import Damaged
from training.interrupt import Item, Stopped, StopRequest
from training.spec import ABOUT
from training.update import learning_rate

NEVER = StopRequest()


class StopAfter(StopRequest):
    """Asks to stop once it has been looked at so often; the loop looks once after every update."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.looks = updates - 1

    def __bool__(self) -> bool:
        self.looks -= 1
        return self.looks < 0


class StopInEvaluation(StopRequest):
    """Is asked for when an evaluation begins: of the first epoch it works on, the second, ..., the
    test."""

    def __init__(self, which: int) -> None:
        super().__init__()
        self.left = which

    def between(self, items: Iterable[Item]) -> Iterator[Item]:
        self.left -= 1
        self.requested = self.left == 0
        return super().between(items)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of this project catches it."""


def shown(run: Run) -> list[tuple[str, int, float]]:
    """(tag, update, value) of all that TensorBoard shows, but for times."""
    board = EventAccumulator(str(run.folder), {SCALARS: 0})
    board.Reload()
    tags = [
        tag
        for tag in board.Tags()[SCALARS]
        if not tag.startswith("seconds/") and tag != "images/per_second"
    ]
    return sorted((tag, event.step, event.value) for tag in tags for event in board.Scalars(tag))


def contents(run: Run) -> dict[str, object]:
    """Everything of a finished run that must not depend on how it came about."""
    state = checkpoint.load(run.folder / "checkpoint.pt", torch.device("cpu"))
    timeless = ("seconds", "images_per_second", "inference_ms_1", "inference_ms_64", "finished")
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((run.folder / "result.json").read_text())
    for record in (*lines, result):
        for name in timeless:
            record.pop(name, None)
    return {
        "weights": (run.folder / "model.safetensors").read_bytes(),
        "model": {k: v.numpy().tobytes() for k, v in state["model"].items()},
        "optimizer": {
            (i, k): v.numpy().tobytes()
            for i, s in state["optimizer"]["state"].items()
            for k, v in s.items()
        },
        "predictions": (run.folder / "predictions.csv").read_text(),
        "metrics": lines,
        "events": shown(run),
        "files": sorted(
            path.name for path in run.folder.iterdir() if not path.name.startswith("events.")
        ),
        "result": {**result, "study": ""},
    }


def test_a_run_learns_what_tells_the_classes_apart(make_run, stores, execution) -> None:
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
    result = loop.train(run.spec, stores, execution, NEVER)
    assert result["top1"] > 80
    losses = [
        json.loads(line)["train_loss"]
        for line in (run.folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < 0.6 * losses[0]


def test_a_run_leaves_its_records(make_run, stores, execution) -> None:
    run = make_run("depthwise", seed=3)
    result = loop.train(run.spec, stores, execution, NEVER)
    names = {path.name.split(".")[0] for path in run.folder.iterdir()}
    assert {
        "config",
        "environment",
        "metrics",
        "result",
        "predictions",
        "model",
        "checkpoint",
        "events",
    } <= names
    assert json.loads((run.folder / "result.json").read_text()) == result == run.result

    with (run.folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(stores.test) == result["test_images"]
    assert [row["image"] for row in rows] == list(stores.test.ids)
    assert result["top1"] == pytest.approx(
        100 * sum(r["label"] == r["top1"] for r in rows) / len(rows)
    )
    assert result["top5"] == 100  # three classes
    assert result["loss"] == pytest.approx(
        -sum(math.log(float(r["p_label"])) for r in rows) / len(rows), rel=1e-4
    )

    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    best = max(lines, key=lambda line: line["validation_top1"])
    assert result["selected_epoch"] == best["epoch"]

    with safe_open(run.folder / "model.safetensors", "pt") as file:
        about = json.loads(file.metadata()[ABOUT])
    assert about["classes"] == list(stores.classes)
    assert about["epoch"] == best["epoch"]
    depths = tuple(about["architecture"].pop("depths"))
    assert Architecture(depths=depths, **about["architecture"]) == run.architecture


IN_FULL = {"training-recipe", "kernel-7", "separate-downsampling", "swin-pocket"}


@pytest.mark.parametrize("step", sorted(IN_FULL))
def test_a_run_stopped_in_mid_epoch_ends_as_one_never_stopped(
    step, make_run, stores, execution
) -> None:
    whole = make_run(step, study="whole")
    loop.train(whole.spec, stores, execution, NEVER)

    stopped = make_run(step, study="stopped")
    for updates in (
        2,
        1,
        6,
    ):  # in the first epoch, right after resuming, across the end of an epoch
        with pytest.raises(Stopped, match="saved"):
            loop.train(stopped.spec, stores, execution, StopAfter(updates))
    loop.train(stopped.spec, stores, execution, NEVER)
    assert contents(stopped) == contents(whole)


@pytest.mark.parametrize(
    "step", sorted({step.name for step in PAPER.steps_in(REGIMES["pocket"])} - IN_FULL)
)
def test_every_other_step_goes_on_with_mixing_an_average_and_parts(
    step, make_run, stores, execution
) -> None:
    hard = {
        "epochs": 1,
        "warmup_epochs": 0,
        "drop_path": 0.3,
        "mixup": 0.8,
        "cutmix": 1.0,
        "ema": 0.9,
        "micro_batches": 2,
    }
    whole, stopped = make_run(step, study="whole", **hard), make_run(step, study="stopped", **hard)
    loop.train(whole.spec, stores, execution, NEVER)
    with pytest.raises(Stopped, match="saved"):
        loop.train(stopped.spec, stores, execution, StopAfter(3))
    loop.train(stopped.spec, stores, execution, NEVER)
    # Of a single epoch there is no checkpoint before the last, but for the one of the stop.
    assert {**contents(stopped), "files": None} == {**contents(whole), "files": None}


@pytest.mark.parametrize("which", [1, 4])
def test_a_run_stopped_in_an_evaluation_goes_on_with_it(
    which, make_run, stores, execution, monkeypatch
) -> None:
    whole = make_run("4", study="whole")
    loop.train(whole.spec, stores, execution, NEVER)
    stopped = make_run("4", study="stopped")
    with pytest.raises(Stopped, match="in its test" if which == 4 else f"in epoch {which}"):
        loop.train(stopped.spec, stores, execution, StopInEvaluation(which))
    updates: list[int] = []
    monkeypatch.setattr(
        loop, "learning_rate", lambda *given: updates.append(given[1]) or learning_rate(*given)
    )
    loop.train(stopped.spec, stores, execution, NEVER)
    assert contents(stopped) == contents(whole)
    made = which * 6 if which < 4 else 18
    assert sorted(set(updates) - {made - 1}) == list(
        range(made, 18)
    )  # the last one made is asked for its rate again


# Which call of what a process dies right after.
DEATHS = (
    (records, "begin", 1),
    (records, "save_weights", 1),
    (loop, "write_atomically", 2),  # of metrics.jsonl
    (records, "log", 1),
    (records, "log", 2),
    (checkpoint, "keep_previous", 1),
    (checkpoint, "save", 2),  # after the last epoch
    (loop.Progress, "log", 1),
    (records, "architecture_complexity", 1),  # between predictions.csv and result.json
)


def test_a_run_killed_between_two_files_ends_as_one_never_killed(
    make_run, stores, execution, monkeypatch
) -> None:
    whole = make_run("3", study="whole", epochs=2)
    loop.train(whole.spec, stores, execution, NEVER)
    for number, (module, name, call) in enumerate(DEATHS):
        killed, calls, original = (
            make_run("3", study=f"killed-{number}", epochs=2),
            [],
            getattr(module, name),
        )

        def dies(*given: Any, calls=calls, call=call, original=original, **named: Any) -> Any:
            answer = original(*given, **named)
            calls.append(given)
            if len(calls) == call:
                raise Killed
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(module, name, dies)
            with pytest.raises(Killed):
                loop.train(killed.spec, stores, execution, NEVER)
        loop.train(killed.spec, stores, execution, NEVER)
        assert contents(killed) == contents(whole), name


def test_the_checkpoint_before_is_enough(make_run, stores, execution) -> None:
    whole, robbed = make_run("3", study="whole"), make_run("3", study="robbed")
    loop.train(whole.spec, stores, execution, NEVER)
    with pytest.raises(Stopped):
        loop.train(robbed.spec, stores, execution, StopAfter(14))
    (robbed.folder / "checkpoint.pt").unlink()
    loop.train(robbed.spec, stores, execution, NEVER)
    assert contents(robbed) == contents(whole)


def test_a_checkpoint_may_be_written_after_every_update(
    make_run, stores, execution, monkeypatch
) -> None:
    saved: list[tuple[int, int]] = []
    monkeypatch.setattr(
        checkpoint, "save", lambda _, c: saved.append((c["state"]["epoch"], c["state"]["batch"]))
    )
    loop.train(
        make_run("3", epochs=2).spec, stores, replace(execution, checkpoint_minutes=0), NEVER
    )
    first, second = ([(epoch, batch) for batch in range(1, 7)] for epoch in (0, 1))
    assert saved == [*first, (1, 0), *second, (2, 0)]


@pytest.mark.parametrize(
    ("precision", "changes"), [("fp32", {"ema": 0.8}), ("fp16", {}), ("bf16", {"micro_batches": 2})]
)
def test_an_average_a_scaler_and_micro_batches_resume_exactly(
    precision, changes, make_run, stores, execution
) -> None:
    runs = []
    for name in ("whole", "stopped"):
        run = make_run("4", study=name, **changes)
        runs.append(
            replace(
                run, study=replace(run.study, config=replace(run.study.config, precision=precision))
            )
        )
    loop.train(runs[0].spec, stores, execution, NEVER)
    for updates in (2, 5):
        with pytest.raises(Stopped):
            loop.train(runs[1].spec, stores, execution, StopAfter(updates))
    loop.train(runs[1].spec, stores, execution, NEVER)
    assert contents(runs[0]) == contents(runs[1])


def test_the_moving_average_is_what_is_evaluated_and_kept(make_run, stores, execution) -> None:
    """With decay 0.6 the average of the last epoch's weights, made here from checkpoints of every
    update."""
    decay, run = 0.6, make_run("4", ema=0.6, epochs=2)
    updates = 2 * (len(stores.train) // 12)
    average = {
        k: v.clone() for k, v in loop.initial_model(run.spec, execution).state_dict().items()
    }
    for update in range(updates):
        if update + 1 < updates:
            with pytest.raises(Stopped):
                loop.train(run.spec, stores, execution, StopAfter(1))
        else:
            loop.train(run.spec, stores, execution, NEVER)
        state = checkpoint.load(run.folder / "checkpoint.pt", torch.device("cpu"))
        for name, value in state["model"].items():
            mixed = (
                decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
            )
            average[name] = mixed
    for name, value in state["average"].items():
        assert torch.allclose(value, average[name], atol=1e-6), name
    if run.result["selected_epoch"] == 2:
        kept = load_file(run.folder / "model.safetensors")
        assert all(torch.equal(kept[name], value) for name, value in state["average"].items())
    assert not torch.equal(state["average"]["head.weight"], state["model"]["head.weight"])


def test_the_average_of_the_best_epoch_is_kept_and_tested(
    make_run, stores, execution, monkeypatch
) -> None:
    """Where the best epoch is not the last: its averaged weights, not the final ones."""
    real, right, seen = loop.evaluate, iter([2, 6, 1, 0]), []

    def evaluate(model, *others):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        found = real(model, *others)
        wrong = torch.arange(len(found.labels)) >= next(right)
        return replace(found, top=(found.labels + wrong)[:, None].expand_as(found.top).contiguous())

    monkeypatch.setattr(loop, "evaluate", evaluate)
    run = make_run("4", ema=0.6, epochs=3)
    loop.train(run.spec, stores, execution, NEVER)
    assert run.result["selected_epoch"] == 2
    kept = load_file(run.folder / "model.safetensors")
    for name, value in kept.items():
        assert torch.equal(value, seen[1][name]), name
        assert torch.equal(value, seen[3][name]), name  # the test's
    final = checkpoint.load(run.folder / "checkpoint.pt", torch.device("cpu"))
    weights = [kept, seen[0], seen[2], final["model"]]
    assert len({each["head.weight"].double().sum().item() for each in weights}) == 4


def test_workers_do_not_change_the_result(make_run, stores, execution) -> None:
    alone, helped = make_run("13", study="alone"), make_run("13", study="helped")
    loop.train(alone.spec, stores, execution, NEVER)
    loop.train(helped.spec, stores, replace(execution, workers=2), NEVER)
    assert contents(alone) == contents(helped)


def test_micro_batches_give_the_gradients_of_the_whole_batch(make_run, stores, execution) -> None:
    """Layer norm sees one image at a time, so that only rounding may differ."""
    flags = {"drop_path": 0.0, "epochs": 2}
    weights = []
    for parts in (1, 2):
        run = make_run("13", study=f"in-{parts}", micro_batches=parts, **flags)
        loop.train(run.spec, stores, execution, NEVER)
        weights.append(checkpoint.load(run.folder / "checkpoint.pt", torch.device("cpu"))["model"])
    for name, whole in weights[0].items():
        assert torch.allclose(whole, weights[1][name], atol=2e-4), name


def test_seeds_give_different_runs(make_run, stores, execution) -> None:
    runs = [make_run("4", seed=seed) for seed in (0, 1)]
    for run in runs:
        loop.train(run.spec, stores, execution, NEVER)
    assert contents(runs[0])["weights"] != contents(runs[1])["weights"]


def test_a_loss_that_is_no_number_stops_the_run_before_the_update(
    make_run, stores, execution
) -> None:
    run = make_run("1", lr=1e30, warmup_epochs=0, min_lr=0.0)
    with pytest.raises(
        loop.NonFinite, match=r"training-recipe seed 0: the loss is nan in epoch 1, batch \d+"
    ):
        loop.train(run.spec, stores, execution, NEVER)
    assert run.result is None


def test_a_damaged_checkpoint_is_recognised(make_run, stores, execution) -> None:
    run = make_run("4")
    with pytest.raises(Stopped):
        loop.train(run.spec, stores, execution, StopAfter(2))
    path = run.folder / "checkpoint.pt"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(Damaged, match=r"checkpoint.pt is damaged"):
        loop.train(run.spec, stores, execution, NEVER)


def test_too_few_images_for_one_batch_are_refused(make_run, stores, execution) -> None:
    with pytest.raises(ValueError, match="a batch size of 72 or less fits"):
        loop.train(make_run("4", batch_size=500).spec, stores, execution, NEVER)


def test_bf16_on_the_cpu_trains_too(make_run, stores, execution) -> None:
    run = make_run("13")
    mixed = replace(
        run, study=replace(run.study, config=replace(run.study.config, precision="bf16"))
    )
    assert math.isfinite(loop.train(mixed.spec, stores, execution, NEVER)["loss"])
