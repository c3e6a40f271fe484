"""What a design compares, and so how a study is to be judged."""

from collections.abc import Collection, Sequence
from pathlib import Path

from ablations.designs import Design
from ablations.presets import get_regime
from ablations.roadmap import ends
from studies.plan import Family, Plan, revised
from studies.study import read_plans
from training.recipe import StudyConfig


def planned(
    study: Path,
    design: Design,
    config: StudyConfig,
    rows: Collection[str],
    seeds: Sequence[int],
    *,
    until_resolved: bool,
    margin: float | None,
    runs_at_most: int | None,
) -> Plan:
    """The plan that the study has, with what is asked for now. Writes nothing.

    Raises:
        ValueError: it cannot be run until it is resolved, a row cannot be, or the plan is
            impossible.
    """
    if until_resolved and len(seeds) < 2:
        raise ValueError(
            "--until-resolved needs two seeds or more: give --seeds 0 1 ..., or none for 0 to 9"
        )
    asked = families(design, config, rows)
    if until_resolved and not asked:
        raise ValueError(
            "--until-resolved needs rows that are compared with each other: of those asked for, "
            "the design "
            f"{design.spec.kind} compares none; give --seeds instead, or more rows"
        )
    before = read_plans(study)
    return revised(
        before[-1].plan if before else None,
        asked,
        seeds,
        sequential=until_resolved,
        margin=margin,
        runs_at_most=runs_at_most if until_resolved else None,
    )


def families(design: Design, config: StudyConfig, rows: Collection[str]) -> tuple[Family, ...]:
    """The comparisons of the design between these of its rows; those of the path's end with where
    it began apart.

    A row that changes nothing in this study is the row before it: there is nothing to compare, and
    more comparisons would cost the others power.
    """
    regime = get_regime(config.regime, config.resolution)
    setups = {
        row.name: design.setup(row, regime, config) for row in design.variants if row.name in rows
    }
    name = f"{design.roadmap.name}, {design.spec.kind}"
    found = {name: design.family}
    if design.spec.kind == "cumulative":
        found[f"{name}, ends"] = ends(row.step for row in design.variants if row.step is not None)
    several = {
        name: tuple(
            (row, after)
            for row, after in pairs
            if {row, after} <= setups.keys() and setups[row] != setups[after]
        )
        for name, pairs in found.items()
    }
    return tuple(Family(name, pairs) for name, pairs in several.items() if pairs)
