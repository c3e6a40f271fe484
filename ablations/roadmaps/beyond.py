"""What came after the paper, from its last step: flags that timm's networks have too
(docs/decisions.md#beyond)."""

from ablations.roadmap import Roadmap
from ablations.roadmaps.paper import PAPER
from ablations.step import Step

BEYOND = Roadmap(
    "beyond",
    "from ConvNeXt to what came after it",
    (
        Step(
            "separate-downsampling",
            "ConvNeXt, where the paper's roadmap ends",
            "section 2.6",
            None,
            0,
            "ConvNeXt",
            released_with_layer_scale=True,
        ),
        Step(
            "response-norm",
            "global response norm in place of layer scale",
            "ConvNeXt V2, arXiv 2301.00808",
            "separate-downsampling",
            1,
            "Block",
            architecture={"before_last": "grn"},
            recipe={"layer_scale": None},
        ),
        Step(
            "squeeze-excitation",
            "squeeze and excitation, off the path",
            "Hu et al., 2018, arXiv 1709.01507",
            "separate-downsampling",
            None,
            "Block",
            architecture={"branch_end": "se"},
        ),
        Step(
            "inception-kernels",
            "depthwise kernels 3x3, 1x11, 11x1 on parts",
            "InceptionNeXt, arXiv 2303.16900",
            "response-norm",
            2,
            "Block",
            architecture={"spatial": "inception", "kernel_size": 11},
        ),
        Step(
            "star-relu",
            "GELU to StarReLU",
            "MetaFormer baselines, arXiv 2210.13452",
            "inception-kernels",
            3,
            "Block",
            architecture={"activation": "star-relu"},
        ),
        Step(
            "overlapping-stem",
            "stem of two overlapping 3x3 convolutions",
            "Xiao et al., 2021, arXiv 2106.14881",
            "star-relu",
            4,
            "Stem",
            architecture={"stem": "overlap"},
        ),
        Step(
            "inception-next",
            "InceptionNeXt whole, off the path",
            "InceptionNeXt, arXiv 2303.16900",
            "separate-downsampling",
            None,
            "Whole networks",
            architecture={
                "spatial": "inception",
                "kernel_size": 11,
                "norm": "batch",
                "head": "mlp",
                "all_biases": True,
            },
            sizes={
                "tiny": {"expansion": (4, 4, 4, 3)},
                "base": {"expansion": (4, 4, 4, 3)},
                "small": {"expansion": (4, 4, 3)},
                "pocket": {"expansion": (4, 4, 4, 3)},
            },
            released_with_layer_scale=True,
        ),
    ),
    start=PAPER.way("separate-downsampling"),
)
