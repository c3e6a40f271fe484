"""The roadmap of "A ConvNet for the 2020s", from ResNet to ConvNeXt: the 17 rows of its tables 10 and 11, and Swin."""

from ablations.roadmap import Roadmap
from ablations.step import RecipeOf, Step
from models import SwinArchitecture

PAPER = Roadmap(
    "paper",
    "from ResNet to ConvNeXt",
    (
        Step(
            "baseline", "ResNet and its classic recipe", "section 2, ResNet-50", None, 0, "Baseline",
            recipe=RecipeOf.CLASSIC.whole(),
        ),
        Step(
            "training-recipe", "the modern training recipe", "section 2.1", "baseline", 1, "Training",
            recipe=RecipeOf.MODERN.whole(),
        ),
        Step(
            "stage-ratio", "stage compute ratio as in Swin", "section 2.2", "training-recipe", 2, "Macro design",
            sizes={
                "tiny": {"depths": (3, 3, 9, 3)},
                "base": {"depths": (3, 3, 27, 3), "width": 84},
                "small": {"depths": (1, 1, 3)},
                "pocket": {"depths": (1, 1, 3, 1)},
            },
        ),
        Step(
            "patchify-stem", "{stem_stride}x{stem_stride} stride-{stem_stride} stem", "section 2.2", "stage-ratio", 3,
            "Macro design", architecture={"stem": "patchify"},
        ),
        Step(
            "depthwise", "depthwise 3x3 convolution", "section 2.3", "patchify-stem", 4, "ResNeXt",
            architecture={"depthwise": True},
        ),
        Step(
            "width", "width as in Swin", "section 2.3", "depthwise", 5, "ResNeXt",
            sizes={"tiny": {"width": 96}, "base": {"width": 128}, "small": {"width": 24}, "pocket": {"width": 24}},
            needs=("depthwise",),
        ),
        Step(
            "inverted-bottleneck", "block widths C, 4C, C", "section 2.4", "width", 6, "Inverted bottleneck",
            architecture={"inverted_bottleneck": True}, needs=("depthwise",),
        ),
        Step(
            "depthwise-first", "depthwise convolution moved up", "section 2.5", "inverted-bottleneck", 7,
            "Large kernels", architecture={"depthwise_first": True}, needs=("depthwise", "inverted-bottleneck"),
        ),
        Step(
            "kernel-5", "kernel 5x5, off the path", "section 2.5", "depthwise-first", None, "Large kernels",
            architecture={"kernel_size": 5}, needs=("depthwise-first",),
        ),
        Step(
            "kernel-7", "kernel 7x7", "section 2.5", "depthwise-first", 8, "Large kernels",
            architecture={"kernel_size": 7}, needs=("depthwise-first",),
        ),
        Step(
            "kernel-9", "kernel 9x9, off the path", "section 2.5", "depthwise-first", None, "Large kernels",
            architecture={"kernel_size": 9}, needs=("depthwise-first",),
        ),
        Step(
            "kernel-11", "kernel 11x11, off the path", "section 2.5", "depthwise-first", None, "Large kernels",
            architecture={"kernel_size": 11}, needs=("depthwise-first",),
        ),
        Step(
            "gelu", "ReLU to GELU", "section 2.6", "kernel-7", 9, "Micro design",
            architecture={"activation": "gelu"},
        ),
        Step(
            "fewer-activations", "one activation per block", "section 2.6", "gelu", 10, "Micro design",
            architecture={"fewer_activations": True},
        ),
        Step(
            "fewer-norms", "one norm per block", "section 2.6", "fewer-activations", 11, "Micro design",
            architecture={"fewer_norms": True},
        ),
        Step(
            "layer-norm", "batch norm to layer norm", "section 2.6", "fewer-norms", 12, "Micro design",
            architecture={"norm": "layer"},
        ),
        Step(
            "separate-downsampling", "norm and 2x2 convolution between stages", "section 2.6", "layer-norm", 13,
            "Micro design", architecture={"separate_downsampling": True}, released_with_layer_scale=True,
        ),
        *(
            Step(
                name, "Swin Transformer, the reference", "section 2, Swin", None, None, "Reference",
                recipe=RecipeOf.MODERN.whole(), networks={regime: network},
            )
            for regime, name, network in (
                ("tiny", "swin-t", SwinArchitecture()),
                ("base", "swin-b", SwinArchitecture(128, (2, 2, 18, 2), (4, 8, 16, 32))),
                ("small", "swin-small", SwinArchitecture(24, (1, 1, 2), (1, 2, 4), window_size=4, stem_stride=2)),
                ("pocket", "swin-pocket", SwinArchitecture(24, (1, 1, 2, 1), (1, 2, 4, 8), window_size=4)),
            )
        ),
    ),
)  # fmt: skip
"""17 rows in the paper's order, 14 numbered steps and three kernel sizes off the path, and Swin last."""
