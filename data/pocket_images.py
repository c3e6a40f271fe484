"""The pocket images: synthetic dishes in Food-101's exact layout, for a first run without a
download.

Every image is a pure function of (version, split, class, number): the same bytes on every run with
the same versions of numpy and Pillow. `python -m data.pocket_images FOLDER PART PARTS PARENT` draws
one share of them, for process PARENT.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from data.processes import cores, end_with
from utils.files import one_writer, read_bytes, sync_folder

VERSION = 1
"""Goes into every image's seed; raise it, with `pocket.FOLDER`, whenever an image changes."""
IMAGES = {"train": 240, "test": 90}
"""Images a class."""
QUALITY = 88
"""Of the JPEG files."""
FIRST_NUMBER = {"train": 1000, "test": 5000}
"""File names are numbers, as in Food-101."""


def generate(
    folder: Path, images: dict[str, int] | None = None, workers: int | None = None
) -> None:
    """Draw all images into `folder`/food-101, `images` a class for each of train and test.

    They are drawn beside, in `folder`.part, which is renamed when complete. Takes about ten seconds
    of one core.

    Raises:
        OSError: the disk is full or cannot be written to. One sentence.
    """
    images = images or IMAGES
    beside = folder.with_name(folder.name + ".part")
    with one_writer(folder):
        if folder.exists():
            return
        try:
            shutil.rmtree(beside, ignore_errors=True)
            _write_lists(beside / "food-101", images)
            _draw_all(beside / "food-101", workers or cores())
            os.sync()  # one for all images; a flush for each would take longer than drawing it
            os.replace(beside, folder)
            sync_folder(folder.parent)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(
                f"the pocket images could not be written to {folder} ({reason})"
            ) from error


def _draw_all(folder: Path, workers: int) -> None:
    # Plain processes rather than multiprocessing, which would run the caller's main script again.
    # They end with this one: nobody begins anew while one of them still draws.
    command = [sys.executable, "-m", "data.pocket_images", str(folder.absolute())]
    house, me = Path(__file__).resolve().parents[1], str(os.getpid())
    helpers = [
        subprocess.Popen(
            [*command, str(part), str(workers), me], cwd=house, stderr=subprocess.PIPE, text=True
        )
        for part in range(1, workers)
    ]
    try:
        draw_part(folder, 0, workers)
        for helper in helpers:
            message = helper.communicate()[1].strip()
            if helper.returncode:
                raise OSError(
                    message.rpartition("\n")[2]
                    or f"a drawing process ended with {helper.returncode}"
                )
    finally:
        for helper in helpers:
            if helper.poll() is None:
                helper.kill()
                helper.communicate()


def draw_part(folder: Path, part: int, parts: int) -> None:
    """Draw every `parts`-th image that the lists in `folder`/meta name, from the `part`-th on."""
    import numpy as np

    from data.pocket_dishes import DISHES, draw

    jobs = []
    for split_number, split in enumerate(IMAGES):
        lists = json.loads(read_bytes(folder / "meta" / f"{split}.json"))
        jobs += [(split_number, cls, name) for cls, names in lists.items() for name in names]
    for split_number, cls, name in jobs[part::parts]:
        rng = np.random.default_rng(
            [VERSION, split_number, list(DISHES).index(cls), int(name.rpartition("/")[2])]
        )
        path = folder / "images" / f"{name}.jpg"
        encoded = io.BytesIO()  # Pillow does not notice a file that was cut short by a full disk
        draw(DISHES[cls], rng).save(encoded, "JPEG", quality=QUALITY)
        path.write_bytes(encoded.getvalue())
        os.utime(
            path, (VERSION, VERSION)
        )  # a cache made of them stays good when they are drawn again


def _write_lists(folder: Path, images: dict[str, int]) -> None:
    from data.pocket_dishes import DISHES

    for cls in DISHES:
        (folder / "images" / cls).mkdir(parents=True)
    meta = folder / "meta"
    meta.mkdir()
    for split, count in images.items():
        first = FIRST_NUMBER[split]
        lists = {
            cls: [f"{cls}/{number}" for number in range(first, first + count)] for cls in DISHES
        }
        (meta / f"{split}.json").write_text(json.dumps(lists))
        (meta / f"{split}.txt").write_text(
            "".join(f"{name}\n" for names in lists.values() for name in names)
        )
    (meta / "classes.txt").write_text("".join(f"{cls}\n" for cls in DISHES))
    (meta / "labels.txt").write_text(
        "".join(f"{cls.replace('_', ' ').capitalize()}\n" for cls in DISHES)
    )


if __name__ == "__main__":
    end_with(int(sys.argv[4]))
    draw_part(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
