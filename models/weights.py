"""Weight files, and weights to and from other libraries for the networks that they also have.

Files are safetensors, or torch files of tensors only; nothing in a file is executed. A network with
layer scale takes weights without one (its factors become 1), and one without takes weights with one
(the factors are folded into the last convolution of each branch): both compute the same function.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.naming import Naming, detect, names, table

_WRAPPERS = ("model", "state_dict", "model_state")
"""Keys under which training codes put the weights; "model" is the ConvNeXt authors'."""


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weight file by name, on the CPU.

    Raises:
        ValueError: no such file, or no weights that can be read without running code from it.
    """
    _require_file(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error}): give it as written") from None
    except Exception as error:  # an unpickler raises anything
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{path} cannot be read as weights alone ({type(error).__name__}: {reason[:150]}): "
            "give a .safetensors file, or a torch file of tensors only"
        ) from None
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    values = content.values() if isinstance(content, dict) else []
    if not values or not all(isinstance(value, Tensor) for value in values):
        raise ValueError(
            f"{path} holds no weights: give a dict of tensors, alone or under "
            '"model" or "state_dict"'
        )
    return {str(key): value for key, value in content.items()}


def sha256(path: Path) -> str:
    """Return the digest of the file's contents, in hex."""
    _require_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require_file(path: Path) -> None:
    if not path.is_file():
        wrong = "are no file" if path.exists() else "do not exist"
        raise ValueError(f"the weights {path} {wrong}: give a .safetensors or a torch file")


@torch.no_grad()
def fold_layer_scale(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Fold layer scale into the last convolution of each branch, or into the norm that follows it.

    Args:
        state: weights under our names.
        model: the network of these weights, or one that differs from it in layer scale only.

    Raises:
        ValueError: something that is not linear lies between the last convolution and layer scale.
    """
    folded = dict(state)
    modules = {k: module for k, module in model.named_modules() if type(module) is not nn.Identity}
    scales = [key for key in state if key.endswith(".layer_scale")]
    for key in scales:
        branch = key.removesuffix("layer_scale") + "branch"
        if f"{branch}.conv3.weight" not in state:
            continue
        last = f"{branch}.norm3" if f"{branch}.norm3" in modules else f"{branch}.conv3"
        if f"{branch}.end" in modules or f"{last}.weight" not in state:
            end = "part such as se" if f"{branch}.end" in modules else "norm without weights"
            raise ValueError(
                f"layer scale cannot be folded into a branch that ends in a {end}: keep it"
            )
        factor = folded.pop(key).flatten()
        weight = state[f"{last}.weight"]
        folded[f"{last}.weight"] = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
        if f"{last}.bias" in state:
            folded[f"{last}.bias"] = state[f"{last}.bias"] * factor
    return folded


def translate(
    model: nn.Module,
    state: Mapping[str, Tensor],
    naming: Naming | None = None,
    *,
    new_classifier: bool = False,
) -> dict[str, Tensor]:
    """Return `state` under our names and in the shapes of `model`, for its `load_state_dict`.

    Args:
        naming: detected from the keys if None.
        new_classifier: keep the classifier of `model` where the number of classes differs.

    Raises:
        ValueError: the keys or shapes are not those of the naming's network of this architecture.
    """
    naming = naming or detect(state)
    theirs, expected = names(model, naming), model.state_dict()
    ours = {name: key for key, name in theirs.items()}
    result = {ours.get(name, f"?{name}"): value for name, value in state.items()}
    if naming == "ours":
        result = dict(state)
    scales = {key for key in expected if key.endswith(".layer_scale")}
    if not scales:
        result = fold_layer_scale(result, model)
    for key in scales - result.keys():
        result[key] = torch.ones_like(expected[key])
    _check_keys(result, expected, theirs)
    for key, value in expected.items():
        given = result[key]
        if [side for side in given.shape if side != 1] == [s for s in value.shape if s != 1]:
            result[key] = given.reshape(value.shape)
        elif not key.startswith("head.") or given.shape[1:] != value.shape[1:]:
            raise ValueError(
                f"these are weights of another architecture: {theirs[key]!r} has shape "
                f"{tuple(given.shape)} where this network needs {tuple(value.shape)}: build it "
                "with the same depths and width"
            )
        elif new_classifier:
            result[key] = value
        else:
            raise ValueError(
                f"these are weights for {len(given)} classes where this network has {len(value)}: "
                "build it with as many, or start a training from them with --init-weights, which "
                "replaces the classifier"
            )
    return result


def _check_keys(
    given: Mapping[str, Tensor], expected: Mapping[str, Tensor], theirs: Mapping[str, str]
) -> None:
    problems = []
    if missing := sorted(expected.keys() - given.keys()):
        problems.append(f"{len(missing)} keys are missing, such as {theirs[missing[0]]!r}")
    if unknown := sorted(given.keys() - expected.keys()):
        problems.append(f"{len(unknown)} are unknown, such as {unknown[0].lstrip('?')!r}")
    if problems:
        raise ValueError(f"these are weights of another architecture: {' and '.join(problems)}")


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
    """Return the weights of `model` for the other library's `load_state_dict`.

    A ConvNeXt without layer scale gets one of ones, because the others always have it; a bottleneck
    ResNet with layer scale has it folded, because they never do.

    Raises:
        ValueError: the naming has no network of this architecture.
    """
    ours = {key: value.detach() for key, value in model.state_dict().items()}
    other = table(model, naming)
    if other is None:
        return ours
    theirs = names(model, naming)
    if "layer_scale" not in other.parts:
        ours = fold_layer_scale(ours, model)
    for key in theirs.keys() - ours.keys() if "layer_scale" in other.parts else ():
        last = ours[key.replace("layer_scale", "branch.conv3.weight")]
        ours[key] = torch.ones(len(last), 1, 1, dtype=last.dtype, device=last.device)
    return {theirs[key]: other.reshape(key, value) for key, value in ours.items()}
