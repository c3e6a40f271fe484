"""What came after the paper, and timm's networks that have it: the same sizes, FLOPs and
outputs."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from ablations import PAPER, get_regime
from models import Architecture
from models.builder import build, empty
from models.complexity import complexity
from models.layers import GlobalResponseNorm, InceptionConvolution, SqueezeExcitation, StarReLU
from models.resnet import Block, ResNet
from models.weights import export, load

timm = pytest.importorskip("timm")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from timm.layers import SEModule
    from timm.layers.grn import GlobalResponseNorm as TimmResponseNorm
    from timm.models import metaformer
    from timm.models.inception_next import InceptionDWConv2d

CONVNEXT = PAPER.architecture("separate-downsampling", get_regime("tiny"))
assert isinstance(CONVNEXT, Architecture)
INCEPTION_NEXT = replace(
    CONVNEXT,
    spatial="inception",
    kernel_size=11,
    norm="batch",
    expansion=(4, 4, 4, 3),
    head="mlp",
    all_biases=True,
)
NETWORKS: list[Any] = [
    pytest.param(
        "convnextv2_tiny", replace(CONVNEXT, before_last="grn"), None, {}, id="convnextv2_tiny"
    ),
    pytest.param("inception_next_tiny", INCEPTION_NEXT, 1e-6, {}, id="inception_next_tiny"),
    pytest.param("seresnet50", Architecture(branch_end="se"), None, {}, id="seresnet50"),
    pytest.param(
        "convnext_nano_ols",
        replace(CONVNEXT, stem="overlap", width=80, depths=(2, 2, 8, 2)),
        1e-6,
        {"conv_mlp": False},
        id="convnext_nano_ols",
    ),
    pytest.param(
        "convnext_tiny",
        replace(CONVNEXT, activation="star-relu"),
        1e-6,
        {"act_layer": metaformer.StarReLU},
        id="convnext_tiny-star-relu",
    ),
]


def changed(model: nn.Module) -> nn.Module:
    """`model` with weights unlike the initial ones: zeros and layer scale would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(
                    0.05 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                )
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return model


@pytest.mark.parametrize(("name", "architecture", "layer_scale", "options"), NETWORKS)
def test_the_network_is_timms(name, architecture, layer_scale, options) -> None:
    theirs = changed(timm.create_model(name, **options)).eval()
    ours = empty(architecture, layer_scale=layer_scale).eval()
    load(ours, theirs.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, got = theirs(images), ours(images)
    assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())

    assert complexity(ours) == complexity(theirs)

    back = export(ours, "timm")
    assert back.keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(back[key], value), key


PARTS: list[Any] = [
    pytest.param(GlobalResponseNorm(24), TimmResponseNorm(24, channels_last=False), id="grn"),
    pytest.param(SqueezeExcitation(40), SEModule(40), id="se"),
    pytest.param(SqueezeExcitation(384), SEModule(384), id="se-384"),
    pytest.param(StarReLU(), metaformer.StarReLU(), id="star-relu"),
    pytest.param(
        InceptionConvolution(24, 11, 1, depthwise=True, bias=True),
        InceptionDWConv2d(24),
        id="inception",
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), PARTS)
def test_a_part_has_timms_outputs_and_gradients(ours, theirs) -> None:
    ours, theirs = changed(ours).double(), theirs.double()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    channels = max(24, *(len(p) for p in ours.parameters()))
    channels = 24 if isinstance(ours, InceptionConvolution) else channels
    results = []
    for module in (ours, theirs):
        images = torch.randn(
            2, channels, 7, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        out = module(images.requires_grad_())
        out.square().sum().backward()
        results.append([out, images.grad, *(parameter.grad for parameter in module.parameters())])
    for mine, their in zip(*results, strict=True):
        torch.testing.assert_close(mine, their)


def test_grn_starts_as_the_identity_and_stands_before_the_last_1x1_layer() -> None:
    images = torch.randn(2, 8, 5, 5)
    assert torch.equal(GlobalResponseNorm(8)(images), images)
    block = Block(replace(CONVNEXT, before_last="grn"), 8, 8, 1)
    names = [name for name, _ in block.branch.named_children()]
    assert names == ["conv1", "norm1", "conv2", "activation2", "before_last", "conv3"]


def test_se_ends_the_branch() -> None:
    block = Block(Architecture(branch_end="se"), 8, 8, 1)
    assert list(dict(block.branch.named_children()))[-2:] == ["norm3", "end"]


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_strided_inception_convolution_is_the_plain_one_at_every_other_position(
    depthwise,
) -> None:
    plain, strided = (
        InceptionConvolution(32, 5, stride, depthwise=depthwise, bias=True) for stride in (1, 2)
    )
    strided.load_state_dict(plain.state_dict())
    images = torch.randn(2, 32, 9, 12)
    torch.testing.assert_close(strided(images), plain(images)[:, :, ::2, ::2])
    assert torch.equal(plain(images)[:, :20], images[:, :20])


@pytest.mark.parametrize(("stride", "side"), [(4, 8), (2, 16), (1, 32)])
def test_an_overlapping_stem_is_two_3x3_convolutions(stride, side) -> None:
    stem = ResNet(Architecture(depths=(1,), width=4, stem="overlap", stem_stride=stride)).stem
    assert [tuple(layer.kernel_size) for layer in (stem.conv, stem.conv2)] == [(3, 3), (3, 3)]
    assert stem(torch.randn(2, 3, 32, 32)).shape == (2, 4, side, side)


def test_expansion_is_one_number_or_one_for_each_stage() -> None:
    assert Architecture().expansions == (4, 4, 4, 4)
    network = build(replace(INCEPTION_NEXT, width=8, depths=(1, 1, 1, 1)))
    assert [network.stages[i].block1.branch.conv2.out_channels for i in range(4)] == [
        32,
        64,
        128,
        192,
    ]
    for expansion, complaint in (
        ((4, 3), "give a number from 1, or one for each of 4 stages"),
        (0, "give a number from 1"),
    ):
        with pytest.raises(ValueError, match=f"expansion is .*: {complaint}"):
            Architecture(expansion=expansion)


def test_inception_convolutions_need_eight_channels() -> None:
    with pytest.raises(ValueError, match="width is 7: give at least 8 for inception convolutions"):
        Architecture(spatial="inception", width=7)


def test_layer_scale_is_not_folded_where_a_part_ends_the_branch() -> None:
    scaled = build(Architecture(branch_end="se", width=8, depths=(1,)), layer_scale=0.5)
    plain = build(Architecture(branch_end="se", width=8, depths=(1,)))
    with pytest.raises(ValueError, match="cannot be folded"):
        load(plain, scaled.state_dict())
