"""Food-101's folder structure, which the `pocket` images share: `images/CLASS/NUMBER.jpg`, and
lists of them in `meta/train.json` and `meta/test.json`, {CLASS: [CLASS/NUMBER, ...]}.
"""

import json
import os
from pathlib import Path

from data.splits import Dataset, Files, Split, hold_out
from utils.files import read_bytes, require_folder
from utils.text import first_few


def read(
    folder: Path, *, name: str, splits: str, synthetic: bool, description: str, remedy: str
) -> Dataset:
    """The data set `name` in `folder`; `splits` is what the names of its splits begin with.

    Raises:
        ValueError: a list is missing or unreadable, names a file outside the folder, has a class
            without an image, or names images that are not there. `remedy` is what the user may do,
            in words.
    """
    lists, image_folder = _read_lists(folder, remedy), folder / "images"
    classes = tuple(sorted(lists["train"]))
    numbers = {cls: number for number, cls in enumerate(classes)}
    parts: dict[str, Split] = {}
    for part, images in lists.items():
        ids = tuple(image for of_class in images.values() for image in of_class)
        labels = tuple(numbers[cls] for cls, of_class in images.items() for _ in of_class)
        parts[part] = Split(
            f"{splits}-{part}",
            ids,
            labels,
            Files(tuple(image_folder / f"{name}.jpg" for name in ids)),
        )
    kept, held = hold_out(parts["train"])
    return Dataset(
        name=name,
        classes=classes,
        train=parts["train"].take(kept, f"{splits}-train"),
        validation=parts["train"].take(held, f"{splits}-validation"),
        test=parts["test"],
        synthetic=synthetic,
        description=description,
    )


def _read_lists(folder: Path, remedy: str) -> dict[str, dict[str, list[str]]]:
    """Train's and test's images by class, all of which are there."""
    require_folder(folder, "the data set's folder")
    lists = {
        part: _read_list(folder / "meta" / f"{part}.json", remedy) for part in ("train", "test")
    }
    if set(lists["train"]) != set(lists["test"]):
        odd = first_few(sorted(set(lists["train"]) ^ set(lists["test"])))
        raise ValueError(
            f"{folder} is damaged: {odd} is in one of meta/train.json and meta/test.json only; "
            f"{remedy}"
        )
    for part, names in lists.items():
        for cls, images in names.items():
            needed = 2 if part == "train" else 1  # of two, one is held out
            if len(images) < needed:
                raise ValueError(
                    f"class {cls!r} of {folder} has too few images in {part}: {len(images)}, but "
                    f"at least {needed} "
                    f"are needed; {remedy}"
                )
    listed = {image for names in lists.values() for images in names.values() for image in images}
    missing = sorted(listed - _present(folder / "images", list(lists["train"])))
    if missing:
        raise ValueError(
            f"{folder} is half downloaded: {len(missing):,} of its {len(listed):,} images are "
            "missing "
            f"({first_few(missing)}); {remedy}"
        )
    return lists


def _read_list(path: Path, remedy: str) -> dict[str, list[str]]:
    try:
        names = json.loads(read_bytes(path))
    except FileNotFoundError:
        raise ValueError(
            f"{path.parents[1]} is half downloaded: {path} is missing; {remedy}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {remedy}") from error
    if (
        not isinstance(names, dict)
        or not names
        or not all(isinstance(images, list) for images in names.values())
    ):
        raise ValueError(f"{path} is damaged: it should map each class to its images; {remedy}")
    for cls, images in names.items():
        for image in images:
            # Exactly CLASS/NAME: a name from outside must not lead out of the folder.
            parts = image.split("/") if isinstance(image, str) else []
            if (
                len(parts) != 2
                or parts[0] != cls
                or {"", ".", ".."} & set(parts)
                or not image.isprintable()
            ):
                raise ValueError(
                    f"{path} is damaged: {image!r} is no image of class {cls!r}; {remedy}"
                )
    return names


def _present(images: Path, classes: list[str]) -> set[str]:
    present: set[str] = set()
    for cls in classes:
        try:
            names = os.listdir(images / cls)
        except OSError:
            continue
        present.update(f"{cls}/{name[:-4]}" for name in names if name.endswith(".jpg"))
    return present
