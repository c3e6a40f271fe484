"""A design whose every row is also trained with each value of a sweep."""

from dataclasses import replace

from ablations.designs.design import Design, Row
from ablations.sweep import Sweep


def swept(made: Design, sweep: Sweep) -> Design:
    """Each row as it is, and then with each value."""
    rows = [
        each
        for row in made.rows
        for each in (
            row,
            *(
                Row(
                    f"{row.name}-{one.name}",
                    f"{row.name} with {one}",
                    row.decisions,
                    of=row.name,
                    setting=one,
                )
                for one in sweep.settings
            ),
        )
    ]
    names = [row.name for row in rows]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"two rows of the sweep are named {twice!r}: name the roadmap's step otherwise"
        )
    return replace(made, request=replace(made.request, sweep=sweep), rows=tuple(rows))
