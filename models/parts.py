"""The parts of a block by name: those that are built in, and your own in their place. No torch
until one is registered.

from models import Architecture, parts

parts.register("norm", "rms", RMSNorm)
Architecture(norm="rms")
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from models import source

if TYPE_CHECKING:
    from torch import nn

    from models.architecture import Architecture, SwinArchitecture

BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "stem": ("classic", "patchify", "overlap"),
    "spatial": ("convolution", "inception"),
    "norm": ("batch", "layer"),
    "activation": ("relu", "gelu", "star-relu"),
    "before_last": ("none", "grn"),
    "branch_end": ("none", "se"),
    "head": ("linear", "mlp"),
}
"""Field of `Architecture` to the values that this project knows."""

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "spatial": ("channels", "kernel_size", "stride"),
    "norm": ("channels",),
    "activation": (),
    "before_last": ("channels",),
    "branch_end": ("channels",),
}
"""Fields that take a part of your own, to what it is made from, in this order."""


class NoSuchPart(ValueError):
    """A name that is neither built in nor registered."""


_registered: dict[tuple[str, str], Callable[..., "nn.Module"]] = {}


def register(field: str, name: str, make: Callable[..., "nn.Module"]) -> None:
    """Make `Architecture(**{field: name})` a network with your module in that place; a name given
    again is replaced.

    Args:
        field: norm, activation, spatial (the block's convolution over positions), before_last
            (after the activation, before the last 1x1 convolution) or branch_end (before the branch
            is added to the shortcut).
        name: how architectures, roadmaps and records call it: lower-case letters, digits and
        hyphens. make: called with the values that `ARGUMENTS` names, by position; returns a module
        from (N, C, H, W) to the
            same shape, or, for spatial, to (N, C, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: no such field, a name that cannot be one, or a module of another shape, in one
            sentence.
    """
    if field not in ARGUMENTS:
        raise ValueError(f"{field!r} takes no part of your own: give {' or '.join(ARGUMENTS)}")
    if name in BUILT_IN[field]:
        raise ValueError(f"{field} {name!r} is built in: give your own part another name")
    if (
        not name
        or not name.replace("-", "").isalnum()
        or not name.isascii()
        or name != name.lower()
    ):
        raise ValueError(
            f"{name!r} cannot name a part: give lower-case letters, digits and hyphens, such as "
            "'my-norm'"
        )
    _try(field, name, make)
    _registered[field, name] = make


def choices(field: str) -> tuple[str, ...]:
    """What a field of `Architecture` may be: the built-in values, then those registered, in that
    order."""
    return (*BUILT_IN[field], *(name for there, name in _registered if there == field))


def check(field: str, name: object) -> None:
    """Raise ValueError, in one sentence, unless a field of `Architecture` may be `name`."""
    if name in choices(field):
        return
    given = f"{field} is {name!r}: give {' or '.join(map(repr, choices(field)))}"
    if field not in ARGUMENTS:
        raise ValueError(given)
    raise NoSuchPart(f"{given}, or register your own with models.parts.register")


def own(field: str, name: str) -> Callable[..., "nn.Module"] | None:
    """What makes the registered part of that name; None if it is built in."""
    return _registered.get((field, name))


def used(architecture: "Architecture | SwinArchitecture") -> dict[str, str]:
    """The registered parts that `architecture` has: field to name."""
    values = {field: getattr(architecture, field, "") for field in ARGUMENTS}
    return {field: name for field, name in values.items() if (field, name) in _registered}


def sources(architecture: "Architecture | SwinArchitecture") -> dict[str, str]:
    """The registered parts that `architecture` has: field to a digest of their source.

    For a run's identity: the name of a part does not say what it computes.
    """
    return {field: source_digest(field, name) for field, name in used(architecture).items()}


def source_digest(field: str, name: str) -> str:
    """A digest of what a registered part is, by its source: see `models.source`.

    Raises:
        ValueError: its source cannot be read, in one sentence.
    """
    make: Any = _registered[field, name]
    while isinstance(make, partial):
        make = make.func
    try:
        return source.digest(make)
    except (OSError, TypeError):
        raise ValueError(
            f"the source of {field} {name!r} cannot be read: define it in a file"
        ) from None


def _try(field: str, name: str, make: Callable[..., "nn.Module"]) -> None:
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for stride in (1, 2) if field == "spatial" else (1,):
            values = {"channels": 16, "kernel_size": 3, "stride": stride}
            module = make(*(values[argument] for argument in ARGUMENTS[field]))
            if not isinstance(module, torch.nn.Module):
                raise ValueError(
                    f"{field} {name!r} makes a {type(module).__name__}: make a torch.nn.Module"
                )
            shape, expected = (
                tuple(module(torch.randn(2, 16, 8, 8)).shape),
                (2, 16, 8 // stride, 8 // stride),
            )
            if shape != expected:
                raise ValueError(
                    f"{field} {name!r} turns (2, 16, 8, 8) into {shape} at stride {stride}: "
                    f"make a module that turns it into {expected}"
                )
