"""From an image file of any kind to uint8 RGB, or one clear reason why not.

Nothing here trusts a file's name or header. An exception of a decoder becomes `UnreadableImage`, so
that the build of an image store can list every bad image instead of ending at the first.
"""

import errno
import importlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 89_478_485
"""Larger images are refused as decompression bombs: Pillow's limit, a quarter GiB of RGB."""

_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT)
"""Errors that say nothing about the image: it must not be left out for them."""
_EXIF_ORIENTATION = 0x0112
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
"""Bytes 8 to 12 of a phone's HEIC files, which may have any suffix."""
Encoded = str | os.PathLike[str] | bytes
"""The path of an image file, or its contents."""

warnings.filterwarnings("ignore", module=r"PIL\.")  # this module gives its own reasons
with suppress(ImportError):  # an extra for HEIC, which Pillow lacks
    importlib.import_module("pillow_heif").register_heif_opener()


class UnreadableImage(ValueError):
    """An image that cannot be read; the message is the reason, without the image's name."""


def read_image(image: Encoded) -> np.ndarray:
    """Decode an image to uint8 RGB of shape (H, W, 3), upright.

    The EXIF orientation is applied, transparency is laid on white, 16-bit grey keeps its upper
    byte, and of an animation the first frame is taken.

    Raises:
        UnreadableImage: not an image, truncated, too large, not permitted, or in a format without a
            plain meaning.
        OSError: there is too little memory to decode it, or too many files are open.
    """
    with _opened(image) as opened:
        if opened.mode == "F":
            raise UnreadableImage("floating-point pixels, whose range no file states")
        return np.asarray(to_rgb(opened))


def is_image(path: str | os.PathLike[str]) -> bool:
    """Check by its header that a file is an image."""
    with suppress(UnreadableImage):
        image_size(path)
        return True
    return False


def image_size(image: Encoded) -> tuple[int, int]:
    """(height, width) in pixels that `read_image` will give, from the file's header alone.

    Raises:
        UnreadableImage, OSError: as `read_image`, as far as the header shows it.
    """
    with _opened(image) as opened:
        width, height = opened.size
        # Pillow turns TIFF images itself, their size included.
        orientation = 1 if opened.format == "TIFF" else opened.getexif().get(_EXIF_ORIENTATION, 1)
        return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def resized_shape(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side at most `short_side`, the aspect ratio kept."""
    shorter = min(height, width)
    if shorter <= short_side:
        return height, width
    scale = short_side / shorter
    return max(round(height * scale), short_side), max(round(width * scale), short_side)


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Antialiased bicubic resize of a uint8 image (H, W, 3) to `shape` (height, width)."""
    if image.shape[:2] == shape:
        return image
    return np.asarray(Image.fromarray(image).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


@contextmanager
def _opened(source: Encoded) -> Iterator[Image.Image]:
    """Open the image for the block; every exception becomes one of `read_image`'s errors."""
    path = "the image" if isinstance(source, bytes) else source
    try:
        mode = stat.S_IFREG if isinstance(source, bytes) else os.stat(source).st_mode
        if not stat.S_ISREG(mode):  # a named pipe would wait for a writer
            kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
            raise UnreadableImage(f"not a file but {kind}")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except UnreadableImage:
        raise
    except MemoryError:
        raise OSError(
            f"there is not enough memory to decode {path}; end other programs and start again"
        ) from None
    except Exception as error:  # decoders raise anything, from struct.error to SyntaxError
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise OSError(f"{path} cannot be read now ({error.strerror}); start again") from None
        raise UnreadableImage(_reason(error, source)) from error


def _reason(error: Exception, source: Encoded) -> str:
    path = "<bytes>" if isinstance(source, bytes) else os.fspath(source)
    match error:
        case Image.DecompressionBombError():
            return f"more than {MAX_PIXELS:,} pixels: a decompression bomb?"
        case FileNotFoundError():
            return "a dangling link" if os.path.islink(path) else "no such file"
        case PermissionError():
            return "no permission to read it"
        case UnidentifiedImageError():
            return _not_an_image(source)
    message = " ".join(str(error).replace(path, "the file").split())
    return f"{type(error).__name__}: {message}"


def _not_an_image(source: Encoded) -> str:
    start = source[:12] if isinstance(source, bytes) else b""
    if not isinstance(source, bytes):
        with open(source, "rb") as file:
            start = file.read(12)
    if start[4:8] == b"ftyp" and start[8:] in _HEIC_BRANDS:
        return "a HEIC image: install pillow-heif"
    return "not an image" if start else "an empty file"


# The card of an export shows these lines.
def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image upright, on white, as RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips instead of scaling
        values = np.asarray(image).astype(np.int64)
        if values.max() > 255 or image.mode.startswith("I;16"):
            values >>= 8
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
