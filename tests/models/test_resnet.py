"""What each flag does to a block, and what the recipe adds to it."""

from dataclasses import replace

import pytest
import torch
import torchvision

from ablations import PAPER, get_regime
from models import Architecture
from models.architecture import SwinArchitecture
from models.builder import build
from models.layers import StochasticDepth
from models.resnet import Block, ResNet

SMALL = Architecture(depths=(1, 2), width=4, num_classes=3)


def layers(**flags: object) -> list[str]:
    block = Block(replace(SMALL, **flags), 16, 4, 1)
    after = [] if isinstance(block.activation, torch.nn.Identity) else ["after"]
    return [name for name, _ in block.branch.named_children()] + after


def test_the_default_block_is_a_bottleneck_with_all_norms_and_activations() -> None:
    assert layers() == [
        "conv1",
        "norm1",
        "activation1",
        "conv2",
        "norm2",
        "activation2",
        "conv3",
        "norm3",
        "after",
    ]


def test_fewer_activations_leaves_the_one_between_the_two_1x1_layers() -> None:
    expected = ["conv1", "norm1", "conv2", "norm2", "activation2", "conv3", "norm3"]
    assert layers(fewer_activations=True) == expected
    assert layers(fewer_activations=True, depthwise_first=True) == expected


def test_fewer_norms_leaves_the_one_before_the_first_1x1_layer() -> None:
    flags = {"fewer_activations": True, "fewer_norms": True}
    assert layers(**flags, depthwise_first=True) == [
        "conv1",
        "norm1",
        "conv2",
        "activation2",
        "conv3",
    ]
    assert layers(**flags) == ["norm0", "conv1", "conv2", "activation2", "conv3"]


@pytest.mark.parametrize(
    ("flags", "shapes"),
    [
        ({}, [(4, 16, 1), (4, 4, 3), (16, 4, 1)]),
        ({"depthwise": True}, [(4, 16, 1), (4, 1, 3), (16, 4, 1)]),
        ({"depthwise": True, "inverted_bottleneck": True}, [(16, 16, 1), (16, 1, 3), (4, 16, 1)]),
        (
            {
                "depthwise": True,
                "inverted_bottleneck": True,
                "depthwise_first": True,
                "kernel_size": 7,
            },
            [(16, 1, 7), (16, 16, 1), (4, 16, 1)],
        ),
    ],
)
def test_the_block_widths_are_the_papers(flags, shapes) -> None:
    block = Block(replace(SMALL, **flags), 16, 4, 1)
    weights = [block.branch.get_submodule(f"conv{i}").weight.shape for i in (1, 2, 3)]
    assert [(w[0], w[1], w[2]) for w in weights] == shapes


def test_a_convolution_has_a_bias_unless_batch_norm_follows_it() -> None:
    def biases(**flags: object) -> list[bool]:
        block = Block(replace(SMALL, depthwise_first=True, **flags), 16, 4, 1)
        return [block.branch.get_submodule(f"conv{i}").bias is not None for i in (1, 2, 3)]

    assert biases() == [False, False, False]
    assert biases(fewer_norms=True) == [False, True, True]
    assert biases(norm="layer") == [True, True, True]


def test_stochastic_depth_draws_and_scales_as_torchvisions() -> None:
    ours, theirs = StochasticDepth(0.3), torchvision.ops.StochasticDepth(0.3, "row")
    x = torch.randn(64, 3, 2, 2)
    for module in (ours.train(), theirs.train()):
        torch.manual_seed(5)
        module.seen = module(x)
    assert torch.equal(ours.seen, theirs.seen)
    assert 0 < (ours.seen == 0).flatten(1).all(1).sum() < 64
    assert torch.equal(ours.eval()(x), x)


def test_drop_path_rises_linearly_with_depth() -> None:
    model = ResNet(replace(SMALL, depths=(1, 2, 2)), drop_path=0.4)
    rates = [getattr(m.drop_path, "p", 0.0) for m in model.modules() if isinstance(m, Block)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_layer_scale_multiplies_the_branch() -> None:
    torch.manual_seed(0)
    block = Block(replace(SMALL, fewer_activations=True), 16, 4, 1, layer_scale=0.25).eval()
    bare = Block(replace(SMALL, fewer_activations=True), 16, 4, 1).eval()
    bare.load_state_dict({k: v for k, v in block.state_dict().items() if k != "layer_scale"})
    x = torch.randn(2, 16, 8, 8)
    assert torch.allclose(block(x) - x, 0.25 * (bare(x) - x), atol=1e-6)


def test_separate_downsampling_halves_between_stages_with_norms_around() -> None:
    model = ResNet(replace(SMALL, separate_downsampling=True, norm="layer"))
    assert [name for name, _ in model.stages[1].named_children()] == [
        "downsample",
        "block1",
        "block2",
    ]
    assert model.stages[1].downsample.conv.kernel_size == (2, 2)
    assert isinstance(model.norm, torch.nn.LayerNorm)
    assert isinstance(ResNet(SMALL).norm, torch.nn.Identity)


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("stem", ["classic", "patchify"])
def test_every_kind_of_stem_has_the_stride_that_was_asked_for(stem, stride) -> None:
    model = ResNet(replace(SMALL, stem=stem, stem_stride=stride))
    images = torch.randn(2, 3, 32, 32)
    stage = 32 // stride
    assert model.stem(images).shape[2:] == (stage, stage)
    assert (
        model.stages(model.stem(images)).shape[2]
        == 32 // model.architecture.total_stride
        == stage // 2
    )


def test_a_classic_stem_of_half_the_stride_is_a_3x3_convolution_and_the_max_pool() -> None:
    half, whole = (ResNet(replace(SMALL, stem_stride=stride)).stem for stride in (2, 1))
    assert (half.conv.kernel_size, half.conv.stride, half.pool.stride) == ((3, 3), (1, 1), 2)
    assert (whole.conv.kernel_size, whole.conv.stride, hasattr(whole, "pool")) == (
        (3, 3),
        (1, 1),
        False,
    )


@pytest.mark.parametrize("regime", ["tiny", "base", "small", "pocket"])
def test_swin_is_torchvisions(regime: str) -> None:
    swin = PAPER.architecture(PAPER.steps_in(get_regime(regime))[-1], get_regime(regime))
    params = sum(p.numel() for p in build(swin).parameters())
    assert params == {"tiny": 28_288_354, "base": 87_768_224}.get(regime, params)
    assert build(replace(swin, num_classes=7))(torch.randn(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"depths": ()}, "depths"),
        ({"depths": (1, 0)}, "depths"),
        ({"width": 0}, "width is 0"),
        ({"kernel_size": 4}, "odd"),
        ({"stem_stride": 8}, "stem_stride is 8: give 4"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"stem": "conv"}, "'classic' or 'patchify'"),
        ({"norm": "group"}, "'batch' or 'layer'"),
    ],
)
def test_an_impossible_architecture_is_refused_in_a_sentence(flags, message) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**flags)


def test_swin_has_patches_of_the_stem_stride() -> None:
    swin = replace(PAPER.architecture("swin-pocket", get_regime("pocket")), stem_stride=2)
    assert build(swin).get_parameter("features.0.0.weight").shape[2:] == (2, 2)
    with pytest.raises(ValueError, match="stem_stride is 3: give 4"):
        replace(swin, stem_stride=3)


def test_the_default_swin_is_swin_t() -> None:
    assert SwinArchitecture() == PAPER.architecture("swin-t", get_regime("tiny"))
