"""A design: variants that are trained, and effects that are read off their accuracies."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ablations import roadmaps
from ablations.presets import Regime
from ablations.roadmap import Roadmap, Setup
from ablations.step import Step
from ablations.sweep import Setting, Sweep
from training.recipe import StudyConfig
from utils.text import did_you_mean

Kind = Literal["cumulative", "leave-one-out", "one-at-a-time", "orders", "factorial"]


@dataclass(frozen=True)
class Variant:
    """A network and recipe of a design."""

    name: str
    """Of its folder, and in tables."""
    description: str
    decisions: frozenset[str] = frozenset()
    """The steps whose changes it has."""
    step: Step | None = None
    """The step of the roadmap that it is, if it is one."""
    of: str | None = None
    """Of a sweep: the variant that it is but for `setting`."""
    setting: Setting | None = None

    @property
    def number(self) -> int | None:
        return None if self.step is None else self.step.number


@dataclass(frozen=True)
class Effect:
    """What a weighted sum of variants' accuracies says of a decision."""

    name: str
    """Of the decision, or of the two that interact."""
    description: str
    weights: Mapping[str, float]
    """Variant to weight; they add up to 0."""
    sampled: tuple[Mapping[str, float], ...] = ()
    """Where it is the average over orders drawn at random: the weights in each of them."""

    @classmethod
    def between(cls, name: str, variant: Variant, base: Variant, description: str) -> "Effect":
        return cls(name, description, {variant.name: 1.0, base.name: -1.0})

    @property
    def pair(self) -> tuple[str, str] | None:
        """(variant, what it is compared with), where it is a difference of two."""
        ends = {weight: variant for variant, weight in self.weights.items()}
        return (
            (ends[1.0], ends[-1.0])
            if len(self.weights) == 2 and ends.keys() == {1.0, -1.0}
            else None
        )


@dataclass(frozen=True)
class DesignSpec:
    """A design as it is asked for, and as study.json records it.

    Raises:
        ValueError: an impossible value, in one sentence.
    """

    kind: Kind = "cumulative"
    base: str | None = None
    """The step that the design starts from, whose changes every variant has; the roadmap's first
    step if none is given."""
    factors: tuple[str, ...] = ()
    """Of a factorial or of orders: groups or steps, several as one with +."""
    fraction: int = 1
    """Of a factorial: only one in so many of all combinations, 2, 4, 8 ..."""
    variants_at_most: int | None = None
    """Of orders: networks that may be trained; orders are drawn at random where all would be
    more."""
    sweep: Sweep | None = None
    """Values of a field of the recipe that every variant is trained with in turn."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"--design is {self.kind!r}: choose {', '.join(get_args(Kind))}")
        if self.factors and self.kind not in ("orders", "factorial"):
            raise ValueError(
                f"--factors belong to the designs orders and factorial: --design is {self.kind}"
            )
        if self.fraction != 1 and self.kind != "factorial":
            raise ValueError(f"--fraction belongs to the design factorial: --design is {self.kind}")
        if self.fraction < 1 or self.fraction & (self.fraction - 1):
            raise ValueError(
                f"--fraction is {self.fraction}: give 2 for a half, 4 for a quarter, 8 ... of the "
                "runs"
            )


@dataclass(frozen=True)
class Design:
    """Rows to train and effects to read off them."""

    spec: DesignSpec
    roadmap: Roadmap
    variants: tuple[Variant, ...]
    effects: tuple[Effect, ...]
    aliases: tuple[str, ...] = ()
    """Of a fraction: "a = b x c" for each effect that cannot be told from another."""
    notes: tuple[str, ...] = ()
    """What a reader has to know of it."""
    orders: int = 0
    """How many orders were drawn at random; 0 where all are counted."""

    def variant(self, name: str) -> Variant:
        return next(variant for variant in self.variants if variant.name == name)

    def find(self, asked: str) -> Variant:
        """The variant of that name, or the step of that number.

        Raises:
            ValueError: there is none, in one sentence that says which there are.
        """
        for variant in self.variants:
            if asked in (variant.name, str(variant.number)):
                return variant
        if self.spec.kind == "cumulative":
            self.roadmap.step(asked)
        hint = did_you_mean(asked, [variant.name for variant in self.variants], after=" ")
        known = ", ".join(variant.name for variant in self.variants)
        raise ValueError(
            f"the design {self.spec.kind} has no variant {asked!r}: {hint}choose among {known}"
        )

    def settings(self, variant: Variant) -> tuple[Variant, ...]:
        """Of a sweep: the variants that are `variant` but for one value."""
        return tuple(other for other in self.variants if other.of == variant.name)

    @property
    def record(self) -> dict[str, Any]:
        """What study.json says of it, and `recorded` makes it of again."""
        spec = {
            name: value
            for name, value in asdict(self.spec).items()
            if (name, value) != ("sweep", None)
        }
        return {"roadmap": roadmaps.record(self.roadmap), **spec}

    @property
    def family(self) -> tuple[tuple[str, str], ...]:
        """The effects that compare two variants, as pairs."""
        return tuple(effect.pair for effect in self.effects if effect.pair)

    def setup(
        self, variant: Variant, regime: Regime, config: StudyConfig, num_classes: int | None = None
    ) -> Setup:
        """The network and recipe of a variant. Raises ValueError where there can be none, in one
        sentence."""
        if variant.of is not None and variant.setting is not None:
            own = self.setup(self.variant(variant.of), regime, config, num_classes)
            try:
                return variant.setting.of(own)
            except ValueError as error:
                raise ValueError(
                    f"--sweep {variant.setting} of the variant {variant.of!r}: {error}"
                ) from None
        if variant.step is not None:
            return self.roadmap.setup(variant.step, regime, config, num_classes)
        return self.roadmap.combine(variant.decisions, regime, config, num_classes)

    def check(self, variants: Collection[Variant], regime: Regime, config: StudyConfig) -> None:
        """Raise ValueError as `setup` if a variant cannot be, or where two values of a sweep are
        the same for a variant."""
        self.roadmap.check(regime, config)
        known: dict[tuple[str | None, Setup], Variant] = {}
        for variant in variants:
            twin = (
                known.setdefault((variant.of, self.setup(variant, regime, config)), variant)
                if variant.of
                else variant
            )
            if twin is not variant:
                raise ValueError(
                    f"--sweep {twin.setting} and {variant.setting} are the same for the variant "
                    f"{variant.of!r}: "
                    "give plain values, or other --steps"
                )
