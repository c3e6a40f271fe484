"""From an image file of any kind to uint8 RGB, or one clear reason why not.

Nothing here trusts a file's name or header. Whatever a decoder raises becomes `UnreadableImage`, so
that a cache build can list every bad image instead of dying of the first.
"""

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Larger images are refused as decompression bombs (a quarter of a GiB of 24-bit pixels, Pillow's
own limit)."""

_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT)
"""Errors that say nothing about the image: it must not be left out for them."""
_EXIF_ORIENTATION = 0x0112


warnings.filterwarnings(
    "ignore", module=r"PIL\."
)  # of what is refused, or mended, in a word of our own


class UnreadableImage(ValueError):
    """An image that cannot be read; the message is the reason, without the image's name."""


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Decode an image file to uint8 RGB of shape (H, W, 3), upright.

    The EXIF orientation is applied, transparency is laid on white, 16-bit grey keeps its upper
    byte, and of an animation the first frame is taken.

    Raises:
        UnreadableImage: not an image, truncated, too large, not permitted, or in a format without a
            plain meaning.
        OSError: there is too little memory to decode it, or too many files are open.
    """
    with _opened(path) as image:
        return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) in pixels that `read_image` will give, from the file's header alone.

    Raises:
        UnreadableImage, OSError: as `read_image`, as far as the header shows it.
    """
    with _opened(path) as image:
        width, height = image.size
        # Pillow turns TIFF images itself, its size included.
        turned = image.format != "TIFF" and image.getexif().get(_EXIF_ORIENTATION, 1) in (
            5,
            6,
            7,
            8,
        )
        return (width, height) if turned else (height, width)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The image, within the block; whatever it or the block raises is made one of `read_image`'s
    errors."""
    try:
        _refuse_what_is_no_file(path)
        with Image.open(path) as image:
            _refuse_bomb(image)
            yield image
    except MemoryError:
        raise OSError(
            f"there is not enough memory to decode {path}; end other programs and start again"
        ) from None
    except Exception as error:  # decoders raise anything, from struct.error to SyntaxError
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise OSError(f"{path} cannot be read now ({error.strerror}); start again") from None
        raise UnreadableImage(_reason(error, path)) from error


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side brought down to `short_side`, the aspect ratio kept;
    never enlarged."""
    shorter = min(height, width)
    if shorter <= short_side:
        return height, width
    scale = short_side / shorter
    return max(round(height * scale), short_side), max(round(width * scale), short_side)


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Antialiased bicubic resize of an uint8 image (H, W, 3) to `shape` (height, width)."""
    if image.shape[:2] == shape:
        return image
    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _refuse_what_is_no_file(path: str | os.PathLike[str]) -> None:
    """A named pipe, opened, would wait for somebody to write into it, and a device may never
    end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise UnreadableImage(
            "a folder" if stat.S_ISDIR(mode) else "no file but a pipe, a socket or a device"
        )


def _refuse_bomb(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"{width} x {height} pixels, more than {MAX_PIXELS:,}: a decompression bomb?"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips instead of scaling
        values = np.asarray(image).astype(np.int64)
        eight_bits = values >> 8 if values.max() > 255 or image.mode.startswith("I;16") else values
        image = Image.fromarray(eight_bits.clip(0, 255).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels, whose range no file states")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _reason(error: Exception, path: str | os.PathLike[str]) -> str:
    if isinstance(error, UnreadableImage):
        return str(error)
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {MAX_PIXELS:,} pixels: a decompression bomb?"
    if os.path.islink(path) and not os.path.exists(path):
        return "a dangling link"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        return "an empty file" if not os.path.getsize(path) else "not an image"
    return f"{type(error).__name__}: {error}".replace(str(Path(path)), "the file").replace(
        "\n", " "
    )
