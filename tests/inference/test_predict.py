"""Predictions equal the run's own evaluation; wrong requests are refused in one line."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import runner
from data import datasets
from inference.explain import _last_map, grad_cam
from inference.predictor import load
from models import parts
from tests.inference.conftest import options
from training.spec import ABOUT


def test_predictions_are_those_of_the_runs_own_evaluation(convnext, images) -> None:
    """The images are larger than the run's image store keeps them, so they are resized twice."""
    with (convnext / "predictions.csv").open() as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    test = datasets.load(f"imagefolder:{images}", images.parent).test
    predictor = load(convnext)
    answers = predictor.predict([test.source.items[i] for i in range(len(test))])
    for name, best in zip(test.ids, answers, strict=True):
        assert predictor.classes.index(best[0][0]) == int(rows[name]["top1"]), name
        true = predictor.classes[int(rows[name]["label"])]
        assert dict(best)[true] == pytest.approx(float(rows[name]["p_label"]), abs=2e-4)


def predict(*arguments: object, runs: tuple[Path, ...] = ()) -> int:
    options = [option for run in runs for option in ("--run", str(run))]
    return runner.main(["predict", *map(str, arguments), *options])


def test_several_runs_files_and_folders_in_a_table_in_json_and_in_a_figure(
    convnext, depthwise, images, tmp_path, capsys
) -> None:
    places, runs = (images / "down", images / "across/03.jpg"), (convnext, depthwise)
    assert predict(*places, "--top", 2, runs=runs) == 0
    table = capsys.readouterr().out
    assert "separate-downsampling seed 0" in table
    assert "depthwise seed 0" in table
    assert table.count(".jpg\n") == 31
    assert predict(*places, "--top", 2, "--json", runs=runs) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 62
    assert {row["step"] for row in rows} == {"depthwise", "separate-downsampling"}
    for row in rows:
        first, second = row["top"]
        assert first["probability"] >= second["probability"]
        assert first["class"] in ("across", "diagonal", "down")
    same = Path(shutil.copytree(convnext, tmp_path / "same"))
    assert predict(places[1], runs=(convnext, same)) == 0
    header = capsys.readouterr().out.splitlines()[1]
    assert str(convnext) in header
    assert str(same) in header
    assert predict(places[1], "--plot", tmp_path / "bars.png", runs=runs) == 0
    with Image.open(tmp_path / "bars.png") as figure:
        assert figure.width > 2 * figure.height
        assert len(np.unique(np.asarray(figure.convert("L")))) > 50


def test_files_that_cannot_be_read_are_left_out_and_named(
    convnext, depthwise, images, tmp_path, capsys
) -> None:
    shutil.copy(images / "down/01.jpg", tmp_path / "b.jpg")
    torn = (images / "down/01.jpg").read_bytes()[:-300]
    heic = b"\0\0\0\x18ftypheic\0\0\0\0"
    files = {"a.jpg": torn, "c.jpg": b"text", "d.jpg": heic, "._b.jpg": b"notes", "e.HEIC": heic}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    plot = ("--plot", tmp_path / "bars.png")
    assert predict(tmp_path, "--json", *plot, runs=(convnext, depthwise)) == 0
    printed = capsys.readouterr()
    assert [Path(row["image"]).name for row in json.loads(printed.out)] == ["b.jpg", "b.jpg"]
    for text in ("a.jpg is left out: ", "c.jpg is left out: not an image", "1 .heic (install pil"):
        assert text in printed.err
    assert "d.jpg is left out: a HEIC image: install pillow-heif" in printed.err
    assert printed.err.count("\n") == 4
    assert predict(tmp_path / "a.jpg", tmp_path / "c.jpg", runs=(convnext,)) == 2
    error = capsys.readouterr().err
    assert "a.jpg cannot be read: " in error
    assert "c.jpg cannot be read: not an image" in error


OWN = """
from ablations import PAPER, Roadmap, Step
from models import parts
from torch import nn

class Norm(nn.InstanceNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)

parts.register("norm", "mine", Norm)
step = Step(name="mine", description="my norm", number=0, architecture={"norm": "mine"})
ROADMAP = Roadmap(name="own", description="", start=PAPER.path_to("gelu"), steps=(step,))
"""


def test_a_run_with_a_part_of_ones_own_needs_the_file_that_registers_it(
    images, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts, "_registered", {})
    Path("own.py").write_text(OWN)
    own, image = ("--roadmap", "own.py"), images / "down/01.jpg"
    assert runner.main(["train", "mine", *own, *options(images, tmp_path)]) == 0
    capsys.readouterr()
    run = tmp_path / "runs/s/mine/seed-0"
    assert predict(image, "--json", *own, runs=(run,)) == 0
    expected = json.loads(capsys.readouterr().out)
    for form in ("safetensors", "torch-export"):
        export = ["export", "--run", str(run), "--out", form, "--format", form, *own]
        assert runner.main(export) == 0
    assert 'get_roadmap("own.py")' in Path("safetensors/README.md").read_text()
    capsys.readouterr()
    assert predict(image, "--json", *own, runs=(Path("safetensors"),)) == 0
    assert json.loads(capsys.readouterr().out)[0]["top"] == expected[0]["top"]

    parts._registered.clear()
    assert predict(image, runs=(run,)) == 2
    assert "norm is 'mine'" in (error := capsys.readouterr().err)
    assert "--roadmap own.py" in error
    assert predict(image) == 2  # the only run cannot be the default
    assert "--roadmap own.py" in capsys.readouterr().err
    Path("own.py").write_text(OWN.replace("2 *", "3 *"))
    assert predict(image, *own, runs=(run,)) == 2
    assert "norm 'mine' was other code in training" in capsys.readouterr().err


def changed(convnext: Path, folder: Path, change) -> Path:
    """A run's folder whose weights or their description differ."""
    with safe_open(convnext / "model.safetensors", "pt") as file:
        about = json.loads(file.metadata()[ABOUT])
    state = load_file(convnext / "model.safetensors")
    change(about, state)
    folder.mkdir()
    save_file(state, folder / "model.safetensors", {ABOUT: json.dumps(about)} if about else None)
    return folder


def test_preprocessing_comes_from_the_run(convnext, tmp_path) -> None:
    half = [0.5, 0.5, 0.5]
    view = {"resolution": 64, "short_side": 74, "mean": half, "std": half}
    run = changed(convnext, tmp_path / "r", lambda about, _: about.update(preprocessing=view))
    Image.new("RGB", (80, 70), "white").save(tmp_path / "white.png")
    batch = load(run).prepare([tmp_path / "white.png"])
    assert batch.shape == (1, 3, 64, 64)
    assert float(batch.min()) == pytest.approx(1, abs=1e-6)


def test_without_a_run_the_newest_studys_best_on_validation_images_is_used(
    convnext, depthwise, images, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for day, (name, run, top1) in enumerate(
        (
            ("old/gelu/seed-0", depthwise, 99),
            ("new/gelu/seed-1", convnext, 80),
            ("new/width/seed-0", depthwise, 70),
        )
    ):
        folder = Path(shutil.copytree(run, tmp_path / "runs" / name))
        result = json.loads((folder / "result.json").read_text())
        result["finished"] = f"2026-11-1{day}T00:00:00Z"
        (folder / "result.json").write_text(json.dumps(result))
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        lines[0]["validation_top1"], lines[1]["validation_top1"] = top1, top1 - 50
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    damaged = Path(shutil.copytree(depthwise, tmp_path / "runs/new/stem/seed-0"))
    (damaged / "metrics.jsonl").write_text("{")
    image = images / "down/03.jpg"
    assert predict(image) == 0
    chosen = capsys.readouterr()
    assert "runs/new/gelu/seed-1" in chosen.err
    assert predict(image, runs=(Path("runs/new/gelu/seed-1"),)) == 0
    assert capsys.readouterr() == (chosen.out, "")
    (tmp_path / "runs/new/gelu/seed-1/model.safetensors").write_bytes(b"torn")
    assert runner.main(["export", "--out", "exported"]) == 0
    note = capsys.readouterr().err
    assert "runs/new/width/seed-0 is exported" in note
    assert "2 runs are skipped, such as runs/new/stem/seed-0: its records are damaged" in note


def test_a_wrong_request_is_refused_in_one_line(
    convnext, depthwise, images, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.jpg")
    Path("gone.jpg").symlink_to("/nowhere")
    Path("empty").mkdir()

    def other_weights(about, state):
        state.clear()
        state.update(load_file(depthwise / "model.safetensors"))

    other = changed(convnext, tmp_path / "a", other_weights)
    fewer = changed(convnext, tmp_path / "b", lambda about, _: about["classes"].pop())
    silent = changed(convnext, tmp_path / "d", lambda about, _: about.clear())
    torn = Path(shutil.copytree(convnext, tmp_path / "e"))
    weights = load_file(torn / "model.safetensors")
    save_file({key: 0 * value for key, value in weights.items()}, torn / "model.safetensors")

    image, good = images / "down/01.jpg", convnext
    for message, run, *arguments in (
        ("pipe.jpg cannot be read: ", good, "pipe.jpg"),
        ("gone.jpg does not exist", good, "gone.jpg"),
        ("holds no images", good, "empty"),
        ("no image was given", good),
        ("no run was given", None, image),
        ("there is no run", Path("nowhere"), image),
        ("holds no weights", Path("empty"), image),
        ("top is 0", good, image, "--top", 0),
        ("they fit depthwise in regime mini", other, image),
        ("names 2 classes", fewer, image),
        ("has no description of its network", silent, image),
        ("its checksum is not that of result.json", torn, image),
        ("ends in .png", good, image, "--plot", "plot.txt"),
        ("folder of --plot", good, image, "--plot", "none/plot.png"),
    ):
        assert predict(*arguments, runs=(run,) if run else ()) == 2, message
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""


def test_names_from_elsewhere_cannot_break_the_terminal_or_the_card(
    convnext, images, tmp_path, capsys
) -> None:
    odd = ["a\nb \x1b[31m", "<b>x</b> | `c` [l](http://x) $\\frac$", "\u202eright to left"]
    run = changed(convnext, tmp_path / "run", lambda about, _: about.update(classes=odd))
    image = tmp_path / "p\nq.jpg"
    shutil.copy(images / "down/01.jpg", image)
    assert predict(image, "--plot", tmp_path / "bars.png", runs=(run,)) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) == 6  # the image, two lines of heading, three classes
    assert all(line.isprintable() for line in text.split("\n"))
    assert (tmp_path / "bars.png").exists()
    assert runner.main(["export", "--run", str(run), "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "<b>" not in card
    assert "[l](" not in card
    assert all(line.isprintable() for line in card.split("\n"))


def test_grad_cam_weights_the_places_that_support_the_class(convnext, images, monkeypatch) -> None:
    pytest.importorskip("pytorch_grad_cam")
    predictor, image = load(convnext), images / "down/01.jpg"
    pixels, heat = grad_cam(predictor, image, "down")
    assert (pixels.shape, pixels.dtype, heat.shape) == ((48, 48, 3), np.uint8, (48, 48))
    assert float(heat.max()) == pytest.approx(1, abs=0.01)
    assert float(heat.min()) < 0.5
    with pytest.raises(ValueError, match="there is no class 'up'"):
        grad_cam(predictor, image, "up")
    # Maps of 12, 6, 3 and 1 pixels behind a stem of stride 4: the deepest of 4x4 is used.
    assert _last_map(predictor.model.stages, predictor) is predictor.model.stages[1]
    monkeypatch.setitem(__import__("sys").modules, "pytorch_grad_cam", None)
    with pytest.raises(ValueError, match="pip install grad-cam"):
        grad_cam(predictor, image)
