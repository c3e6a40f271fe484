"""Weights go to torchvision, timm and the authors' naming and come back; the networks then say the
same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import convnext_base, convnext_tiny, resnet50

from ablations import PAPER, get_regime
from models import Architecture, parts, weights
from models.builder import build, empty
from models.naming import Naming, detect


def ours(
    regime: str, step: str, layer_scale: float | None = None, num_classes: int | None = None
) -> nn.Module:
    """A step with weights unlike the initial ones, in eval mode."""
    found = get_regime(regime)
    model = empty(PAPER.architecture(step, found, num_classes), layer_scale=layer_scale).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(0.05 * torch.randn(tensor.shape, generator=generator))
                if name.endswith(("norm.weight", "layer_scale", "running_var")) or ".norm" in name:
                    tensor.abs_().add_(0.5)
    return model


def _timm(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        timm = pytest.importorskip("timm")
        model: nn.Module = timm.create_model(name)
        return model

    return make


PEERS: list[Any] = [
    pytest.param("tiny", "0", None, "torchvision", resnet50, id="torchvision-resnet50"),
    pytest.param("tiny", "0", None, "timm", _timm("resnet50"), id="timm-resnet50"),
    pytest.param("tiny", "13", 0.7, "torchvision", convnext_tiny, id="torchvision-convnext_tiny"),
    pytest.param("tiny", "13", 0.7, "timm", _timm("convnext_tiny"), id="timm-convnext_tiny"),
    pytest.param("base", "13", 0.7, "torchvision", convnext_base, id="torchvision-convnext_base"),
    pytest.param("base", "13", 0.7, "timm", _timm("convnext_base"), id="timm-convnext_base"),
]


@pytest.mark.parametrize(("regime", "step", "scale", "naming", "peer"), PEERS)
def test_both_ways_with_the_same_outputs(regime, step, scale, naming: Naming, peer) -> None:
    model, theirs = ours(regime, step, scale), peer().eval()
    theirs.load_state_dict(weights.export(model, naming))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, got = model(images), theirs(images)
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    back = weights.translate(model, theirs.state_dict())
    assert back.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(back[key], value), key


def test_timm_reads_the_release_naming_as_the_network_that_we_wrote() -> None:
    """timm's own filter for the authors' checkpoints is the judge of our names."""
    timm = pytest.importorskip("timm")
    from timm.models.convnext import checkpoint_filter_fn

    model, theirs = ours("tiny", "13", 0.7), timm.create_model("convnext_tiny").eval()
    released = weights.export(model, "release")
    theirs.load_state_dict(checkpoint_filter_fn({"model": released}, theirs))
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, got = model(images), theirs(images)
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert released["stages.0.0.gamma"].shape == (96,)
    assert released["stages.0.0.pwconv1.weight"].shape == (384, 96)


@pytest.mark.parametrize(
    ("naming", "step"),
    [("torchvision", "0"), ("torchvision", "13"), ("timm", "13"), ("release", "13"), ("ours", "5")],
)
def test_the_naming_is_found_from_the_keys(naming: Naming, step) -> None:
    assert (
        detect(weights.export(ours("pocket", step, 0.7 if step == "13" else None), naming))
        == naming
    )


@pytest.mark.parametrize("step", ["1", "5", "11", "13"])
def test_a_folded_layer_scale_computes_the_same(step) -> None:
    model = ours("pocket", step, 0.7)
    plain = ours("pocket", step)
    plain.load_state_dict(weights.fold_layer_scale(model.state_dict(), plain))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(plain(images), model(images), rtol=1e-4, atol=1e-5)
    again = ours("pocket", step)
    weights.load(again, model.state_dict())  # folds by itself
    assert torch.equal(again.get_parameter("head.weight"), model.get_parameter("head.weight"))
    assert torch.equal(
        again.state_dict()["stages.2.block1.branch.conv1.weight"],
        plain.state_dict()["stages.2.block1.branch.conv1.weight"],
    )


def test_layer_scale_stays_behind_a_part_even_one_without_weights(monkeypatch) -> None:
    monkeypatch.setattr(parts, "_registered", {})
    parts.register("branch_end", "mine", lambda channels: nn.Tanh())
    architecture = Architecture(depths=(1,), width=8, branch_end="mine")
    scaled = build(architecture, layer_scale=0.5)
    with pytest.raises(
        ValueError, match="layer scale cannot be folded into a branch that ends in a part"
    ):
        weights.load(build(architecture), scaled.state_dict())
    weights.load(build(architecture, layer_scale=0.1), scaled.state_dict())


def test_layer_scale_stays_before_a_norm_without_weights(monkeypatch) -> None:
    monkeypatch.setattr(parts, "_registered", {})
    parts.register("norm", "bare", lambda channels: nn.BatchNorm2d(channels, affine=False))
    architecture = Architecture(depths=(1,), width=8, norm="bare")
    with pytest.raises(ValueError, match="a branch that ends in a norm without weights: keep it"):
        weights.load(build(architecture), build(architecture, layer_scale=0.5).state_dict())


def test_the_release_checkpoint_starts_a_network_with_other_classes(tmp_path) -> None:
    released = weights.export(ours("pocket", "13", 0.7), "release")
    torch.save({"model": released}, tmp_path / "convnext.pth")
    state = weights.read(tmp_path / "convnext.pth")
    model = ours("pocket", "13", 0.7, num_classes=7)
    head = model.get_parameter("head.weight").clone()
    with pytest.raises(ValueError, match="weights for 1000 classes where this network has 7"):
        weights.load(model, state)
    weights.load(model, state, new_classifier=True)
    assert torch.equal(model.get_parameter("head.weight"), head)
    assert torch.equal(
        model.get_parameter("stem.conv.weight"), released["downsample_layers.0.0.weight"]
    )


def test_files_that_are_no_weights_are_refused_in_one_sentence(tmp_path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "code.pth")  # a pickled module would run code
    for name in ("none.pth", "text.pth", "text.safetensors", "numbers.pth", "code.pth"):
        with pytest.raises(ValueError) as caught:
            weights.read(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "give" in str(caught.value)


def test_safetensors_and_torch_files_hold_the_same(tmp_path) -> None:
    state = {"a": torch.arange(3.0)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    assert torch.equal(weights.read(tmp_path / "a.pth")["a"], state["a"])
    assert torch.equal(weights.read(tmp_path / "a.safetensors")["a"], state["a"])


def test_unknown_keys_are_named() -> None:
    with pytest.raises(ValueError, match="have no names known here .*'backbone.x'"):
        detect({"backbone.x": 1})
    model, other = ours("pocket", "13", 0.7), ours("pocket", "5").state_dict()
    with pytest.raises(
        ValueError, match=r"another architecture: .* keys are missing, such as 'norm.bias'"
    ):
        weights.load(model, other)
