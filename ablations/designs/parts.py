"""What designs are made of: the decisions of a roadmap's path, single or as factors, and rows with
some of them."""

import re
from collections.abc import Iterable, Mapping, Sequence

from ablations.designs.design import Design, DesignSpec, Effect, Row
from ablations.regimes import Regime
from ablations.roadmap import Roadmap
from ablations.step import Step
from utils.text import listed


class Parts:
    """The decisions of a design, and rows made of them."""

    def __init__(self, roadmap: Roadmap, regime: Regime, request: DesignSpec) -> None:
        self.roadmap, self.request = roadmap, request
        path = [step for step in roadmap.rows(regime) if step.number is not None]
        start = path[0]
        if request.base is not None:
            start = roadmap.step(request.base, regime)
            if start not in path:
                raise ValueError(
                    f"--base {start.name} is not on the path of the roadmap {roadmap.name}: give "
                    "a step of it"
                )
        place = path.index(start)
        self.steps = path[place + 1 :]
        self.base = frozenset(step.name for step in path[1 : place + 1])
        if len(self.steps) < 2:
            raise ValueError(
                f"a design {request.kind} of the roadmap {roadmap.name} from {start.name} on has "
                f"{len(self.steps)} "
                "decision: it needs at least two, give an earlier --base or a longer roadmap"
            )
        self._on_path = {
            frozenset(step.name for step in path[1 : i + 1]): step for i, step in enumerate(path)
        }
        self.first, self.last = (
            self.row((), "", ""),
            self.row((step.name for step in self.steps), "", ""),
        )
        self.groups: dict[str, frozenset[str]] = {}
        """Their steps, by names fit for a folder."""
        for step in self.steps:
            self.groups[_slug(step.group)] = self.groups.get(_slug(step.group), frozenset()) | {
                step.name
            }

    def row(self, decisions: Iterable[str], name: str, sentence: str) -> Row:
        """The row with these decisions and the base's; where that is a step of the path, this
        step."""
        all_ = self.base | frozenset(decisions)
        if step := self._on_path.get(all_):
            return Row(step.name, step.sentence, all_, step)
        return Row(name, sentence, all_)

    def needed(self, decisions: Iterable[str]) -> frozenset[str]:
        """These decisions and what they need, without the base's."""
        return self.roadmap.needed(decisions) - self.base

    def others(self, decisions: frozenset[str], step: Step) -> list[str]:
        """These decisions but `step`, in the path's order."""
        return [other.name for other in self.steps if other.name in decisions and other != step]

    def singles(self) -> dict[str, frozenset[str]]:
        """Every step as a factor of its own."""
        return {step.name: frozenset({step.name}) for step in self.steps}

    def factors(self) -> dict[str, frozenset[str]]:
        """The asked groups and steps by name; every group, if none is asked for.

        Raises:
            ValueError: one is unknown, or two share a step.
        """
        known = self.singles() | self.groups
        found: dict[str, frozenset[str]] = {}
        for asked in self.request.factors or self.groups:
            members: frozenset[str] = frozenset()
            for part in asked.split("+"):
                if part not in known:
                    names = ", ".join(self.groups | known)
                    raise ValueError(
                        f"--factors names {part!r}, which the design does not have: choose among "
                        f"{names}"
                    )
                members |= known[part]
            if twice := next((name for name, others in found.items() if others & members), None):
                raise ValueError(
                    f"--factors {twice} and {asked} share "
                    f"{', '.join(sorted(found[twice] & members))}"
                )
            found[asked] = members
        if len(found) < 2:
            raise ValueError(
                f"--factors {' '.join(found) or 'none'}: a design {self.request.kind} needs at "
                "least two"
            )
        return found

    def design(
        self,
        rows: Iterable[Row],
        effects: Iterable[Effect],
        *,
        aliases: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
        orders: int = 0,
    ) -> Design:
        """The design of these rows, each of them once."""
        distinct = tuple({row.name: row for row in rows}.values())
        return Design(self.request, self.roadmap, distinct, tuple(effects), aliases, notes, orders)


class Combinations:
    """Rows that have some of several factors, and all of them what these need and none brings."""

    def __init__(self, parts: Parts, factors: Mapping[str, frozenset[str]]) -> None:
        self.names = list(factors)
        self._parts, self._factors = parts, factors
        members = frozenset[str]().union(*factors.values())
        self._background = parts.needed(members) - members
        self.notes = (
            f"every row has {listed(sorted(self._background))}, which others need",
        ) * bool(self._background)

    def needs(self, name: str) -> frozenset[str]:
        """The decisions of other factors that a factor needs."""
        return self._parts.needed(self._factors[name]) - self._factors[name] - self._background

    def row(self, chosen: Sequence[str]) -> Row:
        """The row with these factors."""
        parts = self._parts
        decisions = self._background.union(*(self._factors[name] for name in chosen))
        # Thirteen names of steps would make too long a name of a folder.
        numbers = (
            {} if parts.request.factors else {step.name: str(step.number) for step in parts.steps}
        )
        short = "+".join(numbers.get(name, name) for name in chosen) or "none"
        since = f"from-{parts.first.number}-" if parts.base else ""
        return parts.row(
            decisions,
            f"{parts.roadmap.name}-{since}{short}",
            f"with {listed(chosen) or 'none of them'}",
        )


def _slug(group: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", group.lower()).strip("-") or "others"
