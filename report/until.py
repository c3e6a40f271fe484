"""What a study that runs until it is resolved is to train next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from report import collect
from report.sequential import next_seeds
from report.tables import Summary
from training.plan import Plan


def missing(study_dir: Path, plan: Plan) -> Mapping[str, tuple[int, ...]]:
    """The further seeds of each row that the plan's rule asks for, by the finished runs in a study's folder.

    Raises:
        ValueError: the folder is another thing than a study's.
    """
    begun = (study_dir / "study.json").exists() and any(study_dir.glob("*/seed-*/result.json"))
    return next_seeds(Summary(collect.read(study_dir)).measured if begun else None, plan)
