"""An export computes what the run computes, in any reader."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import runner
from inference import export
from inference.predictor import load
from models import Architecture, SwinArchitecture
from models.builder import empty

FORMATS = ["safetensors", "torchvision", "onnx", "torch-export"]


def request(run, out, form, *options: str) -> int:
    return runner.main(["export", "--run", str(run), "--out", str(out), "--format", form, *options])


def code_of(card: str) -> str:
    match = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert match
    return match[1]


def odd_images(folder: Path) -> None:
    """Ten kinds of images as cameras, scanners and editors leave them."""
    folder.mkdir()
    across, down = np.mgrid[:90, :120]
    colors = np.stack([2 * down, 255 * (across // 9 % 2), 2 * across + down // 3], 2)
    image = Image.fromarray(colors.clip(0, 255).astype(np.uint8))
    exif = Image.Exif()
    for orientation, name in ((6, "phone.jpg"), (2, "mirrored.png")):
        exif[0x0112] = orientation
        image.save(folder / name, exif=exif)
    Image.fromarray((down * 500).astype(np.uint16)).save(folder / "grey16.png")
    clear = image.copy()
    clear.putalpha(Image.fromarray((across * 2).astype(np.uint8)))
    clear.save(folder / "clear.png")
    clear.convert("LA").save(folder / "grey-clear.png")
    image.quantize(16).save(folder / "palette.png", transparency=3)
    image.convert("CMYK").save(folder / "print.jpg")
    image.convert("1").save(folder / "fax.tif")
    image.save(folder / "moving.gif", save_all=True, append_images=[image.rotate(180)])
    image.resize((700, 50)).save(folder / "panorama.webp")


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_has_a_card_whose_code_gives_the_runs_predictions_without_this_project(
    form, convnext, images, tmp_path, capsys
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    hub = pytest.importorskip("huggingface_hub")
    out, image = tmp_path / "new/model", images / "down/01.jpg"
    options = ["--images", str(images / "down"), "--license", "cc-by-4.0"]
    assert request(convnext, out, form, *options) == 0
    assert "largest difference of a logit" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    modes = {path.name: path.stat().st_mode & 0o777 for path in out.iterdir()}
    assert modes == dict.fromkeys((export.FILES[form], "config.json", "README.md"), 0o644)

    card = hub.ModelCard.load(out / "README.md")
    result = json.loads((convnext / "result.json").read_text())
    assert card.data.license == "cc-by-4.0"
    for text in (f"{result['top1']:.2f} %", "| weight_decay | 0.05 |", "Step 13 from ResNet"):
        assert text in card.text
    assert "3 classes: across, diagonal, down" in card.text
    assert "allergens" not in card.text  # the images are stripes, not dishes

    odd_images(out / "odd")
    shutil.copy(image, out / "odd")
    images = sorted((out / "odd").iterdir())
    (out / "use.py").write_text(code_of(card.text))
    lines = "import runpy, shutil, sys\nfor name in sys.argv[1:]:\n"
    lines += "    shutil.copy(name, 'image.jpg')\n    runpy.run_path('use.py')\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if form == "safetensors":  # this project's own format
        environment["PYTHONPATH"] = str(Path(runner.__file__).parent)
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", lines, *map(str, images)],
        cwd=out,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [dict(ast.literal_eval(line)) for line in process.stdout.splitlines()]
    for path, answer, expected in zip(images, answers, load(convnext).predict(images), strict=True):
        assert answer == pytest.approx(dict(expected), abs=0.01), path.name


def test_onnx_takes_any_number_of_images_of_any_size_by_named_axes(convnext, tmp_path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    assert request(convnext, tmp_path / "onnx", "onnx", "--fold-layer-scale") == 0
    path = tmp_path / "onnx/model.onnx"
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    for shape in ((5, 3, 48, 48), (1, 3, 100, 32)):
        images = torch.randn(shape)
        logits = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        with torch.inference_mode():
            torch.testing.assert_close(logits, load(convnext).model(images), rtol=1e-4, atol=1e-5)


def test_a_safetensors_export_predicts_and_folding_leaves_no_layer_scale(
    convnext, tmp_path
) -> None:
    assert request(convnext, tmp_path / "plain", "safetensors") == 0
    assert request(convnext, tmp_path / "folded", "safetensors", "--fold-layer-scale") == 0
    plain, folded = (
        load_file(tmp_path / name / "model.safetensors").keys() for name in ("plain", "folded")
    )
    assert set(plain - folded) == {key for key in plain if key.endswith(".layer_scale")} != set()
    images = torch.randn(2, 3, 48, 48)
    before, after = (load(tmp_path / name).probabilities(images) for name in ("plain", "folded"))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6)


def test_an_export_that_computes_something_else_is_an_error_and_leaves_nothing(
    convnext, tmp_path, monkeypatch, capsys
) -> None:
    right = export.weights.export

    def wrong(model, naming):
        state = right(model, naming)
        return state | {"classifier.2.weight": state["classifier.2.weight"] + 0.1}

    monkeypatch.setattr(export.weights, "export", wrong)
    assert request(convnext, tmp_path / "out", "torchvision") == 1
    assert "differs from ours" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_impossible_export_is_refused_and_writes_nothing(
    convnext, depthwise, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    for run, out, form, message in (
        (depthwise, tmp_path / "out", "torchvision", "torchvision has no network of this"),
        (convnext, tmp_path, "safetensors", "exists already"),
        (tmp_path / "none", tmp_path / "out", "safetensors", "there is no run"),
        (convnext, tmp_path / "out", "onnx", "pip install onnxscript"),
    ):
        assert request(run, out, form) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_card_names_the_papers_step_only_where_the_network_is_that_step(convnext) -> None:
    predictor = load(convnext)
    other = replace(predictor, architecture=replace(predictor.architecture, kernel_size=5))
    for each in (other, replace(predictor, step="only-gelu")):
        card = export.card(each, "onnx", 0.0, "noise", "a: b")
        assert "from ResNet to ConvNeXt" not in card
        assert card.startswith('---\nlicense: "a: b"\n')


def test_a_variant_that_shares_its_run_is_exported_as_that_run(study, convnext, tmp_path) -> None:
    shutil.copytree(study, tmp_path / "s")
    shared = tmp_path / "s/mine/seed-0"
    shared.mkdir(parents=True)
    shutil.copy(convnext / "config.json", shared)
    assert request(shared, tmp_path / "out", "safetensors") == 0
    assert "The run is not finished" not in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("architecture", [SwinArchitecture(num_classes=3), Architecture()])
def test_the_cards_code_builds_torchvisions_network(architecture, convnext) -> None:
    predictor = replace(load(convnext), architecture=architecture, model=empty(architecture))
    code = code_of(export.card(predictor, "torchvision", 0.0, "noise", "other"))
    code = code[code.index("from torchvision") : code.index("model.load_state_dict")]
    scope: dict = {"a": json.loads(json.dumps(export._description(predictor)["architecture"]))}
    exec(code, scope)
    scope["model"].load_state_dict(export.weights.export(predictor.model, "torchvision"))
