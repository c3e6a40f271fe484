"""The roadmap of "A ConvNet for the 2020s", from ResNet to ConvNeXt: the 17 rows of its tables 10
and 11, in their order, and Swin last."""

from ablations.roadmap import Roadmap
from ablations.step import RecipeOf, Step
from models import SwinArchitecture

_MACRO, _INVERTED, _KERNELS, _MICRO = (
    "Macro design",
    "Inverted bottleneck",
    "Large kernels",
    "Micro design",
)
_SWIN = {
    "swin-t": ("tiny", SwinArchitecture()),
    "swin-b": ("base", SwinArchitecture(128, (2, 2, 18, 2), (4, 8, 16, 32))),
    "swin-small": (
        "small",
        SwinArchitecture(24, (1, 1, 2), (1, 2, 4), window_size=4, stem_stride=2),
    ),
    "swin-pocket": ("mini", SwinArchitecture(24, (1, 1, 2, 1), (1, 2, 4, 8), window_size=4)),
}

# Of each step: name, description, source, group, the step that it changes, its number; and then the
# fields of the network and of the recipe that it changes, and the steps that it needs.
_STEPS = (
    Step(
        "baseline",
        "ResNet and its classic recipe",
        "section 2, ResNet-50",
        "Baseline",
        None,
        0,
        recipe=RecipeOf.CLASSIC.whole(),
    ),
    Step(
        "training-recipe",
        "the modern training recipe",
        "section 2.1",
        "Training",
        "baseline",
        1,
        recipe=RecipeOf.MODERN.whole(),
    ),
    Step(
        "stage-ratio",
        "stage compute ratio as in Swin",
        "section 2.2",
        _MACRO,
        "training-recipe",
        2,
        sizes={
            "tiny": {"depths": (3, 3, 9, 3)},
            "base": {"depths": (3, 3, 27, 3), "width": 84},
            "small": {"depths": (1, 1, 3)},
            "mini": {"depths": (1, 1, 3, 1)},
        },
    ),
    Step(
        "patchify-stem",
        "{stem_stride}x{stem_stride} stride-{stem_stride} stem",
        "section 2.2",
        _MACRO,
        "stage-ratio",
        3,
        {"stem": "patchify"},
    ),
    Step(
        "depthwise",
        "depthwise 3x3 convolution",
        "section 2.3",
        "ResNeXt",
        "patchify-stem",
        4,
        {"depthwise": True},
    ),
    Step(
        "width",
        "width as in Swin",
        "section 2.3",
        "ResNeXt",
        "depthwise",
        5,
        sizes={
            "tiny": {"width": 96},
            "base": {"width": 128},
            "small": {"width": 24},
            "mini": {"width": 24},
        },
        needs=("depthwise",),
    ),
    Step(
        "inverted-bottleneck",
        "block widths C, 4C, C",
        "section 2.4",
        _INVERTED,
        "width",
        6,
        {"inverted_bottleneck": True},
        needs=("depthwise",),
    ),
    Step(
        "depthwise-first",
        "depthwise convolution moved up",
        "section 2.5",
        _KERNELS,
        "inverted-bottleneck",
        7,
        {"depthwise_first": True},
        needs=("depthwise", "inverted-bottleneck"),
    ),
    *(
        Step(
            f"kernel-{k}",
            f"kernel {k}x{k}" + (", off the path" if number is None else ""),
            "section 2.5",
            _KERNELS,
            "depthwise-first",
            number,
            {"kernel_size": k},
            needs=("depthwise-first",),
        )
        for k, number in ((5, None), (7, 8), (9, None), (11, None))
    ),
    Step("gelu", "ReLU to GELU", "section 2.6", _MICRO, "kernel-7", 9, {"activation": "gelu"}),
    Step(
        "fewer-activations",
        "one activation per block",
        "section 2.6",
        _MICRO,
        "gelu",
        10,
        {"fewer_activations": True},
    ),
    Step(
        "fewer-norms",
        "one norm per block",
        "section 2.6",
        _MICRO,
        "fewer-activations",
        11,
        {"fewer_norms": True},
    ),
    Step(
        "layer-norm",
        "batch norm to layer norm",
        "section 2.6",
        _MICRO,
        "fewer-norms",
        12,
        {"norm": "layer"},
    ),
    Step(
        "separate-downsampling",
        "norm and 2x2 convolution between stages",
        "section 2.6",
        _MICRO,
        "layer-norm",
        13,
        {"separate_downsampling": True},
        released_with_layer_scale=True,
    ),
    *(
        Step(
            name,
            "Swin Transformer, the reference",
            "section 2, Swin",
            "Reference",
            recipe=RecipeOf.MODERN.whole(),
            networks={regime: network},
        )
        for name, (regime, network) in _SWIN.items()
    ),
)

PAPER = Roadmap("paper", "from ResNet to ConvNeXt", _STEPS)
