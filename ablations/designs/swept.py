"""A design whose every variant is also trained with each value of a sweep."""

from dataclasses import replace

from ablations.designs.design import Design, Variant
from ablations.sweep import Sweep


def swept(design: Design, sweep: Sweep) -> Design:
    """Each variant as it is, and then with each value."""
    variants = [
        each
        for variant in design.variants
        for each in (
            variant,
            *(
                Variant(
                    f"{variant.name}-{one.name}",
                    f"{variant.name} with {one}",
                    variant.decisions,
                    of=variant.name,
                    setting=one,
                )
                for one in sweep.settings
            ),
        )
    ]
    names = [variant.name for variant in variants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"two variants of the sweep are named {twice!r}: name the roadmap's step otherwise"
        )
    return replace(design, spec=replace(design.spec, sweep=sweep), variants=tuple(variants))
