"""Small images of test images, kept in a study's folder: a report has them wherever it is made.

thumbnails.json: for each roadmap, by the images' names, JPEGs as base64.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from utils.files import read_bytes, write_atomically

FILE = "thumbnails.json"
SIDE = 64
"""Pixels of the longer side at most."""

Thumbnails = Mapping[str, Mapping[str, bytes]]
"""By roadmap and by image."""


def jpeg(image: np.ndarray) -> bytes:
    """A thumbnail of an image, uint8 (height, width, 3)."""
    pil_image, file = Image.fromarray(image), io.BytesIO()
    pil_image.thumbnail((SIDE, SIDE))
    pil_image.save(file, "JPEG", quality=90, subsampling=0)
    return file.getvalue()


def pixels(content: bytes) -> np.ndarray:
    """A thumbnail as uint8 (height, width, 3). Raises ValueError where it is none."""
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if max(image.size) > SIDE:
                raise ValueError(f"it is {image.size[0]} x {image.size[1]} pixels large")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(str(error)) from None


def parse(content: bytes) -> Thumbnails:
    """Raises ValueError where `content` is no file of thumbnails."""
    try:
        found = {
            str(roadmap): {
                str(image): base64.b64decode(text, validate=True) for image, text in own.items()
            }
            for roadmap, own in json.loads(content).items()
        }
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it holds no images ({error})") from None
    for own in found.values():
        for thumbnail in own.values():
            pixels(thumbnail)
    return found


def text(thumbnails: Thumbnails) -> bytes:
    """The bytes of the file."""
    plain = {
        roadmap: {image: base64.b64encode(own[image]).decode() for image in sorted(own)}
        for roadmap, own in sorted(thumbnails.items())
    }
    return (json.dumps(plain, indent=1) + "\n").encode()


def read(folder: Path) -> Thumbnails:
    """Those of a study; none where there is no file. Raises ValueError where it is damaged."""
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        return parse(read_bytes(path))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{FILE} is damaged ({error}): delete it, and let runner.py all make it again"
        ) from None


def keep(folder: Path, roadmap: str, thumbnails: Mapping[str, bytes]) -> None:
    """Put those of one roadmap in the place of the ones before."""
    try:
        before = read(folder)
    except ValueError:
        before = {}
    after = {**before, roadmap: thumbnails}
    if after != before:
        write_atomically(folder / FILE, text(after))
