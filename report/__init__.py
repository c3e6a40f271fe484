"""Results out: collect the runs of a study, compare its steps, draw the figures, write the page.

`report.page.write(study_dir)` does all of it. It reads only the files of the study's folder and
the steps and the paper's table of `ablations`; it never loads a model. `report.judge(frame)` judges
any table of results by the same statistics. Nothing heavy is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def judge(
    frame: pd.DataFrame, *, items: pd.DataFrame | None = None, **options: Any
) -> dict[str, Any]:
    """Judge a table with the columns variant, seed and value, one row a run.

    A value that is no finite number is a failed run. `items` has the columns variant, seed, item
    and correct, and adds the interval for new items. `options` are the fields of
    `studies.options.JudgeOptions`: margin, baseline, lower_is_better, ... Returns what `runner.py
    judge --format json` prints (docs/judge.md).

    Raises:
        ValueError: the table or an option is wrong.
    """
    from report import results_table
    from studies.options import JudgeOptions

    return results_table.judge(frame, items, JudgeOptions(**options))
