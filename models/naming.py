"""The names that torchvision, timm and the paper's authors give to the weights of shared networks.

The baseline (any bottleneck ResNet) is torchvision's and timm's `resnet50`; the last step (any
ConvNeXt) is their `convnext_tiny`, `convnext_base` ... and the authors' release. timm also has
`convnextv2_tiny`, `inception_next_tiny`, `seresnet50` and `convnext_nano_ols`. Shapes differ only
where another library writes a 1x1 convolution as a linear layer, or layer scale as a vector.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from models.architecture import Architecture

Naming = Literal["ours", "torchvision", "timm", "release"]
"""The source of the names: this project, torchvision, timm, or the authors' checkpoints."""

_KEY = re.compile(r"(?:stages\.(\d+)\.)?(?:block(\d+)\.)?(.*?)(\.[^.]+)?")
_BLOCK = re.compile(r"stages\.\d+\.block\d+\.")


@dataclass(frozen=True)
class Table:
    """Another library's names for the weights of one kind of network."""

    architecture: Architecture
    parts: Mapping[str, str]
    """Our name in a stage or block to theirs: {i} is the stage and {j} the block, both from 0,
    {next} is i + 1, {even} 2i, {odd} 2i + 1."""
    linear: tuple[str, ...] = ()
    """Our 1x1 convolutions that are linear layers there."""

    def fits(self, architecture: Architecture) -> bool:
        size = {"depths", "width", "num_classes"}
        return not architecture.difference(self.architecture).keys() - size

    def name(self, key: str) -> str:
        """Their name for a key of our state dict."""
        i, j, part, leaf = _split(key)
        name = self.parts.get(part + leaf) or self.parts[part] + leaf
        return name.format(i=i, j=j, next=i + 1, even=2 * i, odd=2 * i + 1)

    def reshape(self, key: str, value: Tensor) -> Tensor:
        """`value` of our state dict in their shape."""
        _, _, part, leaf = _split(key)
        if part in self.linear and leaf == ".weight":
            return value.flatten(1)
        if self.name(key).endswith((".grn.gamma", ".grn.beta")):
            return value.reshape(1, 1, 1, -1)
        return value.flatten() if self.name(key).endswith(".gamma") else value


def _split(key: str) -> tuple[int, int, str, str]:
    """Stage and block, both from 0, the part in it, and the part's parameter with a dot."""
    match = _KEY.fullmatch(key)
    assert match
    stage, block, part, leaf = match.groups()
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
# Ours, torchvision's, timm's and the release's.
_CONVNEXT_NAMES = (
    ("stem.conv", "features.0.0", "stem.0", "downsample_layers.0.0"),
    ("stem.norm", "features.0.1", "stem.1", "downsample_layers.0.1"),
    ("downsample.norm", "features.{even}.0", "stages.{i}.downsample.0", "downsample_layers.{i}.0"),
    ("downsample.conv", "features.{even}.1", "stages.{i}.downsample.1", "downsample_layers.{i}.1"),
    ("branch.conv1", "BLOCK.block.0", "BLOCK.conv_dw", "BLOCK.dwconv"),
    ("branch.norm1", "BLOCK.block.2", "BLOCK.norm", "BLOCK.norm"),
    ("branch.conv2", "BLOCK.block.3", "BLOCK.mlp.fc1", "BLOCK.pwconv1"),
    ("branch.conv3", "BLOCK.block.5", "BLOCK.mlp.fc2", "BLOCK.pwconv2"),
    ("layer_scale", "BLOCK.layer_scale", "BLOCK.gamma", "BLOCK.gamma"),
    ("norm", "classifier.0", "head.norm", "norm"),
    ("head", "classifier.2", "head.fc", "head"),
)
_TORCHVISION_PARTS, _TIMM_PARTS, _RELEASE_PARTS = (
    {row[0]: row[column].replace("BLOCK", block) for row in _CONVNEXT_NAMES}
    for column, block in enumerate(
        ("features.{odd}.{j}", "stages.{i}.blocks.{j}", "stages.{i}.{j}"), start=1
    )
)
_V2_PARTS = {ours: theirs for ours, theirs in _TIMM_PARTS.items() if ours != "layer_scale"}
_V2_PARTS["branch.before_last"] = "stages.{i}.blocks.{j}.mlp.grn"
_V2_RELEASE_PARTS = {
    "branch.before_last.weight": "stages.{i}.{j}.grn.gamma",
    "branch.before_last.bias": "stages.{i}.{j}.grn.beta",
    **{ours: theirs for ours, theirs in _RELEASE_PARTS.items() if ours != "layer_scale"},
}
_OVERLAP_PARTS = _TIMM_PARTS | {"stem.conv2": "stem.1", "stem.norm": "stem.2"}
_STAR_RELU_PARTS = _TIMM_PARTS | {"branch.activation2": "stages.{i}.blocks.{j}.mlp.act"}
_INCEPTION_PARTS = _TIMM_PARTS | {
    "branch.conv1.square": "stages.{i}.blocks.{j}.token_mixer.dwconv_hw",
    "branch.conv1.wide": "stages.{i}.blocks.{j}.token_mixer.dwconv_w",
    "branch.conv1.tall": "stages.{i}.blocks.{j}.token_mixer.dwconv_h",
    "mlp.conv": "head.fc1",
    "mlp.norm": "head.norm",
    "head": "head.fc2",
}
_LINEAR = ("branch.conv2", "branch.conv3")

# timm builds its smallest ConvNeXts (atto to nano) of convolutions, unless conv_mlp=False.
_TABLES: Mapping[Naming, tuple[Table, ...]] = {
    "ours": (),
    "torchvision": (Table(_RESNET, _RESNET_PARTS), Table(_CONVNEXT, _TORCHVISION_PARTS, _LINEAR)),
    "timm": (
        Table(_RESNET, _RESNET_PARTS),
        Table(replace(_RESNET, branch_end="se"), _RESNET_PARTS | _SE_PARTS),
        Table(_CONVNEXT, _TIMM_PARTS, _LINEAR),
        Table(replace(_CONVNEXT, before_last="grn"), _V2_PARTS, _LINEAR),
        Table(replace(_CONVNEXT, stem="overlap"), _OVERLAP_PARTS, _LINEAR),
        Table(replace(_CONVNEXT, activation="star-relu"), _STAR_RELU_PARTS, _LINEAR),
        Table(_INCEPTION_NEXT, _INCEPTION_PARTS, ("mlp.conv",)),
    ),
    "release": (
        Table(_CONVNEXT, _RELEASE_PARTS, _LINEAR),
        Table(replace(_CONVNEXT, before_last="grn"), _V2_RELEASE_PARTS, _LINEAR),
    ),
}

# A key that only the naming has; the first match wins. torchvision and timm agree on ResNet.
_SIGNS: Mapping[str, Naming] = {
    "stem.conv.weight": "ours",
    "downsample_layers.0.0.weight": "release",
    "features.0.0.weight": "torchvision",
    "layer1.0.se.fc1.weight": "timm",
    "conv1.weight": "torchvision",
    "stem.0.weight": "timm",
}


_WRAPPERS = re.compile(r"\b(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "network.", "net.")


def is_known(state: Mapping[str, object]) -> bool:
    """True if the keys of a state dict have names known here."""
    return any(key in state for key in _SIGNS)


def without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `state` without what torch.compile, DDP, FSDP or a module around it put into keys."""
    state = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    for _ in range(3):
        for prefix in _PREFIXES:
            if not is_known(state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def detect(state: Mapping[str, object]) -> Naming:
    """Return the naming of a state dict's keys.

    Raises:
        ValueError: it is none of those known here.
    """
    for key, naming in _SIGNS.items():
        if key in state:
            return naming
    some = ", ".join(repr(key) for key in list(state)[:3]) or "none"
    raise ValueError(
        f"these weights have no names known here (keys such as {some}): give those of a run, of "
        "torchvision's or timm's resnet50 or convnext, or of the ConvNeXt authors' release"
    )


def table(model: nn.Module, naming: Naming) -> Table | None:
    """Return the naming's table for `model`; None where its names are ours.

    Raises:
        ValueError: the naming has no network of this architecture.
    """
    architecture = getattr(model, "architecture", None)
    # Swin is torchvision's own module and has one naming.
    if naming == "ours" or (architecture is None and naming == "torchvision"):
        return None
    for each in _TABLES[naming]:
        if architecture is not None and each.fits(architecture):
            return each
    raise ValueError(
        f"{'the release' if naming == 'release' else naming} has no network of this architecture: "
        "only the baseline (resnet50 of torchvision and timm), the last step (convnext_tiny, "
        "convnext_base of torchvision, timm and the authors' release) and timm's seresnet50, "
        "convnextv2_tiny, inception_next_tiny and their like can be exchanged"
    )


def names(model: nn.Module, naming: Naming) -> dict[str, str]:
    """Return our state-dict keys, one for one, with the naming's.

    Keys of layer scale are added where the naming's network has one; where it has none, ours keep
    their names.

    Raises:
        ValueError: the naming has no network of this architecture.
    """
    keys, theirs = list(model.state_dict()), table(model, naming)
    if theirs is None:
        return {key: key for key in keys}
    if "layer_scale" in theirs.parts:
        blocks = [match.group() for key in keys if (match := _BLOCK.match(key))]
        keys = list(dict.fromkeys([*keys, *(f"{block}layer_scale" for block in blocks)]))
        return {key: theirs.name(key) for key in keys}
    return {key: key if key.endswith(".layer_scale") else theirs.name(key) for key in keys}
