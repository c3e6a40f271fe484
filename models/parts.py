"""The parts of a block by name: the built-in ones, and custom ones in their place.

from models import Architecture, parts

parts.register("norm", "rms", RMSNorm)
Architecture(norm="rms")

Importing this module does not import torch.
"""

import ast
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "stem": ("classic", "patchify", "overlap"),
    "spatial": ("convolution", "inception"),
    "norm": ("batch", "layer"),
    "activation": ("relu", "gelu", "star-relu"),
    "before_last": ("none", "grn"),
    "branch_end": ("none", "se"),
    "head": ("linear", "mlp"),
}
"""Field of `Architecture` to its built-in values."""

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "spatial": ("channels", "kernel_size", "stride"),
    "norm": ("channels",),
    "activation": (),
    "before_last": ("channels",),
    "branch_end": ("channels",),
}
"""Fields that take a custom part, to the arguments of its constructor, in this order."""

_registered: dict[tuple[str, str], Callable[..., "nn.Module"]] = {}
_files: dict[tuple[str, str], str] = {}
"""The file that registers a part."""


class NoSuchPart(ValueError):
    """A name that is neither built in nor registered."""


def register(field: str, name: str, make: Callable[..., "nn.Module"]) -> None:
    """Let `Architecture(**{field: name})` use a custom module; a registered name is replaced.

    Args:
        field: norm, activation, spatial (the block's spatial convolution), before_last (after the
            activation, before the last 1x1 convolution) or branch_end (before the addition).
        name: lower-case letters, digits and hyphens.
        make: called with the field's `ARGUMENTS` by position; returns a module from (N, C, H, W) to
            the same shape, or, for spatial, to (N, C, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: no such field, an invalid name, or a module of another shape.
    """
    if field not in ARGUMENTS:
        raise ValueError(f"{field!r} takes no custom part: give {' or '.join(ARGUMENTS)}")
    if name in BUILT_IN[field]:
        raise ValueError(f"{field} {name!r} is built in: give the custom part another name")
    if not re.fullmatch(r"[a-z0-9-]*[a-z0-9][a-z0-9-]*", name):
        raise ValueError(
            f"{name!r} cannot name a part: give lower-case letters, digits and hyphens, such as "
            "'my-norm'"
        )
    _check_shapes(field, name, make)
    _registered[field, name] = make
    _files[field, name] = sys._getframe(1).f_code.co_filename


def choices(field: str) -> tuple[str, ...]:
    """Return the valid values of a field of `Architecture`: built in, then registered."""
    return (*BUILT_IN[field], *(name for key, name in _registered if key == field))


def check(field: str, name: object) -> None:
    """Raise ValueError unless `name` is a valid value of the field of `Architecture`."""
    if name in choices(field):
        return
    message = f"{field} is {name!r}: give {' or '.join(map(repr, choices(field)))}"
    if field not in ARGUMENTS:
        raise ValueError(message)
    raise NoSuchPart(f"{message}, or register a custom part with models.parts.register")


def custom(field: str, name: str) -> Callable[..., "nn.Module"] | None:
    """Return the constructor of the registered part of that name; None if it is built in."""
    return _registered.get((field, name))


def used(architecture: object) -> dict[str, str]:
    """Return the custom parts of `architecture`: field to name."""
    values = {field: getattr(architecture, field, "") for field in ARGUMENTS}
    return {field: name for field, name in values.items() if custom(field, name)}


def sources(architecture: object) -> dict[str, str]:
    """Return the custom parts of `architecture`: field to a digest of the source.

    A run's identity needs it, because the name of a part does not determine what it computes.

    Raises:
        ValueError: the source of a part cannot be read.
    """
    digests = {}
    for field, name in used(architecture).items():
        try:
            digests[field] = source_digest(_registered[field, name])
        except (OSError, TypeError):
            raise ValueError(
                f"the source of {field} {name!r} cannot be read: define it in a file"
            ) from None
    return digests


def records(architecture: object) -> dict[str, dict[str, str]]:
    """Return what a file of weights says of each custom part: field to its file and its source.

    Raises:
        ValueError: see `sources`.
    """
    names = used(architecture)
    return {
        field: {"file": Path(_files[field, names[field]]).name, "source": source}
        for field, source in sources(architecture).items()
    }


def source_digest(part: Any) -> str:
    """sha256 (16 hex digits) of `part` and of all that it uses of its file, without comments.

    An imported helper counts as the line that imports it.

    Raises:
        OSError, TypeError: the source cannot be read.
    """
    while isinstance(part, partial):
        part = part.func
    if isinstance(part, type):  # a class of a notebook's cell is located by its methods only
        part = vars(part).get("forward", part)
    lines, line = inspect.findsource(inspect.unwrap(part))
    statements = ast.parse("".join(lines)).body
    reached = [each for each in statements if _first_line(each) <= line + 1 <= _last_line(each)]
    if not reached:
        raise OSError("no statement at the line of its definition")
    for statement in reached:  # the list grows while it is read
        names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
        reached += [s for s in statements if s not in reached and names & _defined_names(s)]
    text = "\n".join(ast.unparse(each) for each in statements if each in reached)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(each.lineno for each in decorators)])


def _last_line(statement: ast.stmt) -> int:
    return statement.end_lineno or 0


def _defined_names(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    nodes = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, ast.Store)}


def _check_shapes(field: str, name: str, make: Callable[..., "nn.Module"]) -> None:
    import torch

    for stride in (1, 2) if field == "spatial" else (1,):
        values = {"channels": 16, "kernel_size": 3, "stride": stride}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            module = make(*(values[argument] for argument in ARGUMENTS[field]))
            if not isinstance(module, torch.nn.Module):
                raise ValueError(
                    f"{field} {name!r} makes a {type(module).__name__}: make a torch.nn.Module"
                )
            shape = tuple(module(torch.randn(2, 16, 8, 8)).shape)
        expected = (2, 16, 8 // stride, 8 // stride)
        if shape != expected:
            raise ValueError(
                f"{field} {name!r} turns (2, 16, 8, 8) into {shape} at stride {stride}: make a "
                f"module that turns it into {expected}"
            )
