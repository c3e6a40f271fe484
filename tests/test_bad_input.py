"""What a disk, a memory or images cannot do, through the command line: one sentence and the right
exit code."""

import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch

import runner
from ablations.presets import get_preset
from data import datasets
from studies import cost_estimate, run_queue
from tests.conftest import files

pytestmark = pytest.mark.usefixtures("no_figures")
MEMORY = (
    "separate-downsampling seed 0 ran out of memory: 24 images at once do not fit: give "
    "--micro-batches 2, parts of 12"
)
WORKER = "DataLoader worker (pid 7) is killed by signal: Bus error"


@pytest.fixture
def own(tmp_path: Path, images: Path, quick_study: list[str]) -> Path:
    """A copy of the images, to be spoilt, in the place of them."""
    folder = Path(shutil.copytree(images, tmp_path / "own"))
    quick_study[quick_study.index("--dataset") + 1] = f"imagefolder:{folder}"
    return folder


def refused(arguments: list[str], capsys, code: int) -> str:
    """The one sentence of a refusal."""
    capsys.readouterr()
    assert runner.main(arguments) == code
    said = capsys.readouterr().err
    complaints = [line for line in said.splitlines() if line.startswith("runner.py: ")]
    assert len(complaints) == 1, said
    assert "Traceback" not in said
    return complaints[0]


def test_a_dry_run_prints_the_cost_and_writes_nothing(quick_study, tmp_path, capsys) -> None:
    before = files(tmp_path)
    request = ["all", *quick_study, "--steps", "3", "13", "--dry-run", "--seeds", "0", "1"]
    assert runner.main(request) == 0
    out = capsys.readouterr().out
    assert "4 runs, 4 to train" in out
    assert "72 a run in training, 288 in all" in out  # 72 of 90 images are trained on, in one epoch
    for part in (" images/s ", "of decoded images", "of weights and checkpoints", "expected in"):
        assert part in out
    assert files(tmp_path) == before


def test_a_forecast_comes_before_the_images_are_fetched(quick_study, capsys, monkeypatch) -> None:
    def fetch(*_: object) -> None:
        raise ValueError("fetched")

    monkeypatch.setattr(datasets.Located, "load", fetch)
    assert runner.main(["train", "3", *quick_study, "--dry-run"]) == 0
    assert "1 run, 1 to train" in capsys.readouterr().out
    assert runner.main(["train", "3", *quick_study]) == 2
    said = capsys.readouterr()
    assert "1 network on 72 images of imagefolder:" in said.out
    assert " of training on this CPU; in " in said.out
    assert said.err.endswith("runner.py: fetched\n")


def test_what_little_data_cannot_show_is_in_the_forecast(quick_study, capsys) -> None:
    request = ["all", "--steps", "3", "--dry-run", *quick_study]
    assert runner.main([*request, "--epochs", "2"]) == 0
    start = "6 updates a run; chance is 33 %; "
    assert (
        f"{start}one seed gives no verdict, two on 9 test images find differences above about 30 "
        "points\n"
    ) in capsys.readouterr().out
    assert runner.main([*request, "--seeds", "0", "1", "2"]) == 0
    assert "; 3 seeds on 9 test images find differences above" in capsys.readouterr().out
    assert runner.main([*request, "--batch-size", "72"]) == 0
    assert "\n1 update a run; " in capsys.readouterr().out


@pytest.mark.parametrize("words", ["train 3", "all --steps 3 4"])
def test_a_week_on_a_cpu_is_refused_unless_it_is_insisted_on(
    words, quick_study, tmp_path, capsys, monkeypatch
) -> None:
    request, before = [*words.split(), *quick_study], files(tmp_path)
    monkeypatch.setattr(cost_estimate.CostEstimate, "seconds_left", lambda _: 10 * 365 * 86400.0)
    why = "this would take about 10 years on this CPU: use a GPU, or --preset fashion-mnist or "
    assert why in refused(request, capsys, 2)
    assert runner.main([*request, "--dry-run"]) == 0
    assert f"without --dry-run this is refused: {why}" in capsys.readouterr().out
    assert files(tmp_path) == before
    assert runner.main([*request, "--dry-run", "--allow-slow"]) == 0
    assert "is refused" not in capsys.readouterr().out


def test_fewer_epochs_shorten_the_warm_up_in_proportion(capsys, tmp_path) -> None:
    usual, runs = get_preset("food101").recipe, ["--runs", str(tmp_path / "runs")]
    for words, warmup in (
        (["--epochs", "150"], 10),
        (["--epochs=2"], 0),
        (["--epochs", "400"], usual.warmup_epochs),
        (["--epochs", "150", "--warmup-epochs", "20"], 20),
    ):
        assert runner.parse(["train", "3", *words]).config.recipe.warmup_epochs == warmup
    request = ["train", "3", "--preset", "fashion-mnist", "--epochs", "2", "--dry-run", *runs]
    assert runner.main(request) == 0
    line = "the warm-up takes 0 of 2 epochs, where the preset has 1 of 6 (--warmup-epochs)\n"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train 3", "all --steps 3", "all --steps 3 --dry-run"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "400"], "a batch size of 72 or less fits"),
        (
            ["--batch-size", "18", "--micro-batches", "6", "--mixup", "0.2"],
            "give parts of an even number",
        ),
    ],
)
def test_an_impossible_batch_is_refused_before_anything_is_written(
    command, options, message, quick_study, tmp_path, capsys
) -> None:
    before = files(tmp_path)
    assert message in refused([*command.split(), *quick_study, *options], capsys, 2)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), MEMORY),
        (MemoryError(), MEMORY),
        (RuntimeError("[x.cpp:1] DefaultCPUAllocator: can't allocate memory: you ..."), MEMORY),
        (RuntimeError(f"{WORKER}. It is possible that ..."), f"({WORKER}), as when memory or"),
    ],
    ids=["gpu", "python", "cpu", "worker"],
)
def test_memory_that_runs_out_in_a_run_is_one_line_with_what_to_try(
    failure, message, quick_study, capsys, monkeypatch
) -> None:
    def train(*_: object) -> None:
        raise failure

    monkeypatch.setattr(run_queue, "train", train)
    assert message in refused(["train", "13", *quick_study], capsys, 1)


def test_the_next_batch_is_tried_when_the_failed_run_is_gone(
    quick_study, capsys, monkeypatch
) -> None:
    class Network:
        """Stands for all that the failed run had on its device."""

    networks, left = [], []

    def train(*_: object) -> None:
        network = Network()
        networks.append(weakref.ref(network))
        raise torch.OutOfMemoryError("CUDA out of memory")

    def try_batches(*_: object) -> int:
        left.append(sum(network() is not None for network in networks))
        return 2

    monkeypatch.setattr(run_queue, "train", train)
    monkeypatch.setattr(cost_estimate, "micro_batches_that_fit", try_batches)
    refused(["train", "13", *quick_study], capsys, 1)
    assert networks
    assert left[-1] == 0


def test_another_error_of_torch_is_not_taken_for_memory(quick_study, monkeypatch) -> None:
    def train(*_: object) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(run_queue, "train", train)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        runner.main(["train", "13", *quick_study])


def test_too_little_disk_for_images_and_runs_is_refused_first(
    quick_study, tmp_path, capsys, monkeypatch
) -> None:
    before = files(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    said = refused(["train", "3", *quick_study], capsys, 1)
    assert "needs" in said
    assert "1.0 kB free" in said
    assert files(tmp_path) == before


def test_unreadable_images_are_named_and_can_be_left_out(
    quick_study, own, tmp_path, capsys
) -> None:
    (own / "down" / "03.jpg").write_bytes(b"")
    (own / "across" / "11.jpg").write_text("no image")
    capsys.readouterr()
    assert runner.main(["train", "3", *quick_study]) == 2
    said = capsys.readouterr().err
    named = ("down/03.jpg: an empty file", "across/11.jpg: not an image")
    assert any(name in said for name in named)  # those of the first split that has some
    assert not (tmp_path / "runs").exists()
    assert len([line for line in said.splitlines() if line.startswith("runner.py: ")]) == 1
    capsys.readouterr()
    assert runner.main(["all", "--steps", "3", *quick_study, "--skip-unreadable"]) == 0
    messages = capsys.readouterr().err
    study = json.loads((tmp_path / "runs/quick/study.json").read_text())["dataset"]
    run = json.loads((tmp_path / "runs/quick/patchify-stem/seed-0/environment.json").read_text())
    assert run["skipped"] == study["skipped"]
    assert sorted(name for names in study["skipped"].values() for name in names) == [
        "across/11.jpg",
        "down/03.jpg",
    ]
    assert study["train"] + study["validation"] + study["test"] == 88  # of 90
    page = (tmp_path / "runs/quick/report/report.md").read_text()
    for name in ("across/11.jpg", "down/03.jpg"):
        assert name in messages
        assert name in page
    sizes = f"{study['train']} training, {study['validation']} validation and {study['test']} test"
    assert sizes in page
    # Later commands must go on asking for it: it never passes silently for the whole.
    assert "unreadable images" in refused(["train", "4", *quick_study], capsys, 2)
