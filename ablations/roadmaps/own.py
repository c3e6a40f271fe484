"""Roadmaps of your own: data in a TOML file, of which nothing is executed, or Python where steps
need new code."""

import importlib.util
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.roadmap import Roadmap
from ablations.roadmaps.paper import PAPER
from ablations.step import RecipeOf, Step
from utils.text import did_you_mean

TAKEN = ("paper", "recipe", "beyond")
"""Names of this suite's own roadmaps."""
_ROADMAP = ("name", "description", "start", "step")
_STEP = (
    "name",
    "description",
    "source",
    "group",
    "after",
    "off_path",
    "architecture",
    "recipe",
    "sizes",
    "needs",
)
_TABLES = ("architecture", "recipe", "sizes")
_RENAMED = {"sentence": "description", "beside": "off_path"}
"""Fields of older files, and what they are called now."""


def read(path: Path) -> Roadmap:
    """The roadmap in a .toml file (see `from_data`), or the one that a .py file calls ROADMAP.

    Raises:
        ValueError: it holds none, in one sentence that says where and what would be right.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}: give the path of a roadmap")
    roadmap = _run(path) if path.suffix == ".py" else _parse(path)
    if roadmap.name in TAKEN:
        raise ValueError(
            f"{path}: name is {roadmap.name!r}, which is one of this suite's: give another"
        )
    _require_readable(roadmap, path)
    return roadmap


def _parse(path: Path) -> Roadmap:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from None
    try:
        return from_data({"name": path.stem, **data})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _run(path: Path) -> Roadmap:
    name = f"own_roadmap_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    # Known by a name: the source of what it registers is looked up by it.
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    roadmap = getattr(module, "ROADMAP", None)
    if not isinstance(roadmap, Roadmap):
        raise ValueError(f"{path} has no roadmap: let it say ROADMAP = Roadmap(...)")
    return roadmap


def _require_readable(roadmap: Roadmap, path: Path) -> None:
    """Raise ValueError unless study.json can hold it: a study that is trained must be reported
    without the file."""
    if odd := [step.name for step in roadmap.steps if step.reference]:
        raise ValueError(
            f"{path}: step {odd[0]!r} is a reference with networks of its own, which only the "
            "paper's has"
        )
    try:
        again = from_data(to_data(roadmap))
    except ValueError as error:
        raise ValueError(f"{path}: a study could not note this roadmap: {error}") from None
    if len(roadmap.start) != len(again.start):
        last = roadmap.start[-1].name
        raise ValueError(
            f"{path}: start is not the paper's way to {last!r}, which a study would note: give "
            f"PAPER.way({last!r})"
        )
    for step, kept in zip(
        (*roadmap.start, *roadmap.steps), (*again.start, *again.steps), strict=True
    ):
        for field in ("name", "after", "number", "needs", *_TABLES):
            there, noted = getattr(step, field), getattr(kept, field)
            if there != noted:
                raise ValueError(
                    f"{path}: {field} of step {step.name!r} is {there!r} where a study would note "
                    f"{noted!r}: number "
                    "the path from 0 on, and start from a step of the paper"
                )


def from_data(data: Mapping[str, Any]) -> Roadmap:
    """A roadmap from what TOML and JSON can hold.

    name, description; start, the step of the paper's roadmap whose network and recipe the first
    step has before its own changes; and [[step]], each with a name and with any of: description,
    source, group, after (the step that it changes; if left out, the one before it on the path),
    off_path (true: not on the path), architecture, recipe (fields to values; "modern" or "classic":
    as the study's recipe of that name, for a field or for all of them), sizes (regime to fields to
    values), needs.

    Raises:
        ValueError: what is wrong, where, and what would be right, in one sentence.
    """
    _known(data, _ROADMAP, "a roadmap")
    name, start = _text(data, "name"), _text(data, "start")
    rows = data.get("step")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("there is no step: write [[step]] and below it a name and what it changes")
    steps: list[Step] = []
    for place, row in enumerate(rows, start=1):
        if not (row_name := _text(row, "name")):
            raise ValueError(f"step {place} has no name: give it one")
        try:
            steps.append(_step(row, row_name, name, steps))
        except ValueError as error:
            raise ValueError(
                f"step {row_name!r}: {str(error).removeprefix(f'step {row_name!r}: ')}"
            ) from None
    try:
        way = PAPER.way(start) if start else ()
    except ValueError as error:
        raise ValueError(f"start: {error}") from None
    return Roadmap(name, _text(data, "description") or name, tuple(steps), way)


def _step(row: Mapping[str, Any], name: str, roadmap: str, steps: list[Step]) -> Step:
    _known(row, _STEP, "a step")
    path = [step for step in steps if step.number is not None]
    before = path[-1].name if path else None
    after = _text(row, "after") or before
    if not isinstance(off_path := row.get("off_path", False), bool):
        raise ValueError(f"off_path is {off_path!r}: give true or false")
    tables = {field: row.get(field, {}) for field in _TABLES}
    if tables["recipe"] in tuple(RecipeOf):
        tables["recipe"] = RecipeOf(tables["recipe"]).whole()
    inner = (
        [("sizes", value) for value in tables["sizes"].values()]
        if isinstance(tables["sizes"], Mapping)
        else []
    )
    for field, table in (*tables.items(), *inner):
        if not isinstance(table, Mapping):
            raise ValueError(
                f"{field} is {table!r}: give fields and their values, such as [step.{field}] "
                "kernel_size = 9"
            )
    if not isinstance(needs := row.get("needs", []), list) or not all(
        isinstance(need, str) for need in needs
    ):
        raise ValueError(f"needs is {needs!r}: give a list of names of steps")
    return Step(
        name,
        _text(row, "description") or name,
        _text(row, "source"),
        after,
        None if off_path or after != before else len(path),
        _text(row, "group") or roadmap,
        needs=tuple(needs),
        **tables,
    )


def _known(given: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    for name in given:
        if name in _RENAMED:
            raise ValueError(f"{name!r} of {what} is {_RENAMED[name]!r} now: rename it")
        if name not in names:
            raise ValueError(
                f"{what} has no field {name!r}{did_you_mean(name, names, before=', ')} (choose "
                f"{', '.join(names)})"
            )


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str) or any(not character.isprintable() for character in value):
        raise ValueError(f"{name} is {value!r}: give a line of text")
    return value


def to_data(roadmap: Roadmap) -> dict[str, Any]:
    """The roadmap as `from_data` reads it, and as JSON can hold it."""
    start = {"start": roadmap.start[-1].name} if roadmap.start else {}
    rows = [
        {
            "name": step.name,
            "description": step.description,
            "source": step.source,
            "group": step.group,
            "off_path": step.number is None,
            "needs": list(step.needs),
            **({} if step.after is None else {"after": step.after}),
            **{field: _plain(getattr(step, field)) for field in _TABLES},
        }
        for step in roadmap.steps
    ]
    return {"name": roadmap.name, "description": roadmap.description, **start, "step": rows}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return "none" if value is None else list(value) if isinstance(value, tuple) else value
