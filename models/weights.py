"""Weights to and from other libraries, for the networks that others also have (models/naming.py).

A network with layer scale takes weights without one (its factors become 1), and one without takes
weights with one (the factors are folded into the last convolution of each branch): both compute the
same function.
"""

from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor, nn

from models.naming import Naming, detect, names, table


@torch.no_grad()
def fold_layer_scale(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same function without layer scale: its factors multiplied into the last convolution of
    each branch.

    `state` has our names; where the last convolution is followed by a norm, the norm's weight and
    bias are scaled. `model` is the network that the weights are of, or one that differs from it in
    layer scale only.

    Raises:
        ValueError: something that is not linear stands between the last convolution and layer
            scale.
    """
    folded = dict(state)
    modules = {
        name: module
        for name, module in model.named_modules()
        if not isinstance(module, nn.Identity)
    }
    ends = any(name.endswith("branch.end") for name in modules)  # a part may have no weights
    for key in [key for key in state if key.endswith(".layer_scale")]:
        branch = key.removesuffix("layer_scale") + "branch."
        if f"{branch}conv3.weight" not in state:
            continue
        if ends:
            raise ValueError(
                "layer scale cannot be folded into a branch that ends in a part such as se: keep it"
            )
        if f"{branch}norm3" in modules and f"{branch}norm3.weight" not in state:
            raise ValueError(
                "layer scale cannot be folded into a branch that ends in a norm without weights: "
                "keep it"
            )
        factor = folded.pop(key).flatten()
        last = "norm3" if f"{branch}norm3.weight" in state else "conv3"
        weight, bias = f"{branch}{last}.weight", f"{branch}{last}.bias"
        folded[weight] = state[weight] * factor.reshape(-1, *[1] * (state[weight].ndim - 1))
        if bias in state:
            folded[bias] = state[bias] * factor
    return folded


def translate(
    model: nn.Module,
    state: Mapping[str, Tensor],
    naming: Naming | None = None,
    *,
    new_classifier: bool = False,
) -> dict[str, Tensor]:
    """`state` under our names and in the shapes of `model`, for its `load_state_dict`.

    Args:
        naming: found from the keys if none is given.
        new_classifier: keep the classifier of `model` where the number of classes differs.

    Raises:
        ValueError: the keys or shapes are not those of the naming's network of this architecture;
            names them.
    """
    naming = naming or detect(state)
    to_theirs, own = names(model, naming), model.state_dict()
    ours = {theirs: key for key, theirs in to_theirs.items()}
    found = {
        ours.get(key, f"?{key}" if naming != "ours" else key): value for key, value in state.items()
    }
    scaled = {key for key in own if key.endswith(".layer_scale")}
    if not scaled and any(key.endswith(".layer_scale") for key in found):
        found = fold_layer_scale(found, model)
    for key in scaled - found.keys():
        found[key] = torch.ones_like(own[key])
    missing, unknown = sorted(own.keys() - found.keys()), sorted(found.keys() - own.keys())
    if missing or unknown:
        problems = (
            [f"{len(missing)} keys are missing, such as {to_theirs[missing[0]]!r}"]
            if missing
            else []
        )
        problems += (
            [f"{len(unknown)} are unknown, such as {unknown[0].lstrip('?')!r}"] if unknown else []
        )
        raise ValueError(f"these are weights of another architecture: {' and '.join(problems)}")
    for key, value in own.items():
        there = found[key]
        if tuple(s for s in there.shape if s != 1) == tuple(s for s in value.shape if s != 1):
            found[key] = there.reshape(value.shape)
        elif key.startswith("head.") and there.shape[1:] == value.shape[1:]:
            if not new_classifier:
                raise ValueError(
                    f"these are weights for {len(there)} classes where this network has "
                    f"{len(value)}: build it with "
                    "as many, or start a training from them with --init-weights, which replaces "
                    "the classifier"
                )
            found[key] = value
        else:
            raise ValueError(
                f"these are weights of another architecture: {to_theirs[key]!r} has shape "
                f"{tuple(there.shape)} where "
                f"this network needs {tuple(value.shape)}: build it with the same depths and width"
            )
    return found


def load(
    model: nn.Module,
    state: Mapping[str, Tensor],
    naming: Naming | None = None,
    *,
    new_classifier: bool = False,
) -> None:
    """Copy weights under any known names into `model`; see `translate`."""
    model.load_state_dict(translate(model, state, naming, new_classifier=new_classifier))


def export(model: nn.Module, naming: Naming) -> dict[str, Tensor]:
    """The weights of `model` under the naming's names and in its shapes, for the other library's
    `load_state_dict`.

    A ConvNeXt without layer scale gets one of ones, because the others always have it; a bottleneck
    ResNet with layer scale has it folded, because they never do.

    Raises:
        ValueError: the naming has no network of this architecture.
    """
    if naming not in get_args(Naming):
        raise ValueError(f"there is no naming {naming!r}: choose {', '.join(get_args(Naming))}")
    own = {key: value.detach() for key, value in model.state_dict().items()}
    found = table(model, naming)
    if found is None:
        return own
    to_theirs = names(model, naming)
    if "layer_scale" in found.parts:
        for key in to_theirs.keys() - own.keys():
            last = own[key.replace("layer_scale", "branch.conv3.weight")]
            own[key] = torch.ones(len(last), 1, 1, dtype=last.dtype, device=last.device)
    else:
        own = fold_layer_scale(own, model)
    return {to_theirs[key]: found.shaped(key, value) for key, value in own.items()}
