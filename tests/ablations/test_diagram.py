"""A step is drawn from the network that is built, and docs/roadmap.md from the steps."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import runner
from ablations import STEPS, diagram, get_regime, roadmap
from models.complexity import architecture_complexity, stage_complexity

ROOT = Path(__file__).parents[2]


def test_show_marks_what_a_step_changes(capsys) -> None:
    assert runner.main(["show", "depthwise", "--regime", "pocket", "--resolution", "64"]) == 0
    marked = [line for line in capsys.readouterr().out.splitlines() if "  ~ " in line and "->" in line]
    assert len(marked) == 2  # the 3x3 of the block, and of the block that halves the resolution
    assert all("depthwise conv 3x3" in line.partition(" ~ ")[2] for line in marked)
    assert all("depthwise" not in line.partition(" ~ ")[0] for line in marked)
    assert runner.main(["show", "14"]) == 2


def test_a_step_that_changes_the_recipe_alone_has_one_marked_line() -> None:
    regime = get_regime("tiny")
    drawn = diagram.drawing(regime, regime.step("training-recipe"))
    assert [line.split("  ")[0] for line in drawn.splitlines() if " ~ " in line] == ["recipe: ResNet's own"]


@pytest.mark.parametrize("step", ["0", "5", "13", "swin-pocket"])
def test_stages_add_up_to_the_network(step) -> None:
    regime = get_regime("pocket")
    architecture = regime.architecture(regime.step(step))
    whole, parts = architecture_complexity(architecture, 64), stage_complexity(architecture, 64)
    assert sum(part.params for part in parts) == whole.params
    assert sum(part.flops for part in parts) == whole.flops_paper_convention


def test_the_roadmap_page_is_current() -> None:
    page = (ROOT / "docs/roadmap.md").read_text(encoding="utf-8")
    assert page == roadmap.page(), "run: python -m ablations.roadmap > docs/roadmap.md"


def test_importing_models_alone_is_light_and_makes_every_step_a_timm_model() -> None:
    pytest.importorskip("timm")
    script = (
        "import sys, models\n"
        "assert not {'torch', 'timm', 'ablations'} & set(sys.modules)\n"
        "import timm\n"
        "model = timm.create_model('convnext_ablation_separate_downsampling', num_classes=7)\n"
        "print(sum(p.numel() for p in model.parameters()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == 28_589_128 - 993 * 769


@pytest.mark.parametrize("step", [step.name for step in STEPS])
def test_a_timm_model_is_the_step(step) -> None:
    timm = pytest.importorskip("timm")
    name, regime = f"convnext_ablation_{step.replace('-', '_')}", get_regime("pocket")
    model = timm.create_model(name, num_classes=7, drop_path_rate=0.1, regime="pocket").eval()
    assert model.architecture == regime.architecture(regime.step(step), 7)
    assert timm.data.resolve_data_config({}, model=model)["mean"] == (0.485, 0.456, 0.406)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(images), model.forward_head(model.forward_features(images)))
        model.reset_classifier(0)
        assert model(images).shape == (2, model.num_features)
    with pytest.raises(ValueError, match="no pretrained weights"):
        timm.create_model(name, pretrained=True)
