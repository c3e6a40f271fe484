"""Pocket: synthetic images of ten dishes, drawn by this project's generator, for a first run
without a download."""

import os
from pathlib import Path

from data import folder_structure
from data.splits import Dataset, Origin, Published

FOLDER = "pocket-v1"
"""Folder of the generated images; a changed generator gets a new one, so that old images are never
mixed in."""


def read(root: Path) -> Dataset | None:
    folder = root / FOLDER
    if not os.path.lexists(folder):
        return None
    return folder_structure.read(
        folder / "food-101",
        name="pocket",
        splits=FOLDER,
        synthetic=True,
        description="Pocket: synthetic images of ten dishes, drawn by this project's generator, "
        "not photographs; a "
        "fixed stratified 10 % of the training set held out for selection.",
        remedy=f"delete {folder} to draw it again",
    )


def fetch(root: Path) -> None:
    """Draw them, which takes a few seconds."""
    from data.pocket_images import generate

    generate(root / FOLDER)


ORIGIN = Origin(
    "pocket",
    read,
    Published(
        train=2_400, test=900, classes=10, bytes=15_000_000, height=108, width=114, fetch=fetch
    ),
)
