"""Designs whose effects are differences of two variants: step by step, the last network less each,
the first with each."""

from collections.abc import Sequence

from ablations.designs.design import Design, DesignSpec, Effect, Variant
from ablations.designs.parts import Parts
from ablations.presets import Regime
from ablations.roadmap import Roadmap
from ablations.step import Step
from utils.text import listed


def cumulative(roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> Design:
    """Every variant of the roadmap, each against the one that it follows."""
    variants = {
        step.name: Variant(step.name, step.description, step=step)
        for step in roadmap.steps_in(regime)
    }
    effects = [
        Effect.between(name, variant, variants[variant.step.after], variant.description)
        for name, variant in variants.items()
        if variant.step is not None and variant.step.after in variants
    ]
    return Design(spec, roadmap, tuple(variants.values()), tuple(effects))


def leave_one_out(roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> Design:
    """The last network, and it without each decision and those that need it."""
    parts = Parts(roadmap, regime, spec)
    variants, effects, everything = [parts.last], list[Effect](), parts.last.decisions - parts.base
    for step in parts.steps:
        gone = roadmap.needing([step.name]) & everything
        also = parts.others(gone, step)
        description = f"all but {step.name}" + (
            f", and {listed(also)} with it, which need it" if also else ""
        )
        variants.append(parts.variant(everything - gone, f"without-{step.name}", description))
        effects.append(Effect.between(step.name, parts.last, variants[-1], _what(step, also)))
    return parts.design(variants, effects)


def one_at_a_time(roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> Design:
    """The first network, and it with each decision and those that it needs."""
    parts = Parts(roadmap, regime, spec)
    variants, effects = [parts.first], list[Effect]()
    for step in parts.steps:
        with_needs = parts.needed([step.name])
        also = parts.others(with_needs, step)
        description = f"only {step.name}" + (
            f", and {listed(also)} with it, which it needs" if also else ""
        )
        variants.append(parts.variant(with_needs, f"only-{step.name}", description))
        effects.append(Effect.between(step.name, variants[-1], parts.first, _what(step, also)))
    return parts.design(variants, effects)


def _what(step: Step, also: Sequence[str]) -> str:
    return step.description + (f"; with {listed(also)}" if also else "")
