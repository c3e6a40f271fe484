"""Results out: collect the runs of a study, compare its steps, draw the figures, write the page.

`report.page.write(study_dir)` does all of it. It reads only the files of the study's folder and
the steps and the paper's table of `ablations`; it never loads a model.
`report.judge(frame)` judges any table of results by the same statistics.
"""

from report.judge import judge

__all__ = ["judge"]
