"""Images in: data sets, decode-once cache, augmentation, loader.

Importing this package is cheap: torch, Pillow and numpy are imported by the parts that need them,
when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from data.augmentation import Augmentation
from data.datasets import NAMES, check, load
from data.splits import Dataset, Split
from utils.files import require_writable

if TYPE_CHECKING:
    from data.batches import Batch, PreparedImages
    from data.image_store import ImageStore, open_store
    from data.loader import eval_batches, train_batches

_LAZY = {
    "ImageStore": "data.image_store",
    "open_store": "data.image_store",
    "Batch": "data.batches",
    "PreparedImages": "data.batches",
    "train_batches": "data.loader",
    "eval_batches": "data.loader",
}

__all__ = [
    "NAMES",
    "Augmentation",
    "Batch",
    "Dataset",
    "ImageStore",
    "PreparedImages",
    "Split",
    "check",
    "eval_batches",
    "load",
    "open_store",
    "require_writable",
    "train_batches",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'data' has no attribute {name!r}")
