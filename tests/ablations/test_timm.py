"""Every step is a timm model with what timm's training scripts ask of one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ablations import PAPER, get_regime

timm = pytest.importorskip("timm")
pytest.importorskip("ablations.timm_models")
ROOT = Path(__file__).parents[2]


def test_importing_packages_is_light_and_importing_timm_models_makes_every_step_a_timm_model() -> (
    None
):
    script = (
        "import sys, models, ablations\n"
        "assert not {'torch', 'timm'} & set(sys.modules)\n"
        "import ablations.timm_models, timm\n"
        "model = timm.create_model('convnext_ablation_separate_downsampling', num_classes=7)\n"
        "print(sum(p.numel() for p in model.parameters()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == 28_589_128 - 993 * 769


@pytest.mark.parametrize("step", [step.name for step in PAPER.steps if not step.reference])
def test_a_timm_model_is_the_step(step) -> None:
    name, regime = f"convnext_ablation_{step.replace('-', '_')}", get_regime("mini")
    model = timm.create_model(name, num_classes=7, drop_path_rate=0.1, regime="mini").eval()
    assert model.architecture == PAPER.architecture(step, regime, 7)
    assert timm.data.resolve_data_config({}, model=model)["mean"] == (0.485, 0.456, 0.406)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(images), model.forward_head(model.forward_features(images)))
        model.reset_classifier(0)
        assert model(images).shape == (2, model.num_features)
    with pytest.raises(ValueError, match="no pretrained weights"):
        timm.create_model(name, pretrained=True)


def small(step: str = "separate_downsampling", **options):
    return timm.create_model(f"convnext_ablation_{step}", regime="mini", num_classes=7, **options)


@pytest.mark.parametrize(
    "option", [{"in_chans": 1}, {"global_pool": "max"}, {"features_only": True}, {"drop_rate": 0.1}]
)
def test_what_a_step_cannot_be_is_refused_in_one_line(option) -> None:
    with pytest.raises(ValueError, match=next(iter(option))) as caught:
        small(**option)
    assert "\n" not in str(caught.value)


def test_the_arguments_of_timms_own_training_script_are_taken() -> None:
    model = small(
        pretrained=False,
        in_chans=3,
        drop_rate=0.0,
        drop_path_rate=0.1,
        drop_block_rate=None,
        global_pool="avg",
        bn_momentum=None,
        bn_eps=None,
        scriptable=False,
        checkpoint_path="",
    )
    assert model.get_classifier() is model.head
    assert model.default_cfg["num_classes"] == 7


def test_layer_scale_0_and_the_initial_weights_reach_the_network_through_timms_create_model() -> (
    None
):
    def named(**options):
        return {name for name, _ in small(**options).named_parameters() if "layer_scale" in name}

    assert named()
    assert not named(layer_scale=0)
    normal, he = (
        small(init=init).get_parameter("stages.3.block1.branch.conv2.weight").std().item()
        for init in ("truncated-normal", "he")
    )
    assert normal == pytest.approx(0.02, rel=0.2)
    assert he > 2 * normal
