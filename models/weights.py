"""Weight files, and weights to and from other libraries for the networks that they also have.

Files are safetensors, or torch files of tensors only; nothing in a file is executed. A network with
layer scale takes weights without one (its factors become 1), and one without takes weights with one
(the factors are folded into the last convolution of each branch): both compute the same function.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from models.naming import Naming, detect, is_known, names, table, without_prefixes

_AVERAGE = re.compile(r"ema|average|avg|swa")
_USUAL = (
    "argparse.Namespace",
    "pathlib.PosixPath",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
"""Classes and functions, besides tensors, in checkpoints of a format that cannot list them."""


class _Skipped:
    """In place of an object that is no tensor, whatever its class: nothing of it is run."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


def read(path: Path, key: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a weight file by name, on the CPU, without prefixes of wrappers.

    Args:
        key: which of several sets of weights to read, such as "model_ema"; by default the first
            that is no moving average.

    Returns:
        The weights, and a note on the choice where there are several sets.

    Raises:
        ValueError: no such file or set, or no weights that can be read without running code.
    """
    sets = _read_sets(path)
    if key is None:
        key = next((name for name in sets if not _AVERAGE.search(name)), next(iter(sets)))
    if key not in sets:
        some = " or ".join(filter(None, sets)) or "no --init-key"
        raise ValueError(f"{path} holds no weights under {key!r}: give {some}")
    note = f"holds {', '.join(sets)}: {key} is used (--init-key)" if len(sets) > 1 else ""
    return sets[key], note


def _read_sets(path: Path) -> dict[str, dict[str, Tensor]]:
    _require_file(path)
    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{" or path.suffix == ".safetensors"
    try:
        content = load_file(path) if is_safetensors else _unpickle(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error}): give it as written") from None
    except Exception as error:  # an unpickler raises anything
        blocked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it would run {blocked[1]}" if blocked else "it is no whole torch file"
        raise ValueError(
            f"{path} cannot be read as weights alone, {reason}: give a .safetensors file, or a "
            "state_dict() that torch.save wrote"
        ) from None
    sets = dict(_tensor_sets(content))
    known = {name: state for name, state in sets.items() if is_known(state)}
    if not sets:
        raise ValueError(
            f"{path} holds no dict of tensors: give one, alone or under a key such as "
            '"model" or "state_dict"; of a whole module that torch.save wrote, its state_dict()'
        )
    return known or sets


def _unpickle(path: Path) -> object:
    try:
        others = get_unsafe_globals_in_checkpoint(path)
    except ValueError:  # written before torch 1.6
        others = []
    skipped: list[Any] = [(_Skipped, name) for name in {*others, *_USUAL}]
    with safe_globals(skipped):
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensor_sets(content: object, name: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield each dict of tensors in `content`, with its keys joined by dots."""
    if not isinstance(content, dict) or name.count(".") > 2:
        return
    if content and all(isinstance(value, Tensor) for value in content.values()):
        yield name, without_prefixes({str(key): value for key, value in content.items()})
        return
    for key, value in content.items():
        yield from _tensor_sets(value, f"{name}.{key}" if name else str(key))


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
) -> tuple[dict[str, Tensor], list[str]]:
    """Return `state` under our names and in the shapes of `model`, for its `load_state_dict`.

    Counters of batch norm, which old files lack, are 0.

    Args:
        naming: detected from the keys if None.
        new_classifier: keep the classifier of `model` where `state` has none or one for another
            number of classes, and leave out other heads.

    Returns:
        The weights, and a note on each thing that is not as in `state`.

    Raises:
        ValueError: the keys or shapes are not those of the naming's network of this architecture.
    """
    naming = naming or detect(state)
    theirs, expected = names(model, naming), model.state_dict()
    ours = {name: key for key, name in theirs.items()}
    mark = "" if naming == "ours" else "?"  # an unknown name may be one of ours
    result = {ours.get(name, mark + name): value for name, value in state.items()}
    if not any(key.endswith(".layer_scale") for key in expected):
        result = fold_layer_scale(result, model)
    for key in expected.keys() - result.keys():
        if key.endswith(".layer_scale"):
            result[key] = torch.ones_like(expected[key])
        if key.endswith(".num_batches_tracked"):
            result[key] = torch.zeros_like(expected[key])
    unknown = [name.removeprefix("?") for name in result if name not in expected]
    notes = []
    if new_classifier:
        notes = _start_classifier(result, unknown, expected, theirs)
    _require_none([theirs[key] for key in expected.keys() - result.keys()], "missing")
    _require_none(unknown, "unknown")
    for key, value in expected.items():
        result[key] = _reshaped(result[key], value, key, theirs[key])
    return {key: result[key] for key in expected}, notes


def _require_none(keys: Collection[str], what: str) -> None:
    if keys:
        raise ValueError(
            f"these are weights of another architecture: {len(keys)} keys are {what}, such as "
            f"{min(keys)!r}"
        )


def _reshaped(given: Tensor, expected: Tensor, key: str, name: str) -> Tensor:
    """Return `given` in the shape of `expected`, from which it may differ in sides of 1."""
    if [side for side in given.shape if side != 1] == [s for s in expected.shape if s != 1]:
        return given.reshape(expected.shape)
    if key.startswith("head.") and given.shape[1:] == expected.shape[1:]:
        raise ValueError(
            f"these are weights for {len(given)} classes where this network has {len(expected)}: "
            "build it with as many, or start a training from them with --init-weights, which "
            "replaces the classifier"
        )
    raise ValueError(
        f"these are weights of another architecture: {name!r} has shape {tuple(given.shape)} where "
        f"this network needs {tuple(expected.shape)}: build it with the same depths and width"
    )


def _start_classifier(
    result: dict[str, Tensor],
    unknown: list[str],
    expected: Mapping[str, Tensor],
    theirs: Mapping[str, str],
) -> list[str]:
    """Let `result` have the initial classifier where that of a file does not fit, and drop other
    heads from `unknown`. Returns a note on each."""
    notes = []
    weight, bias = "head.weight", "head.bias"
    if weight not in result and bias not in result:
        notes.append("has no classifier: it starts from random weights")
        for key in expected:
            if key.startswith(("head.", "norm.", "mlp.")):
                result.setdefault(key, expected[key])
    elif {weight, bias} <= result.keys() and len(result[weight]) != len(expected[weight]):
        notes.append(
            f"knows {len(result[weight]):,} classes and this data set has "
            f"{len(expected[weight]):,}: the classifier starts from random weights"
        )
        if result[weight].shape[1:] == expected[weight].shape[1:]:
            result.update({weight: expected[weight], bias: expected[bias]})
    trunk = {name.partition(".")[0] for name in theirs.values()}
    others = [name for name in unknown if name.partition(".")[0] not in trunk]
    if others:
        notes.append(f"has other heads, such as {min(others)!r}, which are left out")
        unknown[:] = [name for name in unknown if name not in others]
    return notes


def load(
    model: nn.Module,
    state: Mapping[str, Tensor],
    naming: Naming | None = None,
    *,
    new_classifier: bool = False,
) -> list[str]:
    """Copy weights under any known names into `model`; returns notes, see `translate`."""
    result, notes = translate(model, state, naming, new_classifier=new_classifier)
    model.load_state_dict(result)
    return notes


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
