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
    """In tables, and of its folder."""
    description: str
    decisions: frozenset[str] = frozenset()
    """The steps whose changes it has."""
    step: Step | None = None
    """The step of the roadmap that it equals, if any."""
    of: str | None = None
    """In a sweep: the variant from which it differs by `setting`."""
    setting: Setting | None = None

    @property
    def number(self) -> int | None:
        return None if self.step is None else self.step.number


@dataclass(frozen=True)
class Effect:
    """A weighted sum of variants' accuracies, which measures a decision."""

    name: str
    """The decision, or the two that interact."""
    description: str
    weights: Mapping[str, float]
    """Variant to weight; the weights add up to 0."""
    sampled: tuple[Mapping[str, float], ...] = ()
    """The weights in each order, where the effect is the average over random orders."""

    @property
    def pair(self) -> tuple[str, str] | None:
        """(variant, its base), where the effect is the difference of two variants."""
        ends = {weight: variant for variant, weight in self.weights.items()}
        if len(self.weights) == 2 and ends.keys() == {1.0, -1.0}:
            return ends[1.0], ends[-1.0]
        return None


@dataclass(frozen=True)
class DesignSpec:
    """A design as it is requested, and as study.json records it.

    Raises:
        ValueError: an impossible value.
    """

    kind: Kind = "cumulative"
    base: str | None = None
    """The step whose changes every variant has; by default the roadmap's first."""
    factors: tuple[str, ...] = ()
    """For factorial and orders: groups or steps; + joins several into one factor."""
    fraction: int = 1
    """For factorial: train one in so many combinations, 2, 4, 8 ..."""
    variants_at_most: int | None = None
    """For orders: the most networks to train; orders are drawn at random where all need more."""
    sweep: Sweep | None = None
    """Values of a field of the recipe with which every variant is trained."""

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
    """Variants to train and effects to read off them."""

    spec: DesignSpec
    roadmap: Roadmap
    variants: tuple[Variant, ...]
    effects: tuple[Effect, ...]
    aliases: tuple[str, ...] = ()
    """In a fraction: "a = b x c" for effects that cannot be distinguished."""
    notes: tuple[str, ...] = ()
    """What a reader has to know of the design."""
    orders: int = 0
    """How many orders were drawn at random; 0 where all are counted."""

    def variant(self, name: str) -> Variant:
        return next(variant for variant in self.variants if variant.name == name)

    def find(self, requested: str) -> Variant:
        """Return the variant of that name, or the step of that number.

        Raises:
            ValueError: there is no such variant.
        """
        for variant in self.variants:
            if requested in (variant.name, str(variant.number)):
                return variant
        if self.spec.kind == "cumulative":
            self.roadmap.step(requested)
        names = [variant.name for variant in self.variants]
        hint = did_you_mean(requested, names, after=" ")
        raise ValueError(
            f"the design {self.spec.kind} has no variant {requested!r}: {hint}choose among "
            f"{', '.join(names)}"
        )

    def settings(self, variant: Variant) -> tuple[Variant, ...]:
        """Return the variants of a sweep that differ from `variant` by one value."""
        return tuple(other for other in self.variants if other.of == variant.name)

    @property
    def record(self) -> dict[str, Any]:
        """What study.json records of the design; `recorded` reads it."""
        spec = asdict(self.spec)
        if self.spec.sweep is None:
            del spec["sweep"]
        return {"roadmap": roadmaps.record(self.roadmap), **spec}

    @property
    def family(self) -> tuple[tuple[str, str], ...]:
        """The effects that compare two variants, as pairs."""
        return tuple(effect.pair for effect in self.effects if effect.pair)

    def setup(
        self, variant: Variant, regime: Regime, config: StudyConfig, num_classes: int | None = None
    ) -> Setup:
        """Return the network and recipe of a variant. Raises ValueError if they are impossible."""
        if variant.of is not None and variant.setting is not None:
            base = self.setup(self.variant(variant.of), regime, config, num_classes)
            try:
                return variant.setting.apply(base)
            except ValueError as error:
                raise ValueError(
                    f"--sweep {variant.setting} of the variant {variant.of!r}: {error}"
                ) from None
        if variant.step is not None:
            return self.roadmap.setup(variant.step, regime, config, num_classes)
        return self.roadmap.combine(variant.decisions, regime, config, num_classes)

    def check(self, variants: Collection[Variant], regime: Regime, config: StudyConfig) -> None:
        """Raise ValueError if a variant is impossible, or two values of a sweep are the same for a
        variant."""
        self.roadmap.check(regime, config)
        known: dict[tuple[str | None, Setup], Variant] = {}
        for variant in variants:
            setup = self.setup(variant, regime, config)
            twin = known.setdefault((variant.of, setup), variant) if variant.of else variant
            if twin is not variant:
                raise ValueError(
                    f"--sweep {twin.setting} and {variant.setting} are the same for the variant "
                    f"{variant.of!r}: give plain values, or other --steps"
                )
