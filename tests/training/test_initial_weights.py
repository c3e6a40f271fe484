"""--init-weights: a run starts from a file, which belongs to its study's identity."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import runner
from ablations import PAPER, get_regime
from models import weights
from models.builder import build

OPTIONS = (
    "--preset pocket --regime pocket --resolution 32 --epochs 1 --warmup-epochs 0 --batch-size 24 "
    "--lr 1e-9 --min-lr 0 --device cpu"
)


@pytest.fixture
def quick_study(tmp_path: Path, images: Path) -> list[str]:
    (tmp_path / "data").mkdir()
    places = ["--runs", str(tmp_path / "runs"), "--data-dir", str(tmp_path / "data")]
    return [*OPTIONS.split(), "--dataset", f"imagefolder:{images}", *places]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A small ConvNeXt in the authors' names, for 1000 classes."""
    regime = get_regime("mini")
    torch.manual_seed(5)
    model = build(PAPER.architecture("13", regime), layer_scale=0.5)
    torch.save({"model": weights.export(model, "release")}, tmp_path / "convnext.pth")
    return tmp_path / "convnext.pth"


def test_a_run_starts_from_the_file_and_its_study_says_so(
    quick_study, released, tmp_path, capsys
) -> None:
    tuned = [*quick_study, "--study", "tuned", "--init-weights", str(released)]
    assert runner.main(["train", "13", *tuned]) == 0
    printed = capsys.readouterr().err
    assert "convnext.pth knows 1,000 classes and this data set has 3" in printed
    trained = load_file(tmp_path / "runs/tuned/separate-downsampling/seed-0/model.safetensors")
    start = torch.load(released, weights_only=True)["model"]
    torch.testing.assert_close(
        trained["stem.conv.weight"], start["downsample_layers.0.0.weight"], atol=1e-6, rtol=0
    )
    assert trained["head.weight"].shape[0] == 3
    study = json.loads((tmp_path / "runs/tuned/study.json").read_text())
    assert study["config"]["init_weights"]["name"] == "convnext.pth"
    assert len(study["config"]["init_weights"]["sha256"]) == 64

    assert runner.main(["train", "13", *quick_study, "--study", "tuned"]) == 2
    assert "init_weights" in capsys.readouterr().err
    torch.save({"model": {k: v + 1 for k, v in start.items()}}, released)
    assert runner.main(["train", "13", *tuned]) == 2
    assert "init_weights" in capsys.readouterr().err


def test_of_a_model_and_its_average_the_choice_is_logged_and_made(
    quick_study, released, tmp_path, capsys
) -> None:
    model = torch.load(released, weights_only=True)["model"]
    torch.save({"model": model, "model_ema": {k: 2 * v for k, v in model.items()}}, released)
    for study, options, scale in (("a", [], 1), ("b", ["--init-key", "model_ema"], 2)):
        tuned = [*quick_study, "--study", study, "--init-weights", str(released), *options]
        assert runner.main(["train", "13", *tuned]) == 0
        used = options[-1] if options else "model"
        assert f"holds model, model_ema: {used} is used" in capsys.readouterr().err
        run = tmp_path / f"runs/{study}/separate-downsampling/seed-0"
        stem = load_file(run / "model.safetensors")["stem.conv.weight"]
        expected = scale * model["downsample_layers.0.0.weight"]
        torch.testing.assert_close(stem, expected, atol=1e-5, rtol=0)
    assert runner.main(["train", "13", *tuned[:-2]]) == 2  # the key belongs to the study
    assert "init_key" in capsys.readouterr().err
    assert runner.main(["train", "13", *quick_study, "--init-key", "model"]) == 2
    assert "--init-key is for --init-weights" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_refused_with_the_step_that_would(
    quick_study, released, tmp_path, capsys
) -> None:
    assert runner.main(["train", "4", *quick_study, "--init-weights", str(released)]) == 2
    printed = capsys.readouterr().err
    assert "step depthwise" in printed
    assert "they fit separate-downsampling in regime mini" in printed
    assert (
        runner.main(["train", "13", *quick_study, "--init-weights", str(tmp_path / "none.pth")])
        == 2
    )
    assert "do not exist" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
