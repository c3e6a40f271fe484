"""What a study will compare and how it will judge, written in study.json before its first result.
No torch here."""

import hashlib
import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from utils.text import plural

Images = Literal["new", "these"]
Spending = Literal["pocock", "obrien-fleming"]


@dataclass(frozen=True)
class Family:
    """Comparisons that are judged together: the chance of any false verdict among them is at most
    the level."""

    name: str
    comparisons: tuple[tuple[str, str], ...]
    """(row, the row it is compared with)."""
    looks: tuple[int, ...] | None = None
    """After how many seeds it is looked at; None: as the plan says."""

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row for pair in self.comparisons for row in pair))


@dataclass(frozen=True)
class Plan:
    """How a study is judged. A plan with one look is a fixed design; one with several stops where
    it is resolved.

    Raises:
        ValueError: a value is impossible; the message says which would be possible.
    """

    families: tuple[Family, ...]
    seeds: tuple[int, ...]
    """In the order in which runs get them."""
    looks: tuple[int, ...]
    """After how many seeds a comparison is looked at; it gets no more once it is resolved."""
    margin: float = 0.3
    """Points of top-1: what is surely smaller counts as no difference."""
    level: float = 0.05
    """Of false gains and losses within a family, and as much again of false "no difference"
    verdicts."""
    images: Images = "new"
    """Whether verdicts are about new test images or about these."""
    spending: Spending = "pocock"
    """How the level is spread over the looks (Lan and DeMets 1983)."""
    futility: float = 0.1
    """A comparison that its last look would resolve with less than this chance gets no more
    seeds."""
    runs_at_most: int | None = None

    def __post_init__(self) -> None:
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds, default=0) < 0:
            raise ValueError(f"the seeds are {list(self.seeds)}: give each once, from 0 up")
        for looks in (self.looks, *map(self.looks_at, self.families)):
            if not looks or looks[0] < 1 or any(a >= b for a, b in itertools.pairwise(looks)):
                raise ValueError(
                    f"the looks are {list(looks)}: give rising numbers of seeds, such as 2 3 5"
                )
            if looks[-1] > len(self.seeds):
                raise ValueError(
                    f"the last look is at {looks[-1]} seeds, and there are {len(self.seeds)}: "
                    "give more"
                )
        if not 0 < self.margin < 100:
            raise ValueError(
                f"the margin is {self.margin:g} points: give more than 0 and less than 100"
            )
        if not 0 < self.level < 0.5:
            raise ValueError(f"the level is {self.level:g}: give more than 0 and less than 0.5")
        if not 0 <= self.futility < 1:
            raise ValueError(f"futility is {self.futility:g}: give 0 or more and less than 1")
        for name, value, known in (
            ("images", self.images, Images),
            ("spending", self.spending, Spending),
        ):
            if value not in get_args(known):
                raise ValueError(f"{name} is {value!r}: give {' or '.join(get_args(known))}")
        if self.runs_at_most is not None and self.runs_at_most < 1:
            raise ValueError(f"runs at most is {self.runs_at_most}: give at least 1")

    def looks_at(self, family: Family) -> tuple[int, ...]:
        """After how many seeds a family is looked at."""
        return self.looks if family.looks is None else family.looks

    @property
    def parts(self) -> tuple["Plan", ...]:
        """A plan for each set of families that are looked at after the same numbers of seeds."""
        every = dict.fromkeys(map(self.looks_at, self.families)) or (self.looks,)
        alike = {
            looks: [family for family in self.families if self.looks_at(family) == looks]
            for looks in every
        }
        return tuple(
            replace(
                self,
                looks=looks,
                families=tuple(replace(family, looks=None) for family in families),
            )
            for looks, families in alike.items()
        )

    @property
    def sequential(self) -> bool:
        """Whether any comparison is looked at several times."""
        return any(len(part.looks) > 1 for part in self.parts)

    def sure_seeds(self, row: str) -> tuple[int, ...]:
        """Those that a row gets whatever comes out: none where it may stop early."""
        if not self.sequential and row not in self.rows:
            return self.seeds
        looks = [self.looks_at(family) for family in self.families if row in family.rows]
        return self.seeds[: max((each[0] for each in looks if len(each) == 1), default=0)]

    @property
    def looked_at_again(self) -> frozenset[str]:
        """The names of its families that are looked at several times."""
        return frozenset(family.name for family in self.families if len(self.looks_at(family)) > 1)

    @property
    def rows(self) -> tuple[str, ...]:
        """Every row that any comparison needs."""
        return tuple(dict.fromkeys(row for family in self.families for row in family.rows))

    def within(self, rows: Collection[str]) -> "Plan":
        """Of its families those that compare these rows only."""
        return replace(
            self,
            families=tuple(family for family in self.families if set(family.rows) <= set(rows)),
        )

    def schedule(self, look: int) -> tuple[int, ...]:
        """The seeds that a look (0 is the first) uses."""
        return self.seeds[: self.looks[look]]

    @property
    def digest(self) -> str:
        text = json.dumps(self.as_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def as_json(self) -> dict[str, Any]:
        content = dict(json.loads(json.dumps(asdict(self))))
        for family in content["families"]:
            if family["looks"] is None:
                del family["looks"]
        return content

    @classmethod
    def from_json(cls, content: object) -> "Plan":
        """Raises ValueError where `content` is no plan."""
        try:
            assert isinstance(content, Mapping)
            unknown = content.keys() - {field.name for field in fields(cls)}
            assert not unknown
            families = tuple(
                Family(
                    str(family["name"]),
                    tuple((str(row), str(other)) for row, other in family["comparisons"]),
                    tuple(map(int, family["looks"])) if "looks" in family else None,
                )
                for family in content["families"]
            )
            seeds, looks = (
                tuple(int(value) for value in content[name]) for name in ("seeds", "looks")
            )
            rest = {name: content[name] for name in content.keys() - {"families", "seeds", "looks"}}
            rest |= {
                name: float(rest[name]) for name in ("margin", "level", "futility") if name in rest
            }
            return cls(families, seeds, looks, **rest)
        except (AssertionError, KeyError, TypeError) as error:
            raise ValueError(
                "the plan in study.json is damaged: a field of it is missing or wrong"
            ) from error


def fixed(families: Iterable[Family], seeds: Iterable[int], **how: Any) -> Plan:
    """A plan of so many seeds for each row, judged once."""
    seeds = tuple(seeds)
    return Plan(tuple(families), seeds, (max(1, len(seeds)),), **how)


LOOKS = (2, 3, 4, 5, 6, 8, 10)
"""After how many seeds a study that runs until it is resolved looks, unless told otherwise."""


def revised(
    before: Plan | None,
    families: Iterable[Family],
    seeds: Sequence[int],
    *,
    sequential: bool,
    **how: Any,
) -> Plan:
    """The plan of a study that is asked for these families and seeds now, and was perhaps asked for
    others before.

    `how` are other fields; None leaves what was planned. Raises ValueError where the plan is
    impossible.
    """
    all_seeds = tuple(dict.fromkeys((*(before.seeds if before else ()), *seeds)))
    asked = 1 + max((all_seeds.index(seed) for seed in seeds), default=-1)
    pairs = _pairs(before.families if before else (), families)
    looks = {family.name: before.looks_at(family) for family in before.families} if before else {}
    for name in {family.name for family in families}:
        looks[name] = _looks(looks.get(name), asked, len(all_seeds), sequential)
    most = max(looks.values(), key=lambda each: (len(each), each), default=(len(all_seeds),))
    together = tuple(
        Family(name, pairs[name], None if looks[name] == most else looks[name]) for name in pairs
    )
    given = {name: value for name, value in how.items() if value is not None}
    whole = {"families": together, "seeds": all_seeds, "looks": most, **given}
    return replace(before, **whole) if before else Plan(**whole)


def _pairs(*parts: Iterable[Family]) -> dict[str, tuple[tuple[str, str], ...]]:
    """The comparisons of families of the same name, together."""
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for family in itertools.chain(*parts):
        found[family.name] = tuple(
            dict.fromkeys((*found.get(family.name, ()), *family.comparisons))
        )
    return found


def _looks(
    had: tuple[int, ...] | None, asked: int, seeds: int, sequential: bool
) -> tuple[int, ...]:
    """When comparisons are looked at that had these looks. Those that were looked at several times
    stay so."""
    taken = had if had and len(had) > 1 else ()
    if not sequential and not taken:
        return (max(asked, *had) if had else asked,)
    # Seeds that a fixed plan foresaw are looked at together first: fewer of them never were.
    first = LOOKS[0] if had is None or had == (seeds,) else max(had[0], LOOKS[0])
    return tuple(sorted({*taken, first, *(look for look in LOOKS if first < look < seeds), seeds}))


@dataclass(frozen=True)
class Noted:
    """A plan as study.json has it, and how many runs were finished when it was written."""

    plan: Plan
    results: int

    def as_json(self) -> dict[str, Any]:
        return {"results": self.results, "digest": self.plan.digest, **self.plan.as_json()}


def together(one: tuple[Noted, ...], other: tuple[Noted, ...]) -> tuple[Noted, ...]:
    """The plans of a study of two parts, whose plans these are.

    Each part may have planned rows and seeds of its own before its first result: the study's plan
        is then both.

    Raises ValueError where they do not make one plan; the message goes on from "their plans".
    """
    if one == other or not other:
        return one
    if not one:
        return other
    (first, *more), (second, *others) = ((noted.plan for noted in plans) for plans in (one, other))
    if (
        more
        or others
        or first.sequential
        or second.sequential
        or one[0].results
        or other[0].results
    ):
        raise ValueError("differ, and one was changed later or looks several times")
    seeds = tuple(sorted({*first.seeds, *second.seeds}))
    families = tuple(
        Family(name, pairs) for name, pairs in _pairs(first.families, second.families).items()
    )
    whole = replace(first, families=families, seeds=seeds, looks=(len(seeds),))
    if replace(second, families=whole.families, seeds=whole.seeds, looks=whole.looks) != whole:
        raise ValueError("judge differently")
    return (Noted(whole, 0),)


def noted(study: Mapping[str, Any]) -> tuple[Noted, ...]:
    """The plans in a study.json, the first and then each later one. Raises ValueError where they
    are damaged."""
    plans = []
    for record in study.get("plans", []):
        if not isinstance(record, Mapping) or not isinstance(record.get("results"), int):
            raise ValueError("the plan in study.json is damaged: a field of it is missing or wrong")
        plan = Plan.from_json(
            {key: value for key, value in record.items() if key not in ("results", "digest")}
        )
        if record.get("digest") != plan.digest:
            raise ValueError("the plan in study.json was edited by hand: its digest is another's")
        plans.append(Noted(plan, record["results"]))
    return tuple(plans)


def deviations(first: Plan, now: Plan) -> tuple[str, ...]:
    """One sentence for each thing that is no longer as it was first planned."""
    said: list[str] = []
    for field in fields(Plan):
        before, after = getattr(first, field.name), getattr(now, field.name)
        if field.name == "families":
            said += _changed_families(first, now)
        elif field.name == "looks":
            said += _changed_looks(first, now)
        elif before != after:
            said.append(
                f"{field.name.replace('_', ' ')}: {_words(before)} was planned, {_words(after)} "
                "came to be"
            )
    return tuple(said)


def _changed_looks(first: Plan, now: Plan) -> Iterable[str]:
    """One look at more seeds is still one look, and the plan's seeds tell of it where they are
    more."""
    before = {family.name: first.looks_at(family) for family in first.families}
    after = {family.name: now.looks_at(family) for family in now.families if family.name in before}
    changed: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for name, looks in after.items():
        if looks != before[name] and (
            max(len(looks), len(before[name])) > 1 or first.seeds == now.seeds
        ):
            changed.setdefault((before[name], looks), []).append(name)
    for (planned, came), names in changed.items():
        yield (
            f"looks at {' and '.join(names)}: after {_words(planned)} seeds was planned, "
            f"{_words(came)} came to be"
        )


def _changed_families(first: Plan, now: Plan) -> Iterable[str]:
    before = {family.name: set(family.comparisons) for family in first.families}
    after = {family.name: set(family.comparisons) for family in now.families}
    for name in before | after:
        if name not in before:
            yield f"added the family {name} ({plural(len(after[name]), 'comparison')})"
            continue
        gone, new = before[name] - after.get(name, set()), after.get(name, set()) - before[name]
        for word, pairs in (("added to", new), ("taken from", gone)):
            if pairs:
                shown = ", ".join(f"{row} against {other}" for row, other in sorted(pairs))
                yield f"{word} the family {name}: {shown}"


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
