"""Weights to and from torchvision, for the two networks of the roadmap that torchvision also has.

The baseline is torchvision's resnet50 (any bottleneck ResNet), the last step its convnext_tiny (any ConvNeXt). Names
are translated one to one; shapes differ only where torchvision writes a 1x1 convolution as a linear layer.
"""

from collections.abc import Mapping
from typing import cast

from torch import Tensor

from models.architecture import Architecture
from models.resnet import Block, ResNet

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


def _resnet_prefixes(model: ResNet) -> dict[str, str]:
    prefixes = {"stem.conv": "conv1", "stem.norm": "bn1", "head": "fc"}
    for i, depth in enumerate(model.architecture.depths):
        for j in range(depth):
            ours, theirs = f"stages.{i}.block{j + 1}", f"layer{i + 1}.{j}"
            for k in (1, 2, 3):
                prefixes[f"{ours}.branch.conv{k}"] = f"{theirs}.conv{k}"
                prefixes[f"{ours}.branch.norm{k}"] = f"{theirs}.bn{k}"
            prefixes[f"{ours}.shortcut.conv"] = f"{theirs}.downsample.0"
            prefixes[f"{ours}.shortcut.norm"] = f"{theirs}.downsample.1"
    return prefixes


def _convnext_prefixes(model: ResNet) -> dict[str, str]:
    prefixes = {
        "stem.conv": "features.0.0",
        "stem.norm": "features.0.1",
        "norm": "classifier.0",
        "head": "classifier.2",
    }
    for i, depth in enumerate(model.architecture.depths):
        prefixes[f"stages.{i}.downsample.norm"] = f"features.{2 * i}.0"
        prefixes[f"stages.{i}.downsample.conv"] = f"features.{2 * i}.1"
        for j in range(depth):
            ours, theirs = f"stages.{i}.block{j + 1}", f"features.{2 * i + 1}.{j}"
            prefixes[ours] = theirs  # layer_scale
            for name, place in (("conv1", 0), ("norm1", 2), ("conv2", 3), ("conv3", 5)):
                prefixes[f"{ours}.branch.{name}"] = f"{theirs}.block.{place}"
    return prefixes


def torchvision_names(model: ResNet) -> dict[str, str]:
    """Our state-dict keys to torchvision's, one for one.

    Raises:
        ValueError: torchvision has no network of this architecture, or it has one only with layer scale.
    """
    architecture = model.architecture
    if not architecture.difference(_BASELINE).keys() - _FREE:
        prefixes, scaled = _resnet_prefixes(model), False
    elif not architecture.difference(_CONVNEXT).keys() - _FREE:
        prefixes, scaled = _convnext_prefixes(model), True
    else:
        raise ValueError(
            "torchvision has no network of this architecture: only the baseline (its resnet50) and the last step "
            "(its convnext_tiny, convnext_base) can be exchanged with it"
        )
    block = cast(Block, model.get_submodule("stages.0.block1"))
    if (block.layer_scale is not None) != scaled:
        state = "needs a layer scale, as in torchvision's convnext" if scaled else "must have no layer scale"
        raise ValueError(f"to exchange weights with torchvision this network {state}: build it with the right one")
    names = {}
    for key in model.state_dict():
        prefix, _, leaf = key.rpartition(".")
        names[key] = f"{prefixes[prefix]}.{leaf}"
    return names


def load_torchvision(model: ResNet, state: Mapping[str, Tensor]) -> None:
    """Copy the weights of torchvision's resnet50 or convnext (its `state_dict()`) into `model`.

    Raises:
        ValueError: the keys or shapes are not those of torchvision's network of this architecture.
    """
    names = torchvision_names(model)
    missing, unexpected = names.values() - state.keys(), state.keys() - set(names.values())
    if missing or unexpected:
        odd = sorted(missing or unexpected)[0]
        raise ValueError(
            f"these are not torchvision's weights for this architecture: {len(missing)} keys are missing and "
            f"{len(unexpected)} unknown, the first is {odd!r}"
        )
    translated = {}
    for key, value in model.state_dict().items():
        theirs = state[names[key]]
        if theirs.numel() != value.numel() or theirs.squeeze().shape != value.squeeze().shape:
            raise ValueError(
                f"{names[key]!r} has shape {tuple(theirs.shape)} where this network needs {tuple(value.shape)}: "
                "build it with the same depths, width and number of classes"
            )
        translated[key] = theirs.reshape(value.shape)
    model.load_state_dict(translated)


def to_torchvision(model: ResNet) -> dict[str, Tensor]:
    """The weights of `model` under torchvision's names and in its shapes, for its `load_state_dict`."""
    state = {}
    for key, name in torchvision_names(model).items():
        value = model.state_dict()[key]
        is_linear_there = name.endswith((".block.3.weight", ".block.5.weight"))
        state[name] = value.flatten(1) if is_linear_there else value
    return state
