"""Files from elsewhere are read, never executed: a trap in every place, of every kind, and nothing
springs it."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import runner
from tests.conftest import STUDY
from training import checkpoint

pytestmark = pytest.mark.usefixtures("no_figures")


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.place),)


def as_pickle(path: Path, trap: Trap) -> None:
    path.write_bytes(pickle.dumps(trap))


def as_torch(path: Path, trap: Trap) -> None:
    torch.save({"model": trap}, path)


def as_old_torch(path: Path, trap: Trap) -> None:
    torch.save({"model": trap}, path, _use_new_zipfile_serialization=False)


def as_numpy(path: Path, trap: Trap) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([trap], object), allow_pickle=True)


def as_checksummed(path: Path, trap: Trap) -> None:
    checkpoint.save(path, {"model": trap})


def as_torchscript(path: Path, trap: Trap) -> None:
    """What torch.load takes for TorchScript, with a pickle inside."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(trap))
        file.writestr("archive/constants.pkl", pickle.dumps(trap))
        file.writestr("archive/version", "3\n")


KINDS = (as_pickle, as_torch, as_old_torch, as_numpy, as_checksummed, as_torchscript)


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "executed")


RUN = "runs/s/patchify-stem/seed-0"


@pytest.mark.parametrize("kind", KINDS)
def test_the_trap_springs_where_one_unpickles_it(kind, trap, tmp_path) -> None:
    kind(tmp_path / "file", trap)
    if kind is as_numpy:
        np.load(tmp_path / "file", allow_pickle=True)
    elif kind is as_torchscript:
        pickle.loads(zipfile.ZipFile(tmp_path / "file").read("archive/data.pkl"))
    elif kind is as_pickle:
        pickle.loads((tmp_path / "file").read_bytes())
    else:
        torch.load(tmp_path / "file", weights_only=False)
    assert trap.place.exists()


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.npy"])
def test_weights_to_start_from(name, trap, tmp_path, capsys) -> None:
    for kind in KINDS:
        kind(tmp_path / name, trap)
        options = ["--runs", str(tmp_path / "runs"), "--data-dir", str(tmp_path)]
        options += ["--init-weights", str(tmp_path / name)]
        assert runner.main(["train", "3", *STUDY[:4], *options]) == 2
        said = capsys.readouterr().err
        assert name in said
        assert said.count("\n") == 1, said
        assert not trap.place.exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["checkpoint.pt", "checkpoint.pt.previous"])
def test_an_unfinished_runs_checkpoint(name, study_places, trap, tmp_path, capsys) -> None:
    run = tmp_path / "finished_study" / RUN
    for kind in KINDS:
        (run / "result.json").unlink(missing_ok=True)
        for other in ("checkpoint.pt", "checkpoint.pt.previous"):
            (run / other).unlink(missing_ok=True)
        kind(run / name, trap)
        capsys.readouterr()
        assert runner.main(["all", *STUDY, *study_places, "--no-trial"]) == 1
        said = capsys.readouterr().err
        assert f"{name} is damaged" in said
        assert "--overwrite patchify-stem trains this run from scratch" in said
        assert not trap.place.exists()


def test_a_runs_weights_and_records(study_places, images, trap, tmp_path, capsys) -> None:
    run, study = tmp_path / "finished_study" / RUN, tmp_path / "finished_study/runs/s"
    image = str(images / "down/01.jpg")
    requests = {
        "model.safetensors": [
            ["predict", image, "--run", str(run)],
            ["export", "--run", str(run), "--out", "no"],
        ],
        "result.json": [
            ["export", "--run", str(run), "--out", str(tmp_path / "no")],
            ["all", *STUDY, *study_places],
        ],
        "config.json": [["export", "--run", str(run), "--out", str(tmp_path / "no")]],
        "study.json": [["report", "--study", str(study)], ["all", *STUDY, *study_places]],
    }
    for name, commands in requests.items():
        file = study / name if name == "study.json" else run / name
        good = file.read_bytes()
        for kind in (as_pickle, as_torch, as_numpy):
            kind(file, trap)
            for command in commands:
                capsys.readouterr()
                assert runner.main(command) in (1, 2), command
                said = capsys.readouterr().err
                assert said.count("runner.py: ") == 1, said
                assert name in said.partition("runner.py: ")[2]
                assert not trap.place.exists()
        file.write_bytes(good)
    for name in ("metrics.jsonl", "predictions.csv", "result.json"):  # left out, by name
        good = (run / name).read_bytes()
        as_pickle(run / name, trap)
        assert runner.main(["report", "--study", str(study)]) == 0
        assert "patchify-stem/seed-0" in (study / "report/report.md").read_text()
        assert not trap.place.exists()
        (run / name).write_bytes(good)


def test_decoded_images(study_places, trap, tmp_path, capsys) -> None:
    """Decoded images."""
    root = tmp_path / "finished_study"
    for name in ("index.npz", "meta.json"):
        for file in root.glob(f"cache/*-train-*/{name}"):
            good = file.read_bytes()
            for kind in (as_pickle, as_torch, as_numpy):
                kind(file, trap)
                capsys.readouterr()
                assert runner.main(["all", *STUDY, *study_places]) == 1
                said = capsys.readouterr().err
                assert said.count("\n") == 1, said
                assert "is damaged" in said
                assert not trap.place.exists()
            file.write_bytes(good)
    assert runner.main(["all", *STUDY, *study_places, "--steps", "3", "4"]) == 0
    assert not trap.place.exists()


def test_images(trap, images, study_places, tmp_path, capsys) -> None:
    run = str(tmp_path / "finished_study" / RUN)
    for suffix in ("jpg", "png", "gif", "tif", "webp"):
        for kind in KINDS:
            kind(tmp_path / f"x.{suffix}", trap)
            assert runner.main(["predict", str(tmp_path / f"x.{suffix}"), "--run", run]) == 2
            assert "cannot be read" in capsys.readouterr().err
    Image.new("RGB", (8, 8)).save(tmp_path / "fine.png")
    assert runner.main(["predict", str(tmp_path / "fine.png"), "--run", run]) == 0
    assert not trap.place.exists()
