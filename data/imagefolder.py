"""The user's own images: one folder a class, with or without a split of their own.

Either `PATH/CLASS/*.jpg`, split here 80/10/10 by a fixed stratified rule, or
`PATH/{train,test}/CLASS/*.jpg` with an optional `PATH/val` (or `validation`, `valid`), else 10 % of
train is held out.
"""

import hashlib
import os
import re
from pathlib import Path

from data.splits import HELD_OUT, Dataset, Files, Origin, Split, hold_out
from utils.files import images_below, require_folder
from utils.text import first_few

VALIDATION_NAMES = ("val", "validation", "valid")
_SPLIT_NAMES = ("train", "training", "test", "testing", *VALIDATION_NAMES)

Listing = dict[str, list[str]]
"""Names of images relative to their class folder, sorted, by class."""


def read(path: Path) -> Dataset:
    """The images under `path`, none of which is opened.

    Raises:
        ValueError: the folder is missing or empty, or has too few images in a class.
    """
    # Two folders of the same name are two data sets, so the full path is part of the splits' names.
    prefix = (
        re.sub(r"[^A-Za-z0-9._-]", "_", path.name)
        + "-"
        + hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    )
    parts = _parts(path)
    needed = {
        part: 4 - len(parts) if part == "train" else 1 for part in parts
    }  # one for each split carved out of it
    listings = {part: _listing(folder, needed[part]) for part, folder in parts.items()}
    for part, listing in listings.items():
        if odd := sorted(set(listing) ^ set(listings["train"])):
            one = f"{path}: class {first_few(odd)} is in only one of train and {part}"
            raise ValueError(f"{one}; both need every class")
    classes = tuple(listings["train"])
    splits = {
        part: _split(f"{prefix}-{part}", path, folder, listings[part])
        for part, folder in parts.items()
    }

    def carve(part: str, share: float) -> None:
        kept, held = hold_out(splits["train"], share)
        splits[part] = splits["train"].take(held, f"{prefix}-{part}")
        splits["train"] = splits["train"].take(kept, f"{prefix}-train")

    rule = "test set as given" if "test" in splits else "fixed stratified split of 80/10/10 %"
    if "test" not in splits:
        carve("test", HELD_OUT)
        carve("validation", HELD_OUT / (1 - HELD_OUT))  # of what is left
    elif "validation" not in splits:
        carve("validation", HELD_OUT)
    return Dataset(
        name="imagefolder",
        classes=classes,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        synthetic=False,
        description=f"{path.name}: the user's own images in {len(classes)} classes; {rule}.",
    )


def _parts(path: Path) -> dict[str, Path]:
    """{'train', 'test'[, 'validation']} where the folder has a split of its own, else {'train':
    path}.

    Folders named as splits that make no whole split are refused: they would be taken for classes.
    """
    require_folder(path, "the folder of images")
    parts = {"train": path / "train", "test": path / "test"}
    if not all(folder.is_dir() for folder in parts.values()):
        named = [name for name in _classes(path) if name.lower() in _SPLIT_NAMES]
        if named:
            raise ValueError(
                f"{path} has a folder {' and '.join(named)} but not both train and test: name "
                "them train and test (and "
                "validation, if there is one), or point at a folder that holds the classes"
            )
        return {"train": path}
    validation = next((path / name for name in VALIDATION_NAMES if (path / name).is_dir()), None)
    return parts | ({"validation": validation} if validation else {})


def _listing(folder: Path, needed: int) -> Listing:
    """Images by class, at least `needed` of each."""
    try:
        classes = _classes(folder)
        listing = {cls: images_below(folder / cls) for cls in classes}
    except OSError as error:
        raise ValueError(f"{folder} cannot be read ({error.strerror})") from error
    if len(classes) < 2:
        raise ValueError(
            f"{folder} has {len(classes) or 'no'} class folder{'s' * (not classes)}; expected a "
            "folder of images for "
            "each of at least two classes"
        )
    for cls, images in listing.items():
        if not images:
            raise ValueError(
                f"class {cls!r} in {folder} has no image; put some there or remove the folder"
            )
        if len(images) < needed:
            raise ValueError(
                f"class {cls!r} in {folder} has too few images: {len(images)}, but at least "
                f"{needed} are needed, "
                "one for each split"
            )
    return listing


def _split(name: str, path: Path, folder: Path, listing: Listing) -> Split:
    rows = [
        (label, folder / cls / file)
        for label, (cls, files) in enumerate(listing.items())
        for file in files
    ]
    return Split(
        name,
        tuple(file.relative_to(path).as_posix() for _, file in rows),
        tuple(label for label, _ in rows),
        Files(tuple(file for _, file in rows)),
    )


def _classes(folder: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith(".")
    )


ORIGIN = Origin("imagefolder:PATH", read)
