"""The small runs of tests/training, for the tests of studies."""

from tests.training.conftest import dataset, execution, make_run, stores

__all__ = ["dataset", "execution", "make_run", "stores"]
