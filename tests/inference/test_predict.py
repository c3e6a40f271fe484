"""predict says of an image what the run's own evaluation said of it, and refuses the rest in one
sentence."""

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import data
import runner
from inference.explain import _last_map, grad_cam
from inference.predictor import load
from training.spec import ABOUT


def test_predictions_are_those_of_the_runs_own_evaluation(convnext, images) -> None:
    """predictions.csv was written by training's loader, cache and evaluation; nothing of that is
    used here.

    The images are larger than the cache keeps them, so they are resized twice.
    """
    with (convnext / "predictions.csv").open() as file:
        rows = {row["image"]: row for row in csv.DictReader(file)}
    test = data.load(f"imagefolder:{images}", images.parent).test
    predictor = load(convnext)
    answers = predictor.predict([test.source.paths[i] for i in range(len(test))])
    for name, best in zip(test.ids, answers, strict=True):
        assert predictor.classes.index(best[0][0]) == int(rows[name]["top1"]), name
        true = predictor.classes[int(rows[name]["label"])]
        assert dict(best)[true] == pytest.approx(float(rows[name]["p_label"]), abs=2e-4)


def test_several_runs_files_and_folders_in_a_table_and_in_json(
    convnext, depthwise, images, capsys
) -> None:
    asked = [
        "predict",
        str(images / "down"),
        str(images / "across/03.jpg"),
        "--run",
        str(convnext),
        "--run",
        str(depthwise),
        "--top",
        "2",
    ]
    assert runner.main(asked) == 0
    table = capsys.readouterr().out
    assert "separate-downsampling seed 0" in table
    assert "depthwise seed 0" in table
    assert table.count(".jpg\n") == 31
    assert runner.main([*asked, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 62
    assert {row["step"] for row in rows} == {"depthwise", "separate-downsampling"}
    for row in rows:
        first, second = row["top"]
        assert first["probability"] >= second["probability"]
        assert first["class"] in ("across", "diagonal", "down")


def test_percentages_stand_below_each_other(convnext, images, capsys) -> None:
    assert (
        runner.main(["predict", str(images / "down/01.jpg"), "--run", str(convnext), "--top", "50"])
        == 0
    )
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith(" %")]
    assert len(rows) == 3
    assert len({len(row) for row in rows}) == 1


def test_runs_of_two_studies_are_told_apart_by_their_folders(
    convnext, images, tmp_path, capsys
) -> None:
    shutil.copytree(convnext, tmp_path / "other")
    asked = [
        "predict",
        str(images / "down/01.jpg"),
        "--run",
        str(convnext),
        "--run",
        str(tmp_path / "other"),
    ]
    assert runner.main(asked) == 0
    header = capsys.readouterr().out.splitlines()[1]
    assert str(convnext) in header
    assert str(tmp_path / "other") in header


def test_of_a_folder_only_visible_images_are_asked_about(
    convnext, images, tmp_path, capsys
) -> None:
    shutil.copy(images / "down/01.jpg", tmp_path / "seen.JPG")
    (tmp_path / "._seen.JPG").write_bytes(b"a Mac's notes on seen.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".thumbnails").mkdir()
    shutil.copy(images / "down/01.jpg", tmp_path / ".thumbnails")
    assert runner.main(["predict", str(tmp_path), "--run", str(convnext), "--json"]) == 0
    assert [Path(row["image"]).name for row in json.loads(capsys.readouterr().out)] == ["seen.JPG"]


def test_preprocessing_comes_from_the_run(convnext, images, tmp_path) -> None:
    shutil.copytree(convnext, tmp_path / "run")
    (tmp_path / "run/result.json").unlink()  # it knows the checksum of the weights
    with safe_open(convnext / "model.safetensors", "pt") as file:
        about = json.loads(file.metadata()[ABOUT])
    assert about["preprocessing"]["resolution"] == 48
    assert about["preprocessing"]["short_side"] == 55
    about["preprocessing"] = {
        "resolution": 64,
        "short_side": 74,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    }
    state = load_file(convnext / "model.safetensors")
    save_file(state, tmp_path / "run/model.safetensors", {ABOUT: json.dumps(about)})
    white = tmp_path / "white.png"
    Image.new("RGB", (80, 70), "white").save(white)
    batch = load(tmp_path / "run").prepare([white])
    assert batch.shape == (1, 3, 64, 64)
    assert float(batch.min()) == pytest.approx(1, abs=1e-6)


def test_the_figure_shows_image_and_bars(convnext, depthwise, images, tmp_path) -> None:
    asked = [
        "predict",
        str(images / "down/01.jpg"),
        "--run",
        str(convnext),
        "--run",
        str(depthwise),
    ]
    assert runner.main([*asked, "--plot", str(tmp_path / "seen.png")]) == 0
    with Image.open(tmp_path / "seen.png") as figure:
        assert figure.width > 2 * figure.height
        assert len(np.unique(np.asarray(figure.convert("L")))) > 50


def _changed(convnext: Path, folder: Path, change) -> Path:
    with safe_open(convnext / "model.safetensors", "pt") as file:
        about = json.loads(file.metadata()[ABOUT])
    state = load_file(convnext / "model.safetensors")
    change(about, state)
    folder.mkdir()
    save_file(state, folder / "model.safetensors", {ABOUT: json.dumps(about)} if about else None)
    return folder


@pytest.fixture
def two_studies(depthwise, convnext, tmp_path, monkeypatch) -> Path:
    """runs/ in the working folder: an older study, and the newest, whose best run on validation
    images is gelu's."""
    monkeypatch.chdir(tmp_path)
    finished = iter(range(10, 20))
    for name, run, top1 in (
        ("old/gelu/seed-0", depthwise, 99),
        ("new/gelu/seed-1", convnext, 80),
        ("new/width/seed-0", depthwise, 70),
        ("new/swin/seed-0", depthwise, 60),
    ):
        folder = shutil.copytree(run, tmp_path / "runs" / name)
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(
            json.dumps(result | {"finished": f"2026-11-{next(finished)}T00:00:00Z"})
        )
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        lines[0]["validation_top1"], lines[1]["validation_top1"] = top1, top1 - 50
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    damaged = shutil.copytree(depthwise, tmp_path / "runs/new/stem/seed-0")
    (damaged / "metrics.jsonl").write_text("{")
    shutil.copytree(depthwise, tmp_path / "runs/new/gelu/seed-2")
    (tmp_path / "runs/new/gelu/seed-2/result.json").unlink()
    return tmp_path / "runs"


def test_without_a_run_the_newest_studys_best_on_validation_images_is_asked(
    two_studies, images, capsys
) -> None:
    image = str(images / "down/03.jpg")
    assert runner.main(["predict", image]) == 0
    chosen = capsys.readouterr()
    assert chosen.err.startswith(
        "runs/new/gelu/seed-1 was asked, the best of its study on validation images"
    )
    assert runner.main(["predict", image, "--run", "runs/new/gelu/seed-1"]) == 0
    assert capsys.readouterr() == (chosen.out, "")
    assert runner.main(["export", "--out", "made"]) == 0
    assert "runs/new/gelu/seed-1 was exported" in capsys.readouterr().err
    assert runner.main(["predict", "none.jpg"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_cannot_be_predicted_is_refused_in_one_sentence(
    convnext, depthwise, images, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def another(about, state):
        other = load_file(depthwise / "model.safetensors")
        state.clear()
        state.update(other)

    def fewer_classes(about, state):
        about["classes"] = about["classes"][:2]

    def small_head(about, state):
        for key in ("head.weight", "head.bias"):
            state[key] = state[key][:2].contiguous()

    (tmp_path / "text.jpg").write_text("no image")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "bad/folder.jpg").mkdir(parents=True)
    (tmp_path / "bad/a.jpg").write_bytes(b"")
    (tmp_path / "bad/b.jpg").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "bad/c.jpg")
    (tmp_path / "gone.jpg").symlink_to("/nowhere")
    (tmp_path / "torn.jpg").write_bytes((images / "down/01.jpg").read_bytes()[:-300])
    (tmp_path / "empty").mkdir()
    silent = _changed(convnext, tmp_path / "d", lambda about, state: about.clear())
    good, image = str(convnext), str(images / "down/01.jpg")
    refused = {
        "text.jpg cannot be read: not an image": [str(tmp_path / "text.jpg"), "--run", good],
        "pipe.jpg is neither a file nor a folder": [str(tmp_path / "pipe.jpg"), "--run", good],
        "3 of 4 images cannot be read": [
            str(tmp_path / "bad"),
            str(images / "down/01.jpg"),
            "--run",
            good,
        ],
        "c.jpg: no file but a pipe": [str(tmp_path / "bad"), "--run", good],
        "gone.jpg does not exist": [str(tmp_path / "gone.jpg"), "--run", good],
        "torn.jpg cannot be read: OSError: image file is truncated": [
            str(tmp_path / "torn.jpg"),
            "--run",
            good,
        ],
        "none.jpg does not exist": [str(tmp_path / "none.jpg"), "--run", good],
        "holds no images": [str(tmp_path / "empty"), "--run", good],
        "no image was given": ["--run", good],
        "no run was given": [image],
        "there is no run": [image, "--run", str(tmp_path / "nowhere")],
        "holds no weights": [image, "--run", str(tmp_path / "empty")],
        "top is 0": [image, "--run", good, "--top", "0"],
        "they fit depthwise in regime pocket": [
            image,
            "--run",
            str(_changed(convnext, tmp_path / "a", another)),
        ],
        "names 2 classes": [image, "--run", str(_changed(convnext, tmp_path / "b", fewer_classes))],
        "weights for 2 classes where": [
            image,
            "--run",
            str(_changed(convnext, tmp_path / "c", small_head)),
        ],
        "does not say what it holds": [image, "--run", str(silent)],
        "ends in .png": [image, "--run", good, "--plot", str(tmp_path / "plot.txt")],
        "folder of --plot": [image, "--run", good, "--plot", str(tmp_path / "none/plot.png")],
    }
    for words, arguments in refused.items():
        assert runner.main(["predict", *arguments]) == 2, words
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""


def test_a_network_with_a_part_of_ones_own_asks_for_it_by_name(convnext, tmp_path) -> None:
    made = _changed(
        convnext, tmp_path / "own", lambda about, state: about["architecture"].update(norm="mine")
    )
    with pytest.raises(
        ValueError,
        match=r"a part of its trainer's own: norm is 'mine': give .* or register your own",
    ):
        load(made)


def test_names_from_elsewhere_cannot_break_the_terminal_or_the_card(
    convnext, images, tmp_path, capsys
) -> None:
    odd = [
        "a\nb \x1b[31m",
        "<script>x</script> | `c` [l](http://x) $\\frac$",
        "\u202eright to left",
    ]

    def rename(about, state):
        about["classes"] = odd

    run = _changed(convnext, tmp_path / "run", rename)
    image = tmp_path / "p\nq.jpg"
    shutil.copy(images / "down/01.jpg", image)
    asked = [
        "predict",
        str(image),
        "--run",
        str(run),
        "--top",
        "3",
        "--plot",
        str(tmp_path / "seen.png"),
    ]
    assert runner.main(asked) == 0
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 6  # the image, two lines of heading, three classes
    assert all(line.isprintable() for line in told.split("\n"))
    assert (tmp_path / "seen.png").exists()
    assert runner.main(["export", "--run", str(run), "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "3 classes: " in card
    assert "<script" not in card
    assert "[l](" not in card
    assert all(line.isprintable() for line in card.split("\n"))


def test_grad_cam_lights_the_place_that_speaks_for_the_class(convnext, images, tmp_path) -> None:
    pytest.importorskip("pytorch_grad_cam")
    predictor = load(convnext)
    seen, heat = grad_cam(predictor, images / "down/01.jpg", "down")
    assert seen.shape == (48, 48, 3)
    assert seen.dtype == np.uint8
    assert heat.shape == (48, 48)
    assert float(heat.max()) == pytest.approx(1, abs=0.01)
    assert float(heat.min()) < 0.5
    with pytest.raises(ValueError, match="there is no class 'up'"):
        grad_cam(predictor, images / "down/01.jpg", "up")


def test_grad_cam_looks_at_the_deepest_stage_of_4x4_places(convnext) -> None:
    predictor = load(
        convnext
    )  # four stages; behind a stem of stride 4 maps of 12, 6, 3 and 1 pixels
    stages = predictor.model.stages
    assert _last_map(stages, predictor) is stages[1]
    finer = replace(predictor, architecture=replace(predictor.architecture, stem_stride=2))
    assert _last_map(stages, finer) is stages[2]


def test_a_missing_library_is_named_with_what_to_install(
    convnext, images, tmp_path, monkeypatch, capsys
) -> None:
    for module in ("pytorch_grad_cam", "onnxscript"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ValueError, match="pip install grad-cam"):
        grad_cam(load(convnext), images / "down/01.jpg")
    assert (
        runner.main(
            ["export", "--run", str(convnext), "--out", str(tmp_path / "out"), "--format", "onnx"]
        )
        == 2
    )
    assert "pip install onnxscript" in capsys.readouterr().err
