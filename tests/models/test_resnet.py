"""Each flag's effect on a block, and what the recipe adds to it."""

from dataclasses import replace

import pytest
import torch
import torchvision

from models import Architecture, SwinArchitecture
from models.layers import GlobalResponseNorm, InceptionConvolution, StochasticDepth
from models.resnet import Block, ResNet

SMALL = Architecture(depths=(1, 2), width=4, num_classes=3)


def block(**flags) -> Block:
    return Block(replace(SMALL, **flags), 16, 4, 1)


ONE_ACTIVATION = {"fewer_activations": True}
FEW = {"fewer_activations": True, "fewer_norms": True, "depthwise_first": True}
WIDE = {"depthwise": True, "inverted_bottleneck": True}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "conv1 norm1 activation1 conv2 norm2 activation2 conv3 norm3 after"),
        (ONE_ACTIVATION, "conv1 norm1 conv2 norm2 activation2 conv3 norm3"),
        (FEW, "conv1 norm1 conv2 activation2 conv3"),
        ({"fewer_norms": True}, "norm0 conv1 activation1 conv2 activation2 conv3 after"),
        (FEW | {"before_last": "grn"}, "conv1 norm1 conv2 activation2 before_last conv3"),
        (
            ONE_ACTIVATION | {"branch_end": "se"},
            "conv1 norm1 conv2 norm2 activation2 conv3 norm3 end",
        ),
    ],
)
def test_a_flag_decides_which_layers_a_block_has(flags, expected) -> None:
    built = block(**flags)
    after = [] if isinstance(built.activation, torch.nn.Identity) else ["after"]
    assert [name for name, _ in built.branch.named_children()] + after == expected.split()


@pytest.mark.parametrize(
    ("flags", "shapes", "biases"),
    [
        ({}, [(4, 16, 1), (4, 4, 3), (16, 4, 1)], [False, False, False]),
        ({"depthwise": True}, [(4, 16, 1), (4, 1, 3), (16, 4, 1)], [False, False, False]),
        (WIDE, [(16, 16, 1), (16, 1, 3), (4, 16, 1)], [False, False, False]),
        (
            WIDE | FEW | {"kernel_size": 7},
            [(16, 1, 7), (16, 16, 1), (4, 16, 1)],
            [False, True, True],
        ),
        ({"norm": "layer"}, [(4, 16, 1), (4, 4, 3), (16, 4, 1)], [True, True, True]),
        ({"all_biases": True}, [(4, 16, 1), (4, 4, 3), (16, 4, 1)], [True, True, True]),
    ],
)
def test_block_widths_are_the_papers_and_biases_where_no_batch_norm_follows(
    flags, shapes, biases
) -> None:
    convolutions = [block(**flags).branch.get_submodule(f"conv{i}") for i in (1, 2, 3)]
    assert [tuple(conv.weight.shape[:3]) for conv in convolutions] == shapes
    assert [conv.bias is not None for conv in convolutions] == biases


def test_stochastic_depth_draws_and_scales_as_torchvisions() -> None:
    ours, theirs = StochasticDepth(0.3), torchvision.ops.StochasticDepth(0.3, "row")
    x, outputs = torch.randn(64, 3, 2, 2), []
    for module in (ours.train(), theirs.train()):
        torch.manual_seed(5)
        outputs.append(module(x))
    assert torch.equal(*outputs)
    assert 0 < (outputs[0] == 0).flatten(1).all(1).sum() < 64
    assert torch.equal(ours.eval()(x), x)


def test_drop_path_rises_linearly_with_depth() -> None:
    model = ResNet(replace(SMALL, depths=(1, 2, 2)), drop_path=0.4)
    rates = [getattr(m.drop_path, "p", 0.0) for m in model.modules() if isinstance(m, Block)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_layer_scale_multiplies_the_branch() -> None:
    architecture = replace(SMALL, fewer_activations=True)
    scaled = Block(architecture, 16, 4, 1, layer_scale=0.25).eval()
    plain = Block(architecture, 16, 4, 1).eval()
    plain.load_state_dict({k: v for k, v in scaled.state_dict().items() if k != "layer_scale"})
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(scaled(x) - x, 0.25 * (plain(x) - x))


def test_separate_downsampling_halves_between_stages_with_norms_around() -> None:
    model = ResNet(replace(SMALL, separate_downsampling=True, norm="layer"))
    names = [name for name, _ in model.stages[1].named_children()]
    assert names == ["downsample", "block1", "block2"]
    assert model.stages[1].downsample.conv.kernel_size == (2, 2)
    assert isinstance(model.norm, torch.nn.LayerNorm)
    assert isinstance(ResNet(SMALL).norm, torch.nn.Identity)


@pytest.mark.parametrize(
    ("stem", "stride", "kernels", "pool"),
    [
        *(("classic", 4, [7], True), ("classic", 2, [3], True), ("classic", 1, [3], False)),
        *(("patchify", stride, [stride], False) for stride in (4, 2, 1)),
        *(("overlap", stride, [3, 3], False) for stride in (4, 2, 1)),
    ],
)
def test_each_stem_has_the_requested_stride(stem, stride, kernels, pool) -> None:
    model = ResNet(replace(SMALL, stem=stem, stem_stride=stride))
    convolutions = [m for m in model.stem if isinstance(m, torch.nn.Conv2d)]
    assert [conv.kernel_size[0] for conv in convolutions] == kernels
    assert hasattr(model.stem, "pool") == pool
    features = model.stem(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, 4, 32 // stride, 32 // stride)
    assert model.stages(features).shape[2] == 32 // model.architecture.total_stride


def test_grn_starts_as_the_identity() -> None:
    images = torch.randn(2, 8, 5, 5)
    assert torch.equal(GlobalResponseNorm(8)(images), images)


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
        ({"expansion": (4, 3)}, "a number from 1, or one for each of 4 stages"),
        ({"expansion": 0}, "a number from 1"),
        ({"spatial": "inception", "width": 7}, "give at least 8 for inception convolutions"),
    ],
)
def test_an_impossible_architecture_is_refused(flags, message) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**flags)
    with pytest.raises(ValueError, match="stem_stride is 3: give 4"):
        SwinArchitecture(stem_stride=3)
