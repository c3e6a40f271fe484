"""What came after the paper, from its last step: flags that timm's networks have too
(docs/decisions.md#beyond)."""

from ablations.roadmap import Roadmap
from ablations.roadmaps.paper import PAPER
from ablations.step import Step

_CONVNEXT = "separate-downsampling"

# Of each step: name, description, source, group, the step that it changes, its number; and then the
# fields of the network and of the recipe that it changes.
_STEPS = (
    Step(
        _CONVNEXT,
        "ConvNeXt, where the paper's roadmap ends",
        "section 2.6",
        "ConvNeXt",
        None,
        0,
        released_with_layer_scale=True,
    ),
    Step(
        "response-norm",
        "global response norm in place of layer scale",
        "ConvNeXt V2, arXiv 2301.00808",
        "Block",
        _CONVNEXT,
        1,
        {"before_last": "grn"},
        {"layer_scale": None},
    ),
    Step(
        "squeeze-excitation",
        "squeeze and excitation, off the path",
        "Hu et al., 2018, arXiv 1709.01507",
        "Block",
        _CONVNEXT,
        None,
        {"branch_end": "se"},
    ),
    Step(
        "inception-kernels",
        "depthwise kernels 3x3, 1x11, 11x1 on parts",
        "InceptionNeXt, arXiv 2303.16900",
        "Block",
        "response-norm",
        2,
        {"spatial": "inception", "kernel_size": 11},
    ),
    Step(
        "star-relu",
        "GELU to StarReLU",
        "MetaFormer baselines, arXiv 2210.13452",
        "Block",
        "inception-kernels",
        3,
        {"activation": "star-relu"},
    ),
    Step(
        "overlapping-stem",
        "stem of two overlapping 3x3 convolutions",
        "Xiao et al., 2021, arXiv 2106.14881",
        "Stem",
        "star-relu",
        4,
        {"stem": "overlap"},
    ),
    Step(
        "inception-next",
        "InceptionNeXt whole, off the path",
        "InceptionNeXt, arXiv 2303.16900",
        "Whole networks",
        _CONVNEXT,
        None,
        {
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
            "mini": {"expansion": (4, 4, 4, 3)},
        },
        released_with_layer_scale=True,
    ),
)

BEYOND = Roadmap(
    "beyond", "from ConvNeXt to what came after it", _STEPS, start=PAPER.path_to(_CONVNEXT)
)
