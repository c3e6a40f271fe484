"""Weights to and from other libraries, for the two networks of the roadmap that others also have.

The baseline (any bottleneck ResNet) is torchvision's and timm's `resnet50`; the last step (any ConvNeXt) is
torchvision's and timm's `convnext_tiny`, `convnext_base` ... and the network that the paper's authors released. A
naming is a set of names for the same tensors; shapes differ only where another library writes a 1x1 convolution as a
linear layer, or layer scale without its two broadcasting dimensions.

A network with layer scale takes weights without one (its factors become 1), and one without takes weights with one
(the factors are folded into the last convolution of each branch): both compute the same function.
"""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from models.architecture import Architecture
from models.resnet import ResNet

Naming = Literal["ours", "torchvision", "timm", "release"]
"""Whose names: this project's, torchvision's, timm's, or those of the paper's authors' published checkpoints."""

_BASELINE = Architecture()
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
_FREE = {"depths", "width", "num_classes"}

# A key that only the naming has, first match wins. torchvision and timm agree on ResNet.
_SIGNS: tuple[tuple[str, Naming], ...] = (
    ("stem.conv.weight", "ours"),
    ("downsample_layers.0.0.weight", "release"),
    ("features.0.0.weight", "torchvision"),
    ("conv1.weight", "torchvision"),
    ("stem.0.weight", "timm"),
)

# What a naming calls the parts of a ConvNeXt: our name to theirs, {i} the stage and {j} the block, both from 0.
_CONVNEXT_PARTS: Mapping[Naming, Mapping[str, str]] = {
    "torchvision": {
        "stem.conv": "features.0.0",
        "stem.norm": "features.0.1",
        "downsample.norm": "features.{2i}.0",
        "downsample.conv": "features.{2i}.1",
        "conv1": "features.{2i+1}.{j}.block.0",
        "norm1": "features.{2i+1}.{j}.block.2",
        "conv2": "features.{2i+1}.{j}.block.3",
        "conv3": "features.{2i+1}.{j}.block.5",
        "layer_scale": "features.{2i+1}.{j}.layer_scale",
        "norm": "classifier.0",
        "head": "classifier.2",
    },
    "timm": {
        "stem.conv": "stem.0",
        "stem.norm": "stem.1",
        "downsample.norm": "stages.{i}.downsample.0",
        "downsample.conv": "stages.{i}.downsample.1",
        "conv1": "stages.{i}.blocks.{j}.conv_dw",
        "norm1": "stages.{i}.blocks.{j}.norm",
        "conv2": "stages.{i}.blocks.{j}.mlp.fc1",
        "conv3": "stages.{i}.blocks.{j}.mlp.fc2",
        "layer_scale": "stages.{i}.blocks.{j}.gamma",
        "norm": "head.norm",
        "head": "head.fc",
    },
    "release": {
        "stem.conv": "downsample_layers.0.0",
        "stem.norm": "downsample_layers.0.1",
        "downsample.norm": "downsample_layers.{i}.0",
        "downsample.conv": "downsample_layers.{i}.1",
        "conv1": "stages.{i}.{j}.dwconv",
        "norm1": "stages.{i}.{j}.norm",
        "conv2": "stages.{i}.{j}.pwconv1",
        "conv3": "stages.{i}.{j}.pwconv2",
        "layer_scale": "stages.{i}.{j}.gamma",
        "norm": "norm",
        "head": "head",
    },
}


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
        f"these weights have no names known here (keys such as {some}): give those of a run, of torchvision's or "
        "timm's resnet50 or convnext, or of the ConvNeXt authors' release"
    )


def _resnet_prefixes(depths: tuple[int, ...]) -> dict[str, str]:
    prefixes = {"stem.conv": "conv1", "stem.norm": "bn1", "head": "fc"}
    for i, depth in enumerate(depths):
        for j in range(depth):
            ours, theirs = f"stages.{i}.block{j + 1}", f"layer{i + 1}.{j}"
            for k in (1, 2, 3):
                prefixes[f"{ours}.branch.conv{k}"] = f"{theirs}.conv{k}"
                prefixes[f"{ours}.branch.norm{k}"] = f"{theirs}.bn{k}"
            prefixes[f"{ours}.shortcut.conv"] = f"{theirs}.downsample.0"
            prefixes[f"{ours}.shortcut.norm"] = f"{theirs}.downsample.1"
    return prefixes


def _convnext_prefixes(depths: tuple[int, ...], naming: Naming) -> dict[str, str]:
    parts = _CONVNEXT_PARTS[naming]

    def theirs(part: str, i: int = 0, j: int = 0) -> str:
        name = parts[part].replace("{2i}", str(2 * i)).replace("{2i+1}", str(2 * i + 1))
        return name.replace("{i}", str(i)).replace("{j}", str(j))

    prefixes = {part: theirs(part) for part in ("stem.conv", "stem.norm", "norm", "head")}
    for i, depth in enumerate(depths):
        for part in ("downsample.norm", "downsample.conv"):
            prefixes[f"stages.{i}.{part}"] = theirs(part, i)
        for j in range(depth):
            for part in ("conv1", "norm1", "conv2", "conv3"):
                prefixes[f"stages.{i}.block{j + 1}.branch.{part}"] = theirs(part, i, j)
            prefixes[f"stages.{i}.block{j + 1}.layer_scale"] = theirs("layer_scale", i, j)
    return prefixes


def names(model: nn.Module, naming: Naming) -> dict[str, str]:
    """Our state-dict keys to the naming's, one for one. Keys of layer scale are named too where `model` has them.

    Raises:
        ValueError: the naming has no network of this architecture.
    """
    keys = list(model.state_dict())
    architecture = getattr(model, "architecture", None)
    # Swin is torchvision's own module: it has one naming.
    if naming == "ours" or (architecture is None and naming == "torchvision"):
        return {key: key for key in keys}
    different = set() if architecture is None else set(architecture.difference(_BASELINE)) - _FREE
    if architecture is not None and not different and naming != "release":
        prefixes = _resnet_prefixes(architecture.depths)
    elif architecture is not None and not set(architecture.difference(_CONVNEXT)) - _FREE:
        prefixes = _convnext_prefixes(architecture.depths, naming)
    else:
        raise ValueError(
            f"{'the release' if naming == 'release' else naming} has no network of this architecture: only the "
            "baseline (resnet50 of torchvision and timm) and the last step (convnext_tiny, convnext_base of "
            "torchvision, timm and the authors' release) can be exchanged with others"
        )
    found = {}
    for key in keys:
        prefix, _, leaf = key.rpartition(".")
        if key.endswith(".layer_scale"):
            found[key] = prefixes.get(key, key)  # a bottleneck ResNet has none elsewhere
        else:
            found[key] = f"{prefixes[prefix]}.{leaf}"
    return found


@torch.no_grad()
def fold_layer_scale(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same function without layer scale: its factors multiplied into the last convolution of each branch.

    `state` has our names; where the last convolution is followed by a norm, the norm's weight and bias are scaled.
    """
    folded = dict(state)
    for key in [key for key in state if key.endswith(".layer_scale")]:
        branch = key.removesuffix("layer_scale") + "branch."
        if f"{branch}conv3.weight" not in state:
            continue
        factor = folded.pop(key).flatten()
        last = "norm3" if f"{branch}norm3.weight" in state else "conv3"
        weight, bias = f"{branch}{last}.weight", f"{branch}{last}.bias"
        folded[weight] = state[weight] * factor.reshape(-1, *[1] * (state[weight].ndim - 1))
        if bias in state:
            folded[bias] = state[bias] * factor
    return folded


def translate(
    model: nn.Module, state: Mapping[str, Tensor], naming: Naming | None = None, *, new_classifier: bool = False
) -> dict[str, Tensor]:
    """`state` under our names and in the shapes of `model`, for its `load_state_dict`.

    Args:
        naming: found from the keys if none is given.
        new_classifier: keep the classifier of `model` where the number of classes differs.

    Raises:
        ValueError: the keys or shapes are not those of the naming's network of this architecture; names them.
    """
    naming = naming or detect(state)
    to_theirs, own = names(model, naming), model.state_dict()
    ours = {theirs: key for key, theirs in to_theirs.items()}
    if not any(key.endswith(".layer_scale") for key in own) and naming != "ours":
        ours |= {theirs: key for key, theirs in _scale_names(model, naming).items()}
    found = {ours.get(key, f"?{key}" if naming != "ours" else key): value for key, value in state.items()}
    scaled = {key for key in own if key.endswith(".layer_scale")}
    if not scaled and any(key.endswith(".layer_scale") for key in found):
        found = fold_layer_scale(found)
    for key in scaled - found.keys():
        found[key] = torch.ones_like(own[key])
    missing, unknown = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    if missing or unknown:
        problems = [f"{len(missing)} keys are missing, such as {to_theirs[missing[0]]!r}"] if missing else []
        problems += [f"{len(unknown)} are unknown, such as {unknown[0].lstrip('?')!r}"] if unknown else []
        raise ValueError(f"these are weights of another architecture: {' and '.join(problems)}")
    for key, value in own.items():
        there = found[key]
        if tuple(s for s in there.shape if s != 1) == tuple(s for s in value.shape if s != 1):
            found[key] = there.reshape(value.shape)
        elif key.startswith("head.") and there.shape[1:] == value.shape[1:]:
            if not new_classifier:
                raise ValueError(
                    f"these are weights for {len(there)} classes where this network has {len(value)}: build it with "
                    "as many, or start a training from them with --init-weights, which replaces the classifier"
                )
            found[key] = value
        else:
            raise ValueError(
                f"these are weights of another architecture: {to_theirs[key]!r} has shape {tuple(there.shape)} where "
                f"this network needs {tuple(value.shape)}: build it with the same depths and width"
            )
    return found


def _scale_names(model: nn.Module, naming: Naming) -> dict[str, str]:
    """What the layer scale of a ConvNeXt built without one would be called; nothing for other networks."""
    architecture = getattr(model, "architecture", None)
    if architecture is None or set(architecture.difference(_CONVNEXT)) - _FREE:
        return {}
    prefixes = _convnext_prefixes(architecture.depths, naming)
    return {key: name for key, name in prefixes.items() if key.endswith(".layer_scale")}


def load(
    model: nn.Module, state: Mapping[str, Tensor], naming: Naming | None = None, *, new_classifier: bool = False
) -> None:
    """Copy weights under any known names into `model`; see `translate`."""
    model.load_state_dict(translate(model, state, naming, new_classifier=new_classifier))


def export(model: nn.Module, naming: Naming) -> dict[str, Tensor]:
    """The weights of `model` under the naming's names and in its shapes, for the other library's `load_state_dict`.

    A ConvNeXt without layer scale gets one of ones, because the others always have it; a bottleneck ResNet with layer
    scale has it folded, because they never do.

    Raises:
        ValueError: the naming has no network of this architecture.
    """
    if naming not in get_args(Naming):
        raise ValueError(f"there is no naming {naming!r}: choose {', '.join(get_args(Naming))}")
    own = {key: value.detach() for key, value in model.state_dict().items()}
    to_theirs = names(model, naming)
    if naming == "ours":
        return own
    ones = _scale_names(model, naming)
    if ones:
        to_theirs |= ones
        for key in ones.keys() - own.keys():
            last = own[key.replace("layer_scale", "branch.conv3.weight")]
            own[key] = torch.ones(len(last), 1, 1, dtype=last.dtype, device=last.device)
    else:
        own = fold_layer_scale(own)
    return {to_theirs[key]: _shaped(to_theirs[key], value) for key, value in own.items()}


# Parts that others write as linear layers.
_LINEAR = (".block.3.weight", ".block.5.weight", ".fc1.weight", ".fc2.weight", ".pwconv1.weight", ".pwconv2.weight")


def _shaped(name: str, value: Tensor) -> Tensor:
    if name.endswith(_LINEAR):
        return value.flatten(1)
    return value.flatten() if name.endswith(".gamma") else value


def torchvision_names(model: ResNet) -> dict[str, str]:
    """Our state-dict keys to torchvision's; see `names`."""
    return names(model, "torchvision")


def load_torchvision(model: ResNet, state: Mapping[str, Tensor]) -> None:
    """Copy the weights of torchvision's resnet50 or convnext (its `state_dict()`) into `model`; see `translate`."""
    load(model, state, "torchvision")


def to_torchvision(model: ResNet) -> dict[str, Tensor]:
    """The weights of `model` for torchvision's resnet50 or convnext; see `export`."""
    return export(model, "torchvision")
