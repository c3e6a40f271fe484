"""The design factorial: groups of decisions on and off in all combinations, or in a fraction of
them."""

import itertools
from collections.abc import Sequence
from typing import Any

from ablations.designs.design import Design, DesignSpec, Effect
from ablations.designs.parts import Combinations, Parts
from ablations.presets import Regime
from ablations.roadmap import Roadmap
from utils.text import listed


def factorial(roadmap: Roadmap, regime: Regime, spec: DesignSpec) -> Design:
    """Main effects and two-way interactions of the factors, with what a fraction cannot tell
    apart."""
    import numpy as np
    import pydoe

    parts = Parts(roadmap, regime, spec)
    factors = parts.factors()
    combinations = Combinations(parts, factors)
    names = combinations.names
    for name in names:
        for other in names:
            if shared := combinations.needs(name) & factors[other]:
                raise ValueError(
                    f"the factor {name} needs {listed(sorted(shared))} of {other}, so it cannot "
                    "be on where that is "
                    f"off: make them one factor, {other}+{name}"
                )
    erased = spec.fraction.bit_length() - 1
    if erased and len(names) - erased < 2:
        raise ValueError(
            f"--fraction is {spec.fraction}, and {len(names)} factors have {2 ** len(names)} "
            "combinations: "
            "a fraction needs at least four of them, give a smaller number or more --factors"
        )
    levels = pydoe.ff2n(len(names))
    aliases: tuple[str, ...] = ()
    if erased:
        generators, *_ = pydoe.fracfact_opt(len(names), erased)
        levels = pydoe.fracfact(generators)
        aliases = _aliases(levels, names)
    variants = [
        combinations.variant([name for i, name in enumerate(names) if level[i] > 0])
        for level in levels
    ]
    effects, seen = list[Effect](), set[bytes]()
    for size in (1, 2):
        for chosen in itertools.combinations(range(len(names)), size):
            signs = np.prod(levels[:, chosen], axis=1)
            if np.abs(signs.sum()) == len(signs) or (
                size == 2 and (signs.tobytes() in seen or (-signs).tobytes() in seen)
            ):
                continue
            seen.add(signs.tobytes())
            weights: dict[str, float] = {}
            for variant, sign in zip(variants, signs, strict=True):
                weights[variant.name] = weights.get(variant.name, 0.0) + 2 * float(sign) / len(
                    variants
                )
            what = (
                "main effect: on against off, averaged over the other factors"
                if size == 1
                else "interaction: half of what one changes in the effect of the other"
            )
            effects.append(Effect(" x ".join(names[i] for i in chosen), what, weights))
    return parts.design(variants, effects, aliases=aliases, notes=combinations.notes)


def _aliases(levels: Any, names: Sequence[str]) -> tuple[str, ...]:
    """Main effects and two-way interactions that a fraction cannot tell apart, one equation a
    line."""
    import pydoe

    lines = []
    for line in pydoe.fracfact_aliasing(levels)[0]:
        terms = [term for term in line.split(" = ") if len(term) <= 2]
        if len(terms) > 1:
            lines.append(
                " = ".join(
                    " x ".join(names[ord(letter) - ord("a")] for letter in term) for term in terms
                )
            )
    return tuple(lines)
