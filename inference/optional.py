"""Libraries that only a part of this room needs."""

import importlib
from types import ModuleType


def require(module: str, package: str, extra: str) -> ModuleType:
    """Import `module`.

    Raises:
        ValueError: it is not installed; says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"this needs {package}, and {error.name} is not installed: pip install {package}, or "
            "this project with "
            f"its extra [{extra}]"
        ) from None
