"""Exports compute what the run computes, whoever reads them."""

import json

import pytest
import torch
from safetensors.torch import load_file

import runner
from inference import export
from inference.predictor import load


def ask(run, out, form, *options: str) -> int:
    return runner.main(["export", "--run", str(run), "--out", str(out), "--format", form, *options])


@pytest.mark.parametrize("form", ["safetensors", "torchvision", "onnx", "torch-export"])
def test_each_format_is_checked_on_pictures_and_comes_with_a_card(form, convnext, pictures, tmp_path, capsys) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    hub = pytest.importorskip("huggingface_hub")
    out = tmp_path / "made/model"
    assert ask(convnext, out, form, "--images", str(pictures / "down"), "--license", "cc-by-4.0") == 0
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
    config = json.loads((out / "config.json").read_text())
    assert config["preprocessing"]["resolution"] == 48


def test_onnx_takes_any_batch(convnext, tmp_path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    assert ask(convnext, tmp_path / "onnx", "onnx", "--fold-layer-scale") == 0
    session = runtime.InferenceSession(tmp_path / "onnx/model.onnx", providers=["CPUExecutionProvider"])
    images = torch.randn(5, 3, 48, 48)
    got = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.inference_mode():
        torch.testing.assert_close(got, load(convnext).model(images), rtol=1e-4, atol=1e-5)


def test_a_safetensors_export_is_a_run_to_predict_with_and_folding_leaves_no_layer_scale(convnext, tmp_path) -> None:
    assert ask(convnext, tmp_path / "plain", "safetensors") == 0
    assert ask(convnext, tmp_path / "folded", "safetensors", "--fold-layer-scale") == 0
    keys = {name: load_file(tmp_path / name / "model.safetensors").keys() for name in ("plain", "folded")}
    assert set(keys["plain"] - keys["folded"]) == {k for k in keys["plain"] if k.endswith(".layer_scale")}
    assert len(keys["folded"]) < len(keys["plain"])
    images = torch.randn(2, 3, 48, 48)
    plain, folded = (load(tmp_path / name).probabilities(images) for name in ("plain", "folded"))
    torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-6)


def test_an_export_that_computes_something_else_is_an_error_and_leaves_nothing(
    convnext, tmp_path, monkeypatch, capsys
) -> None:
    right = export.weights.export

    def wrong(model, layout):
        return {key: value + 0.1 * (key == "classifier.2.weight") for key, value in right(model, layout).items()}

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
