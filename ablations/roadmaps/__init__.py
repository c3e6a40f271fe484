"""The roadmaps that come with the suite, a file each, and those of your own."""

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


def get_roadmap(asked: str, network: str | None = None) -> Roadmap:
    """The roadmap of that name, or the one in a file; `recipe` on the network of a step.

    Raises:
        ValueError: there is none, or the file holds none, in one sentence.
    """
    if network is not None and asked != "recipe":
        raise ValueError(
            f"--network {network} is for --roadmap recipe: the roadmap {asked!r} has networks of "
            "its own"
        )
    if asked in ROADMAPS:
        return ROADMAPS[asked](network or "baseline")
    if Path(asked).suffix in (".toml", ".py"):
        return custom.read(Path(asked))
    choices = f"choose {', '.join(ROADMAPS)}, or a file that ends in .toml or .py"
    raise ValueError(
        f"there is no roadmap {asked!r}{did_you_mean(asked, ROADMAPS, before=', ')} ({choices})"
    )


def record(roadmap: Roadmap) -> Any:
    """What study.json says of a roadmap: the paper's by its name, of others all that they are."""
    return roadmap.name if roadmap == PAPER else custom.to_data(roadmap)


def recorded(value: Any) -> Roadmap:
    """The roadmap that `record` wrote. Raises ValueError where it is none."""
    if value == PAPER.name:
        return PAPER
    if not isinstance(value, Mapping):
        raise ValueError(f"a roadmap is recorded as {value!r}")
    return custom.from_data(value)


__all__ = ["BEYOND", "PAPER", "ROADMAPS", "get_roadmap", "recipe", "record", "recorded"]
