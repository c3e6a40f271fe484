"""The ends of the roadmap are the real ResNet and ConvNeXt: torchvision's, to the last bits of
float64."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import convnext_base, convnext_tiny, resnet50

from ablations import PAPER, get_regime
from models import Architecture
from models.builder import build, empty
from models.naming import names
from models.resnet import ResNet
from models.weights import export, load


def _convnext(builder: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    return lambda: builder(stochastic_depth_prob=0.0)


ENDS = [
    pytest.param("tiny", "baseline", resnet50, None, id="resnet50"),
    pytest.param(
        "tiny", "separate-downsampling", _convnext(convnext_tiny), 1e-6, id="convnext_tiny"
    ),
    pytest.param(
        "base", "separate-downsampling", _convnext(convnext_base), 1e-6, id="convnext_base"
    ),
]


def _error(ours: Tensor, theirs: Tensor) -> float:
    ours, theirs = ours.detach(), theirs.detach()
    scale = theirs.abs().max()
    return float((ours - theirs).abs().max() / scale) if scale else float(ours.abs().max())


def _pair(regime: str, step: str, reference: Callable[[], nn.Module], layer_scale: float | None):
    torch.manual_seed(0)
    theirs = reference().double()
    with (
        torch.no_grad()
    ):  # weights unlike the initial ones: layer scale and norms would hide mistakes
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    ours = empty(PAPER.architecture(step, get_regime(regime)), layer_scale=layer_scale).double()
    load(ours, theirs.state_dict(), "torchvision")
    return ours, theirs


@pytest.mark.parametrize(("regime", "step", "reference", "layer_scale"), ENDS)
def test_an_end_equals_torchvision_in_eval_and_train_mode(
    regime, step, reference, layer_scale
) -> None:
    ours, theirs = _pair(regime, step, reference, layer_scale)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    labels = torch.tensor([3, 977])

    ours.eval(), theirs.eval()
    with torch.no_grad():
        assert _error(ours(images), theirs(images)) < 1e-9

    ours.train(), theirs.train()
    losses = [F.cross_entropy(model(images), labels) for model in (ours, theirs)]
    assert _error(*losses) < 1e-9
    for loss in losses:
        loss.backward()
    gradients = dict(theirs.named_parameters())
    theirs_of = names(ours, "torchvision")
    for name, parameter in ours.named_parameters():
        expected = gradients[theirs_of[name]].grad
        assert _error(parameter.grad.flatten(), expected.flatten()) < 1e-9, name


@pytest.mark.parametrize(("regime", "step", "reference", "layer_scale"), ENDS[:2])
def test_weights_come_back_from_torchvision_as_they_went(
    regime, step, reference, layer_scale, tmp_path
) -> None:
    ours, theirs = _pair(regime, step, reference, layer_scale)
    torch.save(export(ours, "torchvision"), tmp_path / "weights.pth")
    fresh = reference().double()
    fresh.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
    for (name, ours_back), theirs_there in zip(
        fresh.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        assert torch.equal(ours_back, theirs_there), name


def test_a_step_that_torchvision_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="only the baseline .* the last step"):
        export(ResNet(Architecture(depthwise=True, width=4)), "torchvision")


def test_weights_of_another_network_are_refused_by_name() -> None:
    model = empty(Architecture(width=8))
    with pytest.raises(ValueError, match=r"'conv1.weight' has shape \(64, 3, 7, 7\)"):
        load(model, resnet50().state_dict(), "torchvision")
    with pytest.raises(ValueError, match="keys are missing"):
        load(model, convnext_tiny().state_dict(), "torchvision")


def test_a_convnext_without_layer_scale_goes_out_with_one_of_ones() -> None:
    regime = get_regime("pocket")
    model = empty(PAPER.architecture("13", regime))
    state = export(model, "torchvision")
    assert torch.equal(state["features.1.0.layer_scale"], torch.ones(24, 1, 1))
    load(model, state, "torchvision")


def test_initial_weights_are_those_of_the_recipes() -> None:
    torch.manual_seed(0)
    classic = build(replace(Architecture(), width=32), init="he")
    weight = classic.get_parameter("stages.2.block3.branch.conv2.weight")
    fan_out = weight.shape[0] * 9
    assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)

    regime = get_regime("tiny")
    modern = build(PAPER.architecture("13", regime), init="truncated-normal")
    for name in ("stages.3.block2.branch.conv2.weight", "head.weight"):
        assert modern.get_parameter(name).std().item() == pytest.approx(0.02, rel=0.02)
    assert all(not p.any() for name, p in modern.named_parameters() if name.endswith("bias"))
