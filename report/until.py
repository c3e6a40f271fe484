"""What a study that runs until it is resolved is to train next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ablations.designs import Design
from report import collect
from report.sequential import next_seeds
from report.tables import Summary
from studies.plan import Plan


def missing(
    study_dir: Path, plan: Plan, design: Design, *, mixed_code: bool = False
) -> Mapping[str, tuple[int, ...]]:
    """The further seeds of each row of a design that the plan's rule asks for, by a study's
    finished runs.

    With `mixed_code` by those of every version of the code.

    Raises:
        ValueError: the folder is another thing than a study's.
    """
    plan = plan.within({row.name for row in design.variants})
    if not any(
        study_dir.glob("*/seed-*/result.json")
    ) or design.roadmap.name not in collect.roadmaps(study_dir):
        return next_seeds(None, plan)
    found = collect.read(study_dir, design.roadmap.name, mixed_code=mixed_code)
    return next_seeds(Summary(found).measured, plan)
