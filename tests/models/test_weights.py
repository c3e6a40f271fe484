"""Shared networks equal the other library's: sizes, outputs, gradients, weights both ways."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from ablations import PAPER, get_regime
from models import Architecture, SwinArchitecture, parts, weights
from models.builder import build, empty
from models.complexity import complexity
from models.naming import Naming, detect, names

TINY, BASE = (
    PAPER.architecture("separate-downsampling", get_regime(name)) for name in ("tiny", "base")
)
SMALL = replace(TINY, depths=(1, 2), width=8)
INCEPTION_NEXT = replace(
    TINY,
    spatial="inception",
    kernel_size=11,
    norm="batch",
    expansion=(4, 4, 4, 3),
    head="mlp",
    all_biases=True,
)
NANO_OLS = replace(TINY, stem="overlap", width=80, depths=(2, 2, 8, 2))
PEERS: list[Any] = [
    ("torchvision", "resnet50", Architecture(), None, {}),
    ("torchvision", "convnext_tiny", TINY, 1e-6, {"stochastic_depth_prob": 0.0}),
    ("torchvision", "convnext_base", BASE, 1e-6, {"stochastic_depth_prob": 0.0}),
    ("timm", "resnet50", Architecture(), None, {}),
    ("timm", "convnext_tiny", TINY, 1e-6, {}),
    ("timm", "convnext_base", BASE, 1e-6, {}),
    ("timm", "convnextv2_tiny", replace(TINY, before_last="grn"), None, {}),
    ("timm", "inception_next_tiny", INCEPTION_NEXT, 1e-6, {}),
    ("timm", "seresnet50", Architecture(branch_end="se"), None, {}),
    ("timm", "convnext_nano_ols", NANO_OLS, 1e-6, {"conv_mlp": False}),
    ("timm", "star-relu", replace(TINY, activation="star-relu"), 1e-6, {}),
]


def peer(library: str, name: str, options: dict) -> nn.Module:
    if library == "torchvision":
        return perturbed(torchvision.models.get_model(name, **options))
    timm = pytest.importorskip("timm")
    if name == "star-relu":
        from timm.models.metaformer import StarReLU

        name, options = "convnext_tiny", {"act_layer": StarReLU}
    return perturbed(timm.create_model(name, **options))


def perturbed(model: nn.Module) -> nn.Module:
    """`model` with weights unlike the initial ones: zeros and layer scale would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return model


@pytest.mark.parametrize(("library", "name", "architecture", "layer_scale", "options"), PEERS)
def test_a_shared_network_has_the_others_size_and_outputs(
    library: Naming, name, architecture, layer_scale, options
) -> None:
    theirs = peer(library, name, options).double().eval()
    ours = empty(architecture, layer_scale=layer_scale).double().eval()
    weights.load(ours, theirs.state_dict())
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        expected, outputs = theirs(images), ours(images)
    assert float((outputs - expected).abs().max()) <= 1e-9 * float(expected.abs().max())
    if name != "convnext_base":
        assert complexity(ours, 32) == complexity(theirs, 32)
    back = weights.export(ours, library)
    assert back.keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(back[key], value), key


@pytest.mark.parametrize(
    ("library", "name", "architecture", "layer_scale", "options"), [*PEERS[:2], *PEERS[6:]]
)
def test_a_shared_network_has_the_others_gradients(
    library: Naming, name, architecture, layer_scale, options
) -> None:
    theirs = peer(library, name, options).double().train()
    ours = empty(architecture, layer_scale=layer_scale).double().train()
    weights.load(ours, theirs.state_dict())
    images, labels = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([3, 977])
    losses = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        losses.append(F.cross_entropy(model(images), labels))
        losses[-1].backward()
    torch.testing.assert_close(*losses)
    gradients, their_names = dict(theirs.named_parameters()), names(ours, library)
    for key, parameter in ours.named_parameters():
        expected = gradients[their_names[key]].grad
        torch.testing.assert_close(
            parameter.grad.flatten(), expected.flatten(), rtol=1e-7, atol=1e-9, msg=key
        )


@pytest.mark.parametrize(
    ("name", "architecture", "layer_scale"),
    [("convnext_tiny", TINY, 0.7), ("convnextv2_tiny", replace(TINY, before_last="grn"), None)],
)
def test_timm_reads_the_authors_naming_as_our_network(name, architecture, layer_scale) -> None:
    timm = pytest.importorskip("timm")
    from timm.models.convnext import checkpoint_filter_fn  # for the authors' checkpoints

    model = perturbed(empty(architecture, layer_scale=layer_scale)).eval()
    theirs = timm.create_model(name).eval()
    released = weights.export(model, "release")
    theirs.load_state_dict(checkpoint_filter_fn({"model": released}, theirs))
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(images), model(images), rtol=1e-5, atol=1e-5)
    again = empty(architecture, layer_scale=layer_scale)
    assert weights.load(again, released) == []
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert released["stages.0.0.pwconv1.weight"].shape == (384, 96)
    if layer_scale is None:
        assert released["stages.0.0.grn.gamma"].shape == (1, 1, 1, 384)  # as in the authors' code


def test_swin_is_torchvisions() -> None:
    assert sum(p.numel() for p in empty(SwinArchitecture()).parameters()) == 28_288_354
    small = SwinArchitecture(depths=(1, 1), num_heads=(3, 6), stem_stride=2, num_classes=7)
    swin = build(small)
    assert swin.get_parameter("features.0.0.weight").shape[2:] == (2, 2)
    assert swin(torch.randn(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("naming", "architecture"),
    [
        ("torchvision", Architecture()),
        ("torchvision", SMALL),
        ("timm", SMALL),
        ("release", SMALL),
        ("ours", replace(SMALL, norm="batch")),
    ],
)
def test_the_naming_is_detected_from_the_keys(naming: Naming, architecture) -> None:
    assert detect(weights.export(empty(architecture, layer_scale=0.7), naming)) == naming


@pytest.mark.parametrize("step", ["1", "5", "11", "13"])
def test_a_folded_layer_scale_computes_the_same(step) -> None:
    architecture = PAPER.architecture(step, get_regime("mini"))
    scaled = perturbed(empty(architecture, layer_scale=0.7)).eval()
    plain = empty(architecture).eval()
    weights.load(plain, scaled.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(plain(images), scaled(images), rtol=1e-4, atol=1e-5)
        weights.load(scaled, plain.state_dict())  # which has no layer scale: it is 1
        assert torch.equal(plain(images), scaled(images))


@pytest.mark.parametrize(
    ("field", "make", "end"),
    [
        ("branch_end", lambda channels: nn.Tanh(), "part such as se"),
        ("norm", lambda channels: nn.BatchNorm2d(channels, affine=False), "norm without weights"),
    ],
)
def test_layer_scale_is_not_folded_where_that_changes_the_function(
    field, make, end, monkeypatch
) -> None:
    monkeypatch.setattr(parts, "_registered", {})
    parts.register(field, "mine", make)
    architecture = Architecture(depths=(1,), width=8, **{field: "mine"})
    scaled = build(architecture, layer_scale=0.5)
    with pytest.raises(ValueError, match=f"into a branch that ends in a {end}: keep it"):
        weights.load(build(architecture), scaled.state_dict())
    weights.load(build(architecture, layer_scale=0.1), scaled.state_dict())


def test_a_classifier_of_other_classes_stays_as_it_is_where_that_is_requested() -> None:
    released = weights.export(perturbed(empty(SMALL, layer_scale=0.7)), "release")
    model = build(replace(SMALL, num_classes=7), layer_scale=0.7)
    head = model.get_parameter("head.weight").clone()
    with pytest.raises(ValueError, match="weights for 1000 classes where this network has 7"):
        weights.load(model, released)
    (note,) = weights.load(model, released, new_classifier=True)
    assert "knows 1,000 classes and this data set has 7" in note
    assert torch.equal(model.get_parameter("head.weight"), head)
    stem = model.get_parameter("stem.conv.weight")
    assert torch.equal(stem, released["downsample_layers.0.0.weight"])


SETTINGS = argparse.Namespace(lr=1e-3, out=Path("runs"))
TRUNK = ("downsample_layers", "stages", "norm")


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        (lambda state: {"state_dict": state, "args": SETTINGS, "metric": np.float64(3)}, ""),
        (lambda state: {"model_ema": {k: -v for k, v in state.items()}, "model": state}, ""),
        (lambda state: {"ema": {"module": state}, "optimizer": {"state": {0: {}}}}, ""),
        *(
            (lambda state, p=p: {"state_dict": {p + k: v for k, v in state.items()}}, "")
            for p in ("module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.model.")
        ),
        (lambda state: {k.replace("s.1.0", "s.1._orig_mod.0"): v for k, v in state.items()}, ""),
        (lambda state: state | {"head_dist.weight": torch.ones(1)}, "other heads"),
        (lambda state: state | {"n_averaged": torch.tensor(3)}, "other heads"),
        *(
            (
                lambda state, t=t: {k: v for k, v in state.items() if k.startswith(t)},
                "no classifier",
            )
            for t in (TRUNK, TRUNK[:2])
        ),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint_is_read_as_its_script_left_it(wrap, note, zipped, tmp_path) -> None:
    source = perturbed(empty(SMALL, layer_scale=0.7))
    content = wrap(weights.export(source, "release"))
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    model = build(SMALL, layer_scale=0.7)
    notes = weights.load(model, weights.read(tmp_path / "w.pth")[0], new_classifier=True)
    assert [note in each for each in notes] == ([True] if note else [])
    for key, value in source.state_dict().items():
        if note != "no classifier" or not key.startswith(("head", "norm")):
            assert torch.equal(model.state_dict()[key], value), key


def test_batch_norm_counters_that_old_files_lack_are_zero(tmp_path) -> None:
    state = weights.export(perturbed(empty(Architecture(depths=(1,)))), "timm")
    old = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    save_file(old, tmp_path / "resnet.bin")  # recognized by its content, not by its name
    model = build(Architecture(depths=(1,)))
    assert weights.load(model, weights.read(tmp_path / "resnet.bin")[0]) == []
    assert model.get_buffer("stem.norm.num_batches_tracked") == 0
    assert torch.equal(model.get_parameter("head.weight"), state["fc.weight"])


def test_weights_of_another_network_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="torchvision has no network of this architecture: only"):
        weights.export(empty(Architecture(depthwise=True, width=4)), "torchvision")
    with pytest.raises(ValueError, match="have no names known here .*'backbone.x'"):
        detect({"backbone.x": 1})
    resnet = weights.export(empty(Architecture()), "torchvision")
    with pytest.raises(ValueError, match=r"'conv1.weight' has shape \(64, 3, 7, 7\)"):
        weights.load(empty(Architecture(width=8)), resnet)
    with pytest.raises(ValueError, match=r"of another architecture: .* keys are missing, such as"):
        weights.load(empty(Architecture()), weights.export(empty(SMALL), "ours"))


def test_a_weight_file_is_safetensors_or_tensors_alone(tmp_path) -> None:
    state = {"a": torch.arange(3.0)}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        assert torch.equal(weights.read(tmp_path / name)[0]["a"], state["a"])

    torch.save({"ema": {"module": state}, "model": state}, tmp_path / "two.pth")
    assert "holds ema.module, model: model is used" in weights.read(tmp_path / "two.pth")[1]
    assert weights.read(tmp_path / "two.pth", "ema.module")[0].keys() == state.keys()
    with pytest.raises(ValueError, match="no weights under 'average': give ema.module or model"):
        weights.read(tmp_path / "two.pth", "average")

    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save({"epoch": 3}, tmp_path / "numbers.pth")
    torch.save({"model": nn.Linear(2, 2)}, tmp_path / "code.pth")  # a pickled module can run code
    for name in ("none.pth", "text.pth", "text.safetensors", "numbers.pth", "code.pth"):
        with pytest.raises(ValueError, match=rf"^[^\n]*{name}[^\n]* give [^\n]*$"):
            weights.read(tmp_path / name)


def test_initial_weights_are_those_of_the_recipes() -> None:
    torch.manual_seed(0)
    classic = build(Architecture(width=32), init="he")
    weight = classic.get_parameter("stages.2.block3.branch.conv2.weight")
    assert weight.std().item() == pytest.approx((2 / (9 * len(weight))) ** 0.5, rel=0.02)

    modern = build(TINY, init="truncated-normal")
    for name in ("stages.3.block2.branch.conv2.weight", "head.weight"):
        assert modern.get_parameter(name).std().item() == pytest.approx(0.02, rel=0.02)
    assert all(not p.any() for name, p in modern.named_parameters() if name.endswith("bias"))
