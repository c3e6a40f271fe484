"""What designs are made of: the decisions of a roadmap's path, single or as factors, and
variants with some of them."""

import re
from collections.abc import Iterable, Mapping, Sequence

from ablations.designs.design import Design, DesignSpec, Effect, Variant
from ablations.presets import Regime
from ablations.roadmap import Roadmap
from ablations.step import Step
from utils.text import listed


class Parts:
    """The decisions of a design, and variants made of them."""

    def __init__(self, roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> None:
        self.roadmap, self.spec = roadmap, spec
        path = [step for step in roadmap.steps_in(regime) if step.number is not None]
        start = path[0]
        if spec.base is not None:
            start = roadmap.step(spec.base, regime)
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
                f"a design {spec.kind} of the roadmap {roadmap.name} from {start.name} on has "
                f"{len(self.steps)} "
                "decision: it needs at least two, give an earlier --base or a longer roadmap"
            )
        self._on_path = {
            frozenset(step.name for step in path[1 : i + 1]): step for i, step in enumerate(path)
        }
        self.first, self.last = (
            self.variant((), "", ""),
            self.variant((step.name for step in self.steps), "", ""),
        )
        self.groups: dict[str, frozenset[str]] = {}
        """Their steps, by names fit for a folder."""
        for step in self.steps:
            self.groups[_slug(step.group)] = self.groups.get(_slug(step.group), frozenset()) | {
                step.name
            }

    def variant(self, decisions: Iterable[str], name: str, description: str) -> Variant:
        """The variant with these decisions and the base's; where that is a step of the path, this
        step."""
        all_ = self.base | frozenset(decisions)
        if step := self._on_path.get(all_):
            return Variant(step.name, step.description, all_, step)
        return Variant(name, description, all_)

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
        for asked in self.spec.factors or self.groups:
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
                f"--factors {' '.join(found) or 'none'}: a design {self.spec.kind} needs at "
                "least two"
            )
        return found

    def design(
        self,
        variants: Iterable[Variant],
        effects: Iterable[Effect],
        *,
        aliases: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
        orders: int = 0,
    ) -> Design:
        """The design of these variants, each of them once."""
        distinct = tuple({variant.name: variant for variant in variants}.values())
        return Design(self.spec, self.roadmap, distinct, tuple(effects), aliases, notes, orders)


class Combinations:
    """Rows that have some of several factors, and all of them what these need and none brings."""

    def __init__(self, parts: Parts, factors: Mapping[str, frozenset[str]]) -> None:
        self.names = list(factors)
        self._parts, self._factors = parts, factors
        members = frozenset[str]().union(*factors.values())
        self._background = parts.needed(members) - members
        self.notes = (
            f"every variant has {listed(sorted(self._background))}, which others need",
        ) * bool(self._background)

    def needs(self, name: str) -> frozenset[str]:
        """The decisions of other factors that a factor needs."""
        return self._parts.needed(self._factors[name]) - self._factors[name] - self._background

    def variant(self, chosen: Sequence[str]) -> Variant:
        """The variant with these factors."""
        parts = self._parts
        decisions = self._background.union(*(self._factors[name] for name in chosen))
        # Thirteen names of steps would make too long a name of a folder.
        numbers = (
            {} if parts.spec.factors else {step.name: str(step.number) for step in parts.steps}
        )
        short = "+".join(numbers.get(name, name) for name in chosen) or "none"
        since = f"from-{parts.first.number}-" if parts.base else ""
        return parts.variant(
            decisions,
            f"{parts.roadmap.name}-{since}{short}",
            f"with {listed(chosen) or 'none of them'}",
        )


def _slug(group: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", group.lower()).strip("-") or "others"
