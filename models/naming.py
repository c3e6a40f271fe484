"""What torchvision, timm and the paper's authors call the parts of the networks that they also
have.

The baseline (any bottleneck ResNet) is torchvision's and timm's `resnet50`; the last step (any
ConvNeXt) is torchvision's and timm's `convnext_tiny`, `convnext_base` ... and the network that the
paper's authors released. Of what came after the paper timm has `convnextv2_tiny`,
`inception_next_tiny`, `seresnet50` and `convnext_nano_ols`. A naming is a set of names for the same
tensors; shapes differ only where another library writes a 1x1 convolution as a linear layer, or
layer scale without its two broadcasting dimensions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from models.architecture import Architecture

Naming = Literal["ours", "torchvision", "timm", "release"]
"""Whose names: this project's, torchvision's, timm's, or those of the paper's authors' published
checkpoints."""


@dataclass(frozen=True)
class Table:
    """What another library calls the parts of one kind of network."""

    architecture: Architecture
    parts: Mapping[str, str]
    """Our name, below a stage or block where it is in one, to theirs: {i} is the stage and {j} the
    block, both from 0, {next} is i + 1, {even} 2i, {odd} 2i + 1."""
    linear: frozenset[str] = frozenset()
    """Our 1x1 convolutions that they write as linear layers."""

    def has(self, architecture: Architecture) -> bool:
        return not set(architecture.difference(self.architecture)) - {
            "depths",
            "width",
            "num_classes",
        }

    def name(self, key: str) -> str:
        """Theirs for a key of our state dict."""
        i, j, part, leaf = _place(key)
        return self.parts[part].format(i=i, j=j, next=i + 1, even=2 * i, odd=2 * i + 1) + leaf

    def shaped(self, key: str, value: Tensor) -> Tensor:
        """`value` of our state dict in the shape that they give it."""
        _, _, part, leaf = _place(key)
        if part in self.linear and leaf == ".weight":
            return value.flatten(1)
        return value.flatten() if self.name(key).endswith(".gamma") else value


_BLOCK = re.compile(r"stages\.\d+\.block\d+\.")
_PLACE = re.compile(r"(?:stages\.(\d+)\.)?(?:block(\d+)\.)?(.*?)(\.[^.]+)?")


def _place(key: str) -> tuple[int, int, str, str]:
    """Stage and block, both from 0, the part in it, and the parameter, with a dot, of that part."""
    found = _PLACE.fullmatch(key)
    assert found
    stage, block, part, leaf = found.groups()
    return int(stage or 0), int(block or 1) - 1, part, leaf or ""


_RESNET = Architecture()
_CONVNEXT = Architecture(
    stem="patchify",
    depthwise=True,
    inverted_bottleneck=True,
    depthwise_first=True,
    kernel_size=7,
    activation="gelu",
    fewer_activations=True,
    fewer_norms=True,
    norm="layer",
    separate_downsampling=True,
)
_INCEPTION_NEXT = replace(
    _CONVNEXT,
    spatial="inception",
    kernel_size=11,
    norm="batch",
    all_biases=True,
    expansion=(4, 4, 4, 3),
    head="mlp",
)
_TWO_LINEAR = frozenset({"branch.conv2", "branch.conv3"})

_RESNET_PARTS = {
    "stem.conv": "conv1",
    "stem.norm": "bn1",
    **{f"branch.conv{k}": f"layer{{next}}.{{j}}.conv{k}" for k in (1, 2, 3)},
    **{f"branch.norm{k}": f"layer{{next}}.{{j}}.bn{k}" for k in (1, 2, 3)},
    "shortcut.conv": "layer{next}.{j}.downsample.0",
    "shortcut.norm": "layer{next}.{j}.downsample.1",
    "head": "fc",
}
_SE_PARTS = {f"branch.end.conv{k}": f"layer{{next}}.{{j}}.se.fc{k}" for k in (1, 2)}
_TORCHVISION_PARTS = {
    "stem.conv": "features.0.0",
    "stem.norm": "features.0.1",
    "downsample.norm": "features.{even}.0",
    "downsample.conv": "features.{even}.1",
    "branch.conv1": "features.{odd}.{j}.block.0",
    "branch.norm1": "features.{odd}.{j}.block.2",
    "branch.conv2": "features.{odd}.{j}.block.3",
    "branch.conv3": "features.{odd}.{j}.block.5",
    "layer_scale": "features.{odd}.{j}.layer_scale",
    "norm": "classifier.0",
    "head": "classifier.2",
}
_RELEASE_PARTS = {
    "stem.conv": "downsample_layers.0.0",
    "stem.norm": "downsample_layers.0.1",
    "downsample.norm": "downsample_layers.{i}.0",
    "downsample.conv": "downsample_layers.{i}.1",
    "branch.conv1": "stages.{i}.{j}.dwconv",
    "branch.norm1": "stages.{i}.{j}.norm",
    "branch.conv2": "stages.{i}.{j}.pwconv1",
    "branch.conv3": "stages.{i}.{j}.pwconv2",
    "layer_scale": "stages.{i}.{j}.gamma",
    "norm": "norm",
    "head": "head",
}
_TIMM_PARTS = {
    "stem.conv": "stem.0",
    "stem.norm": "stem.1",
    "downsample.norm": "stages.{i}.downsample.0",
    "downsample.conv": "stages.{i}.downsample.1",
    "branch.conv1": "stages.{i}.blocks.{j}.conv_dw",
    "branch.norm1": "stages.{i}.blocks.{j}.norm",
    "branch.conv2": "stages.{i}.blocks.{j}.mlp.fc1",
    "branch.conv3": "stages.{i}.blocks.{j}.mlp.fc2",
    "layer_scale": "stages.{i}.blocks.{j}.gamma",
    "norm": "head.norm",
    "head": "head.fc",
}
_V2_PARTS = {name: theirs for name, theirs in _TIMM_PARTS.items() if name != "layer_scale"}
_V2_PARTS["branch.before_last"] = "stages.{i}.blocks.{j}.mlp.grn"
_INCEPTION_PARTS = {
    "branch.conv1.square": "stages.{i}.blocks.{j}.token_mixer.dwconv_hw",
    "branch.conv1.wide": "stages.{i}.blocks.{j}.token_mixer.dwconv_w",
    "branch.conv1.tall": "stages.{i}.blocks.{j}.token_mixer.dwconv_h",
    "mlp.conv": "head.fc1",
    "mlp.norm": "head.norm",
    "head": "head.fc2",
}

# timm builds its smallest ConvNeXts (atto to nano) of convolutions unless told conv_mlp=False.
_TABLES: Mapping[Naming, tuple[Table, ...]] = {
    "torchvision": (
        Table(_RESNET, _RESNET_PARTS),
        Table(_CONVNEXT, _TORCHVISION_PARTS, _TWO_LINEAR),
    ),
    "timm": (
        Table(_RESNET, _RESNET_PARTS),
        Table(replace(_RESNET, branch_end="se"), _RESNET_PARTS | _SE_PARTS),
        Table(_CONVNEXT, _TIMM_PARTS, _TWO_LINEAR),
        Table(replace(_CONVNEXT, before_last="grn"), _V2_PARTS, _TWO_LINEAR),
        Table(
            replace(_CONVNEXT, stem="overlap"),
            _TIMM_PARTS | {"stem.conv2": "stem.1", "stem.norm": "stem.2"},
            _TWO_LINEAR,
        ),
        Table(
            replace(_CONVNEXT, activation="star-relu"),
            _TIMM_PARTS | {"branch.activation2": "stages.{i}.blocks.{j}.mlp.act"},
            _TWO_LINEAR,
        ),
        Table(_INCEPTION_NEXT, _TIMM_PARTS | _INCEPTION_PARTS, frozenset({"mlp.conv"})),
    ),
    "release": (Table(_CONVNEXT, _RELEASE_PARTS, _TWO_LINEAR),),
}

# A key that only the naming has, first match wins. torchvision and timm agree on ResNet.
_SIGNS: tuple[tuple[str, Naming], ...] = (
    ("stem.conv.weight", "ours"),
    ("downsample_layers.0.0.weight", "release"),
    ("features.0.0.weight", "torchvision"),
    ("layer1.0.se.fc1.weight", "timm"),
    ("conv1.weight", "torchvision"),
    ("stem.0.weight", "timm"),
)


def detect(state: Mapping[str, object]) -> Naming:
    """The naming of a state dict's keys.

    Raises:
        ValueError: none that is known here.
    """
    for key, naming in _SIGNS:
        if key in state:
            return naming
    some = ", ".join(repr(key) for key in list(state)[:3]) or "none"
    raise ValueError(
        f"these weights have no names known here (keys such as {some}): give those of a run, of "
        "torchvision's or "
        "timm's resnet50 or convnext, or of the ConvNeXt authors' release"
    )


def table(model: nn.Module, naming: Naming) -> Table | None:
    """What the naming calls the parts of `model`; None where its names are ours.

    Raises:
        ValueError: the naming has no network of this architecture.
    """
    architecture = getattr(model, "architecture", None)
    # Swin is torchvision's own module: it has one naming.
    if naming == "ours" or (architecture is None and naming == "torchvision"):
        return None
    for each in _TABLES[naming]:
        if architecture is not None and each.has(architecture):
            return each
    raise ValueError(
        f"{'the release' if naming == 'release' else naming} has no network of this architecture: "
        "only the "
        "baseline (resnet50 of torchvision and timm) and the last step (convnext_tiny, "
        "convnext_base of torchvision, "
        "timm and the authors' release), and timm's seresnet50, convnextv2_tiny, "
        "inception_next_tiny and their like, "
        "can be exchanged with others"
    )


def names(model: nn.Module, naming: Naming) -> dict[str, str]:
    """Our state-dict keys to the naming's, one for one; those of layer scale too where the naming's
    network has one. Where it has none, ours keep their names.

    Raises:
        ValueError: the naming has no network of this architecture.
    """
    keys, found = list(model.state_dict()), table(model, naming)
    if found is None:
        return {key: key for key in keys}
    theirs = {key: found.name(key) for key in keys if not key.endswith(".layer_scale")}
    if "layer_scale" in found.parts:
        scales = dict.fromkeys(
            f"{block.group()}layer_scale" for key in keys if (block := _BLOCK.match(key))
        )
        return theirs | {key: found.name(key) for key in scales}
    return {key: theirs.get(key, key) for key in keys}
