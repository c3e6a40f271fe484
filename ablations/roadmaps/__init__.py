"""The roadmaps that come with the suite, a file each, and custom ones."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablations.roadmap import Roadmap
from ablations.roadmaps import custom
from ablations.roadmaps.beyond import BEYOND
from ablations.roadmaps.paper import PAPER
from ablations.roadmaps.recipe import recipe
from utils.text import did_you_mean

ROADMAPS: Mapping[str, Callable[[str], Roadmap]] = {
    "paper": lambda _: PAPER,
    "recipe": recipe,
    "beyond": lambda _: BEYOND,
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
    if requested in ROADMAPS:
        return ROADMAPS[requested](network or "baseline")
    if Path(requested).suffix in (".toml", ".py"):
        return custom.read(Path(requested))
    hint = did_you_mean(requested, ROADMAPS, before=", ")
    raise ValueError(
        f"there is no roadmap {requested!r}{hint} (choose {', '.join(ROADMAPS)}, or a file that "
        "ends in .toml or .py)"
    )


def record(roadmap: Roadmap) -> Any:
    """Return what study.json records: the paper's roadmap by its name, others whole."""
    return roadmap.name if roadmap == PAPER else custom.to_data(roadmap)


def recorded(value: Any) -> Roadmap:
    """Return the roadmap that `record` wrote. Raises ValueError if the record is damaged."""
    if value == PAPER.name:
        return PAPER
    if not isinstance(value, Mapping):
        raise ValueError(f"a roadmap is recorded as {value!r}")
    return custom.from_data(value)


__all__ = ["BEYOND", "PAPER", "ROADMAPS", "get_roadmap", "recipe", "record", "recorded"]
