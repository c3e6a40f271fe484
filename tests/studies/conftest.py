"""The small runs of tests/training and the study folders of tests/report, for tests of studies."""

from tests.report.conftest import make_study
from tests.training.conftest import dataset, execution, make_run, stores

__all__ = ["dataset", "execution", "make_run", "make_study", "stores"]
