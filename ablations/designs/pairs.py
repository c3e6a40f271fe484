"""Designs whose effects are differences of two rows: step by step, the last network less each, the
first with each."""

from collections.abc import Sequence

from ablations.designs.design import Design, DesignSpec, Effect, Row
from ablations.designs.parts import Parts
from ablations.regimes import Regime
from ablations.roadmap import Roadmap
from ablations.step import Step
from utils.text import listed


def cumulative(roadmap: Roadmap, regime: Regime, request: DesignSpec) -> Design:
    """Every row of the roadmap, each against the one that it follows."""
    rows = {step.name: Row(step.name, step.sentence, step=step) for step in roadmap.rows(regime)}
    effects = [
        Effect.between(name, row, rows[row.step.after], row.sentence)
        for name, row in rows.items()
        if row.step is not None and row.step.after in rows
    ]
    return Design(request, roadmap, tuple(rows.values()), tuple(effects))


def leave_one_out(roadmap: Roadmap, regime: Regime, request: DesignSpec) -> Design:
    """The last network, and it without each decision and those that need it."""
    parts = Parts(roadmap, regime, request)
    rows, effects, everything = [parts.last], list[Effect](), parts.last.decisions - parts.base
    for step in parts.steps:
        gone = roadmap.needing([step.name]) & everything
        also = parts.others(gone, step)
        sentence = f"all but {step.name}" + (
            f", and {listed(also)} with it, which need it" if also else ""
        )
        rows.append(parts.row(everything - gone, f"without-{step.name}", sentence))
        effects.append(Effect.between(step.name, parts.last, rows[-1], _what(step, also)))
    return parts.design(rows, effects)


def one_at_a_time(roadmap: Roadmap, regime: Regime, request: DesignSpec) -> Design:
    """The first network, and it with each decision and those that it needs."""
    parts = Parts(roadmap, regime, request)
    rows, effects = [parts.first], list[Effect]()
    for step in parts.steps:
        with_needs = parts.needed([step.name])
        also = parts.others(with_needs, step)
        sentence = f"only {step.name}" + (
            f", and {listed(also)} with it, which it needs" if also else ""
        )
        rows.append(parts.row(with_needs, f"only-{step.name}", sentence))
        effects.append(Effect.between(step.name, rows[-1], parts.first, _what(step, also)))
    return parts.design(rows, effects)


def _what(step: Step, also: Sequence[str]) -> str:
    return step.sentence + (f"; with {listed(also)}" if also else "")
