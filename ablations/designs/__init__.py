"""Designs: which combinations of a roadmap's decisions are trained, and what is read off them.

A design is a list of variants and of effects; an effect weighs the accuracies of variants. Nothing
is trained twice: variants of several designs, or of one, that are the same network and recipe share
their runs (`studies.index`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ablations import roadmaps
from ablations.designs.design import Design, DesignSpec, Effect, Kind, Variant
from ablations.designs.factorial import factorial
from ablations.designs.orders import orders
from ablations.designs.pairs import cumulative, leave_one_out, one_at_a_time
from ablations.designs.swept import swept
from ablations.presets import Regime
from ablations.roadmap import Roadmap
from ablations.sweep import Sweep

__all__ = ["Design", "DesignSpec", "Effect", "Kind", "Variant", "build_design", "recorded"]

_MAKE: dict[Kind, Callable[[Roadmap, Regime, DesignSpec], Design]] = {
    "cumulative": cumulative,
    "leave-one-out": leave_one_out,
    "one-at-a-time": one_at_a_time,
    "orders": orders,
    "factorial": factorial,
}


def build_design(roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> Design:
    """The design that `spec` asks for, of the roadmap's variants in a regime.

    Raises:
        ValueError: it cannot be made, in one sentence that says what could.
    """
    if spec.sweep is not None:
        return swept(build_design(roadmap, regime, replace(spec, sweep=None)), spec.sweep)
    return _MAKE[spec.kind](roadmap, regime, spec)


def recorded(record: Mapping[str, Any], regime: Regime) -> Design:
    """The design that study.json says was asked for. Raises ValueError where it says something
    else."""
    try:
        spec: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in record.items()
        }
        if sweep := spec.pop("sweep", None):
            spec["sweep"] = Sweep(sweep["field"], tuple(sweep["values"]))
        return build_design(roadmaps.recorded(spec.pop("roadmap")), regime, DesignSpec(**spec))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a design is recorded as {record!r}") from error
