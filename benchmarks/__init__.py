"""Speed, measured. No package imports these.

They also run where fvcore and tyro are not installed, as on a GPU machine that reaches no package
index: the product imports both, for the FLOPs that `steps` prints and for its command line, and no
benchmark needs either.
"""

import importlib.util
import sys
from types import ModuleType
from typing import Any


class _Absent(ModuleType):
    """Stands for a package that is not there: whatever is asked of it is itself, and counts as
    nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> Any:
        return self


for _name in ("fvcore", "tyro"):
    if importlib.util.find_spec(_name) is None:
        sys.modules[_name] = sys.modules[f"{_name}.nn"] = _Absent(_name)
