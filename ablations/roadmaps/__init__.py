"""Roadmaps as data: the paper's and two others, each a TOML file here, and the user's own.

A user's roadmap is a TOML file as well, from which nothing is executed, or Python where its steps
need new code.
"""

import importlib.util
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablations.roadmap import Roadmap
from ablations.step import RecipeOf, Step
from models import SwinArchitecture
from utils.text import did_you_mean

BUILT_IN = ("paper", "recipe", "beyond")
_TABLES = ("architecture", "recipe", "sizes")
_FLAGS = ("off_path", "released_with_layer_scale")
_STEP = ("name", "description", "source", "group", "after", *_FLAGS, *_TABLES, "needs")
_ROADMAP = ("name", "description", "start", "step")
_RENAMED = {"sentence": "description", "beside": "off_path"}
"""Fields of older files, and their names now."""
_SWIN = {
    "swin-t": ("tiny", SwinArchitecture()),
    "swin-b": ("base", SwinArchitecture(128, (2, 2, 18, 2), (4, 8, 16, 32))),
    "swin-small": (
        "small",
        SwinArchitecture(24, (1, 1, 2), (1, 2, 4), window_size=4, stem_stride=2),
    ),
    "swin-pocket": ("mini", SwinArchitecture(24, (1, 1, 2, 1), (1, 2, 4, 8), window_size=4)),
}


def get_roadmap(requested: str, network: str | None = None) -> Roadmap:
    """Return the roadmap of that name or file; `recipe` on the network of a step.

    Raises:
        ValueError: there is no such roadmap, or the file holds none.
    """
    if network is not None and requested != "recipe":
        raise ValueError(
            f"--network {network} is for --roadmap recipe: the roadmap {requested!r} has networks "
            "of its own"
        )
    if requested in BUILT_IN:
        return {"paper": PAPER, "recipe": recipe(network or "baseline"), "beyond": BEYOND}[
            requested
        ]
    if Path(requested).suffix in (".toml", ".py"):
        return read(Path(requested))
    hint = did_you_mean(requested, BUILT_IN, before=", ")
    raise ValueError(
        f"there is no roadmap {requested!r}{hint} (choose {', '.join(BUILT_IN)}, or a file that "
        "ends in .toml or .py)"
    )


def recipe(network: str = "baseline") -> Roadmap:
    """Return the roadmap recipe on the network of one of the paper's steps.

    Its last step is that step's run in the paper's roadmap. On another network than the baseline,
    the names of the steps include it: mixup-on-depthwise.

    Raises:
        ValueError: there is no such step.
    """
    on, whole = PAPER.step(network), _built_in("recipe")
    if on.reference:
        raise ValueError(
            f"{on.name} has a recipe of its own kind: give the network of a step on the paper's "
            "roadmap"
        )
    if on.name == "baseline":
        return whole
    names = {step.name: f"{step.name}-on-{on.name}" for step in whole.steps}
    names["baseline"] = f"classic-on-{on.name}"
    steps = tuple(
        replace(step, name=names[step.name], after=step.after and names[step.after])
        for step in whole.steps
    )
    description = f"{whole.description}, on the network of {on.name}"
    return Roadmap(f"recipe-on-{on.name}", description, steps, start=PAPER.path_to(on))


def record(roadmap: Roadmap) -> Any:
    """Return what study.json records: the paper's roadmap by its name, others whole."""
    return roadmap.name if roadmap == PAPER else to_data(roadmap)


def recorded(value: Any) -> Roadmap:
    """Return the roadmap that `record` wrote. Raises ValueError if the record is damaged."""
    if value == PAPER.name:
        return PAPER
    if not isinstance(value, Mapping):
        raise ValueError(f"a roadmap is recorded as {value!r}")
    return from_data(value)


def read(path: Path) -> Roadmap:
    """Return the roadmap in a .toml file (see `from_data`), or ROADMAP of a .py file.

    Raises:
        ValueError: the file holds no roadmap, or one that a study could not record.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}: give the path of a roadmap")
    roadmap = _run(path) if path.suffix == ".py" else _parse(path)
    if roadmap.name in BUILT_IN:
        raise ValueError(f"{path}: name is {roadmap.name!r}, which is built in: give another")
    _require_recordable(roadmap, path)
    return roadmap


def _built_in(name: str) -> Roadmap:
    return _parse(Path(__file__).with_name(f"{name}.toml"))


def _parse(path: Path) -> Roadmap:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}") from None
    try:
        return from_data({"name": path.stem, **data})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _run(path: Path) -> Roadmap:
    name = f"custom_roadmap_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    # Registered under a name, by which the source of its parts is looked up.
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    roadmap = getattr(module, "ROADMAP", None)
    if not isinstance(roadmap, Roadmap):
        raise ValueError(f"{path} has no roadmap: write ROADMAP = Roadmap(...) in it")
    return roadmap


def _require_recordable(roadmap: Roadmap, path: Path) -> None:
    """Require that study.json can record the roadmap: its report must not need the file."""
    for step in roadmap.steps:
        if step.reference:
            raise ValueError(
                f"{path}: step {step.name!r} is a reference with networks of its own, which only "
                "the paper's roadmap has"
            )
    try:
        recorded = from_data(to_data(roadmap))
    except ValueError as error:
        raise ValueError(f"{path}: a study could not record this roadmap: {error}") from None
    if [step.name for step in roadmap.start] != [step.name for step in recorded.start]:
        last = roadmap.start[-1].name
        raise ValueError(
            f"{path}: start is not the paper's path to {last!r}: give PAPER.path_to({last!r})"
        )


def from_data(data: Mapping[str, Any]) -> Roadmap:
    """Return a roadmap from what TOML and JSON can hold.

    name, description; start: the step of the paper's roadmap whose network and recipe the first
    step changes; and [[step]], each with a name and any of description, source, group, after (the
    step that it changes; by default the one before it on the path), off_path (true: not on the
    path), architecture, recipe (fields to values; "modern" or "classic", for a field or for all of
    them: the value of that recipe of the study), sizes (regime to fields to values), needs.

    Raises:
        ValueError: anything else, with the place and what to write instead.
    """
    _require_known(data, _ROADMAP, "a roadmap")
    name, start = _text(data, "name"), _text(data, "start")
    rows = data.get("step")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError("there is no step: write [[step]] and below it a name and what it changes")
    steps: list[Step] = []
    for place, row in enumerate(rows, start=1):
        if not (step_name := _text(row, "name")):
            raise ValueError(f"step {place} has no name: give it one")
        try:
            steps.append(_step(row, step_name, name, steps))
        except ValueError as error:
            prefix = f"step {step_name!r}: "
            raise ValueError(prefix + str(error).removeprefix(prefix)) from None
    try:
        before = PAPER.path_to(start) if start else ()
    except ValueError as error:
        raise ValueError(f"start: {error}") from None
    return Roadmap(name, _text(data, "description") or name, tuple(steps), before)


def _step(row: Mapping[str, Any], name: str, roadmap: str, above: list[Step]) -> Step:
    _require_known(row, _STEP, "a step")
    path = [step for step in above if step.number is not None]
    before = path[-1].name if path else None
    after = _text(row, "after") or before
    needs = row.get("needs", [])
    off_path, released = flags = [row.get(flag, False) for flag in _FLAGS]
    for flag, value in zip(_FLAGS, flags):
        if not isinstance(value, bool):
            raise ValueError(f"{flag} is {value!r}: give true or false")
    if not isinstance(needs, list) or not all(isinstance(need, str) for need in needs):
        raise ValueError(f"needs is {needs!r}: give a list of names of steps")
    tables = {field: row.get(field, {}) for field in _TABLES}
    if tables["recipe"] in tuple(RecipeOf):
        tables["recipe"] = RecipeOf(tables["recipe"]).whole()
    sizes = tables["sizes"].values() if isinstance(tables["sizes"], Mapping) else ()
    for field, table in (*tables.items(), *(("sizes", size) for size in sizes)):
        if not isinstance(table, Mapping):
            raise ValueError(
                f"{field} is {table!r}: give fields and their values, such as [step.{field}] "
                "kernel_size = 9"
            )
    return Step(
        name,
        _text(row, "description") or name,
        _text(row, "source"),
        _text(row, "group") or roadmap,
        after,
        None if off_path or after != before else len(path),
        needs=tuple(needs),
        released_with_layer_scale=released,
        **tables,
    )


def _require_known(given: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    for name in given:
        if name in _RENAMED:
            raise ValueError(f"{name!r} of {what} is {_RENAMED[name]!r} now: rename it")
        if name not in names:
            hint = did_you_mean(name, names, before=", ")
            raise ValueError(f"{what} has no field {name!r}{hint} (choose {', '.join(names)})")


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{name} is {value!r}: give a line of text")
    return value


def to_data(roadmap: Roadmap) -> dict[str, Any]:
    """Return the roadmap as `from_data` reads it and JSON holds it."""
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
    if isinstance(value, tuple):
        return list(value)
    return "none" if value is None else value


def _paper() -> Roadmap:
    """Return the paper's roadmap: its steps, and the Swin of each regime."""
    path = _built_in("paper")
    swins = (
        Step(
            name,
            "Swin Transformer, the reference",
            "section 2, Swin",
            "Reference",
            recipe=RecipeOf.MODERN.whole(),
            networks={regime: network},
        )
        for name, (regime, network) in _SWIN.items()
    )
    return replace(path, steps=(*path.steps, *swins))


PAPER = _paper()
BEYOND = _built_in("beyond")
