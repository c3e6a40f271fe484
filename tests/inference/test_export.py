"""Exports compute what the run computes, whoever reads them."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import runner
from ablations import PAPER, get_regime
from inference import export
from inference.predictor import load
from models.builder import build


def ask(run, out, form, *options: str) -> int:
    return runner.main(["export", "--run", str(run), "--out", str(out), "--format", form, *options])


@pytest.mark.parametrize("form", ["safetensors", "torchvision", "onnx", "torch-export"])
def test_each_format_is_checked_on_images_and_comes_with_a_card(
    form, convnext, images, tmp_path, capsys
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    hub = pytest.importorskip("huggingface_hub")
    out = tmp_path / "made/model"
    assert ask(convnext, out, form, "--images", str(images / "down"), "--license", "cc-by-4.0") == 0
    assert "largest difference of a logit" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {export.FILES[form], "config.json", "README.md"}
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    card = hub.ModelCard.load(out / "README.md")
    result = json.loads((convnext / "result.json").read_text())
    assert card.data.license == "cc-by-4.0"
    assert f"{result['top1']:.2f} %" in card.text
    assert "| weight_decay | 0.05 |" in card.text
    assert "3 classes: across, diagonal, down" in card.text
    assert "the training was short" in card.text.lower()
    assert "allergens" not in card.text  # stripes, not dishes
    config = json.loads((out / "config.json").read_text())
    assert config["preprocessing"]["resolution"] == 48


@pytest.mark.parametrize("form", ["safetensors", "torchvision", "onnx", "torch-export"])
def test_the_cards_own_code_gives_the_runs_answer_without_this_project(
    form, convnext, images, tmp_path
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    out, image = tmp_path / "model", images / "down/01.jpg"
    assert ask(convnext, out, form) == 0
    shutil.copy(image, out / "image.jpg")
    found = re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    assert found
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if form == "safetensors":  # the one format that is this project's own
        environment["PYTHONPATH"] = str(Path(runner.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", found[1]],
        cwd=out,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = dict(ast.literal_eval(done.stdout))
    assert answer == pytest.approx(dict(load(convnext).predict([image])[0]), abs=0.01)


def test_the_exported_files_may_be_read_by_others(convnext, tmp_path) -> None:
    assert ask(convnext, tmp_path / "out", "safetensors") == 0
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()} == {
        "model.safetensors": 0o644,
        "config.json": 0o644,
        "README.md": 0o644,
    }


def test_class_names_of_any_kind_are_plain_text_in_the_card(convnext) -> None:
    predictor = replace(load(convnext), classes=("ice_cream", "a|b", "<i>"))
    card = export.card.render(predictor, "onnx", 0.0, "noise", "other")
    assert r"3 classes: ice_cream, a\|b, &lt;i&gt;." in card


def test_onnx_takes_any_batch(convnext, tmp_path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    assert ask(convnext, tmp_path / "onnx", "onnx", "--fold-layer-scale") == 0
    session = runtime.InferenceSession(
        tmp_path / "onnx/model.onnx", providers=["CPUExecutionProvider"]
    )
    images = torch.randn(5, 3, 48, 48)
    got = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.inference_mode():
        torch.testing.assert_close(got, load(convnext).model(images), rtol=1e-4, atol=1e-5)


def test_a_safetensors_export_is_a_run_to_predict_with_and_folding_leaves_no_layer_scale(
    convnext, tmp_path
) -> None:
    assert ask(convnext, tmp_path / "plain", "safetensors") == 0
    assert ask(convnext, tmp_path / "folded", "safetensors", "--fold-layer-scale") == 0
    keys = {
        name: load_file(tmp_path / name / "model.safetensors").keys()
        for name in ("plain", "folded")
    }
    assert set(keys["plain"] - keys["folded"]) == {
        k for k in keys["plain"] if k.endswith(".layer_scale")
    }
    assert len(keys["folded"]) < len(keys["plain"])
    images = torch.randn(2, 3, 48, 48)
    plain, folded = (load(tmp_path / name).probabilities(images) for name in ("plain", "folded"))
    torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-6)


def test_an_export_that_computes_something_else_is_an_error_and_leaves_nothing(
    convnext, tmp_path, monkeypatch, capsys
) -> None:
    right = export.weights.export

    def wrong(model, naming):
        return {
            key: value + 0.1 * (key == "classifier.2.weight")
            for key, value in right(model, naming).items()
        }

    monkeypatch.setattr(export.weights, "export", wrong)
    assert ask(convnext, tmp_path / "out", "torchvision") == 1
    assert "differs from ours" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(convnext, depthwise, tmp_path, capsys) -> None:
    assert ask(depthwise, tmp_path / "out", "torchvision") == 2
    assert "torchvision has no network of this architecture" in capsys.readouterr().err
    assert ask(convnext, tmp_path, "safetensors") == 2
    assert "exists already" in capsys.readouterr().err
    assert ask(tmp_path / "none", tmp_path / "out", "safetensors") == 2
    assert "there is no run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_relative_run_of_one_part_is_exported(convnext, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(convnext.parent)
    assert ask(Path(convnext.name), tmp_path / "out", "safetensors") == 0
    assert "Step 13 of the way" in (tmp_path / "out/README.md").read_text()


def test_a_card_names_the_papers_step_only_where_the_network_is_it(convnext) -> None:
    predictor = load(convnext)
    other = replace(predictor, architecture=replace(predictor.architecture, kernel_size=5))
    for one in (other, replace(predictor, step="only-gelu")):
        card = export.card.render(one, "onnx", 0.0, "noise", "a: b")
        assert "of the way from ResNet" not in card
        assert "measures itself against" not in card
        assert card.startswith('---\nlicense: "a: b"\n')


def test_a_row_that_shares_its_run_is_exported_as_the_run(study, convnext, tmp_path) -> None:
    shutil.copytree(study, tmp_path / "s")
    shared = tmp_path / "s/mine/seed-0"
    shared.mkdir(parents=True)
    shutil.copy(convnext / "config.json", shared)
    assert ask(shared, tmp_path / "out", "safetensors") == 0
    card = (tmp_path / "out/README.md").read_text()
    assert "Step 13 of the way" in card
    assert "The run is not finished" not in card


def test_swins_card_builds_swins_network() -> None:
    architecture = PAPER.architecture("swin-small", get_regime("small"), 3)
    lines = "\n".join(export.card._in_torchvision(architecture))
    made: dict = {}
    exec(lines, made)
    made["model"].load_state_dict(build(architecture).state_dict())
