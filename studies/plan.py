"""What a study compares and how it is judged, written in study.json before its first result.

No torch here.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ablations.designs import Design
from ablations.presets import get_regime
from ablations.roadmap import ends
from studies.study import read_json
from training.recipe import StudyConfig
from utils.files import one_writer, write_json
from utils.text import plural

Question = Literal["new", "fixed"]
Pairs = tuple[tuple[str, str], ...]

ANALYSES = (2, 3, 4, 5, 6, 8, 10)
"""The seeds after which a study that runs until it is resolved is analysed."""


@dataclass(frozen=True)
class Family:
    """Comparisons that are judged together, with one error level for all of them."""

    name: str
    comparisons: Pairs
    """(variant, the variant that it is compared with)."""
    analyses: tuple[int, ...]
    """The numbers of seeds after which it is analysed; one for a fixed design."""

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for pair in self.comparisons for name in pair))

    @property
    def sequential(self) -> bool:
        return len(self.analyses) > 1


@dataclass(frozen=True)
class Plan:
    """How a study is judged.

    Raises:
        ValueError: the margin or the number of runs is impossible.
    """

    families: tuple[Family, ...]
    seeds: tuple[int, ...]
    """In the order in which variants get them."""
    margin: float = 0.3
    """Points of top-1: what is surely smaller counts as no difference."""
    level: float = 0.05
    """Of false gains and losses in a family, and as much again of false "no difference"."""
    images: Question = "new"
    """Whether verdicts are about new test images or about the fixed test set."""
    futility: float = 0.1
    """A comparison gets no more seeds if they would resolve it with less than this chance."""
    runs_at_most: int | None = None
    finished_runs: int = field(default=0, compare=False)
    """The study's finished runs when the plan was written."""

    def __post_init__(self) -> None:
        if not 0 < self.margin < 100:
            raise ValueError(
                f"the margin is {self.margin:g} points: give more than 0 and less than 100"
            )
        if self.runs_at_most is not None and self.runs_at_most < 1:
            raise ValueError(f"runs at most is {self.runs_at_most}: give at least 1")

    @property
    def analyses(self) -> tuple[int, ...]:
        """The analyses of the family with the most."""
        every = [family.analyses for family in self.families]
        return max(every, key=lambda each: (len(each), each), default=(len(self.seeds),))

    @property
    def sequential(self) -> bool:
        """Whether any comparison is analysed several times."""
        return any(family.sequential for family in self.families)

    def sure_seeds(self, variant: str) -> tuple[int, ...]:
        """The seeds that a variant gets whatever the results: none if it may stop early."""
        own = [family for family in self.families if variant in family.variants]
        if not own and not self.sequential:
            return self.seeds
        counts = [family.analyses[0] for family in own if not family.sequential]
        return self.seeds[: max(counts, default=0)]

    def within(self, variants: Collection[str]) -> "Plan":
        """Keep the families that compare only these variants."""
        kept = [family for family in self.families if set(family.variants) <= set(variants)]
        return replace(self, families=tuple(kept))

    @property
    def digest(self) -> str:
        content = asdict(self)
        del content["finished_runs"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, Any]:
        return dict(json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Plan":
        """Raises ValueError if `content` is no plan."""
        try:
            families = tuple(
                Family(one["name"], tuple(map(tuple, one["comparisons"])), tuple(one["analyses"]))
                for one in content["families"]
            )
            return cls(**{**content, "families": families, "seeds": tuple(content["seeds"])})
        except (KeyError, TypeError) as error:
            raise ValueError(
                "the plan in study.json is damaged: a field of it is missing or wrong"
            ) from error


def comparisons(design: Design, config: StudyConfig, variants: Collection[str]) -> dict[str, Pairs]:
    """A design's comparisons between these of its variants, by family.

    A path's end against its start is a family of its own. A variant that changes nothing in this
    study is the one before it: there is nothing to compare, and more comparisons would cost the
    others power.
    """
    regime = get_regime(config.regime, config.resolution)
    digests = {row.name: design.setup(row, regime, config) for row in design.variants}
    name = f"{design.roadmap.name}, {design.spec.kind}"
    families = {name: design.family}
    if design.spec.kind == "cumulative":
        families[f"{name}, ends"] = ends(
            row.step for row in design.variants if row.step is not None
        )
    known = {name: digest for name, digest in digests.items() if name in variants}
    changed = {
        name: tuple(
            (one, other)
            for one, other in pairs
            if {one, other} <= known.keys() and known[one] != known[other]
        )
        for name, pairs in families.items()
    }
    return {name: pairs for name, pairs in changed.items() if pairs}


def planned(
    study: Path,
    design: Design,
    config: StudyConfig,
    variants: Collection[str],
    seeds: Sequence[int],
    *,
    until_resolved: bool,
    margin: float | None = None,
    runs_at_most: int | None = None,
) -> Plan:
    """The study's plan with this request added. Writes nothing.

    Raises:
        ValueError: it cannot be run until it is resolved, or the plan is impossible.
    """
    if until_resolved and len(seeds) < 2:
        raise ValueError(
            "--until-resolved needs two seeds or more: give --seeds 0 1 ..., or none for 0 to 9"
        )
    families = comparisons(design, config, variants)
    if until_resolved and not families:
        raise ValueError(
            "--until-resolved needs variants that are compared with each other: the design "
            f"{design.spec.kind} compares none of those requested; give --seeds, or more of them"
        )
    limit = runs_at_most if until_resolved else None
    before = read_plans(study)
    options = {"margin": margin, "runs_at_most": limit}
    return revised(
        before[-1] if before else None, families, seeds, sequential=until_resolved, **options
    )


def revised(
    before: Plan | None,
    families: Mapping[str, Pairs],
    seeds: Sequence[int],
    *,
    sequential: bool,
    **options: Any,
) -> Plan:
    """Add a request to the plan of a study. `options` are other fields; None leaves a field."""
    all_seeds = tuple(dict.fromkeys((*(before.seeds if before else ()), *seeds)))
    requested = 1 + max((all_seeds.index(seed) for seed in seeds), default=-1)
    merged = {family.name: family for family in before.families} if before else {}
    for name, pairs in families.items():
        old = merged.get(name, Family(name, (), ()))
        every = tuple(dict.fromkeys((*old.comparisons, *pairs)))
        analyses = _analyses(old.analyses, requested, len(all_seeds), sequential)
        merged[name] = Family(name, every, analyses)
    given = {name: value for name, value in options.items() if value is not None}
    plan = before or Plan((), all_seeds)
    return replace(plan, families=tuple(merged.values()), seeds=all_seeds, **given)


def _analyses(
    before: tuple[int, ...], requested: int, seeds: int, sequential: bool
) -> tuple[int, ...]:
    """When a family is analysed that had these analyses before; several stay several."""
    taken = before if len(before) > 1 else ()
    if not sequential and not taken:
        return (max(requested, *before) if before else requested,)
    # The seeds of a fixed plan are analysed together first, because fewer never were.
    first = max(before[0], ANALYSES[0]) if before and before != (seeds,) else ANALYSES[0]
    later = [count for count in ANALYSES if first < count < seeds]
    return tuple(sorted({*taken, first, *later, seeds}))


def read_plans(folder: Path) -> tuple[Plan, ...]:
    """The first plan of a study and each later one; none if there is no study yet."""
    path = folder / "study.json"
    if not path.exists():
        return ()
    try:
        return plans_of(read_json(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def plans_of(study: Mapping[str, Any]) -> tuple[Plan, ...]:
    """The plans in the content of study.json. Raises ValueError if they are damaged."""
    return tuple(map(Plan.from_json, study.get("plans", [])))


def note_plan(folder: Path, plan: Plan) -> None:
    """Write a plan into study.json, with the number of finished runs.

    A plan may change without a trace until the first result; later the earlier ones are kept.
    """
    path = folder / "study.json"
    with one_writer(path):
        before = read_plans(folder)
        if before and before[-1] == plan:
            return
        finished = len(list(folder.glob("*/seed-*/result.json")))
        plans = [*(before if finished else ()), replace(plan, finished_runs=finished)]
        write_json(path, read_json(path) | {"plans": [one.as_json() for one in plans]})


def merged_plans(one: tuple[Plan, ...], other: tuple[Plan, ...]) -> tuple[Plan, ...]:
    """The plans of two parts of one study, each written before its part's first result.

    Raises:
        ValueError: they do not make one plan; the message goes on from "their plans".
    """
    if one == other or not other:
        return one
    if not one:
        return other
    if any(
        len(plans) > 1 or plans[0].sequential or plans[0].finished_runs for plans in (one, other)
    ):
        raise ValueError("differ, and one was changed later or has interim analyses")
    first, second = one[0], other[0]
    families = {family.name: family.comparisons for family in second.families}
    whole = revised(first, families, sorted({*first.seeds, *second.seeds}), sequential=False)
    seeds = tuple(sorted(whole.seeds))
    same = tuple(replace(family, analyses=(len(seeds),)) for family in whole.families)
    whole = replace(whole, families=same, seeds=seeds)
    if replace(second, families=whole.families, seeds=whole.seeds) != whole:
        raise ValueError("judge differently")
    return (whole,)


def deviations(first: Plan, now: Plan) -> tuple[str, ...]:
    """Describe each thing that differs from the first plan."""
    changes = []
    for name in [one.name for one in fields(Plan) if one.compare and one.name != "families"]:
        before, after = getattr(first, name), getattr(now, name)
        if before != after:
            changes.append((name.replace("_", " "), _describe(before), _describe(after)))
    old, new = ({family.name: family for family in plan.families} for plan in (first, now))
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            changes.append((f"family {name}", _describe(old.get(name)), _describe(new.get(name))))
    return tuple(f"{name}: {before} planned, now {after}" for name, before, after in changes)


def _describe(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if not isinstance(value, Family):
        return "nothing" if value is None else str(value)
    pairs = plural(len(value.comparisons), "comparison")
    return f"{pairs} analysed after {_describe(value.analyses)} seeds"
