"""Every kind of hostile or unusual image is either read correctly or refused with a reason."""

import contextlib
import errno
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from data import decode
from data.decode import UnreadableImage, image_size, read_image, resize, resized_shape

# Four quadrants of one color each survive JPEG compression, turned and mirrored.
RED, GREEN, BLUE, GREY = (200, 30, 40), (40, 170, 60), (30, 60, 190), (128, 128, 128)


def quadrants(height: int = 32, width: int = 48) -> np.ndarray:
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width // 2 :] = GREEN
    image[height // 2 :, : width // 2] = BLUE
    image[height // 2 :, width // 2 :] = GREY
    return image


def saved(path: Path, image: Image.Image, kind: str, **options) -> Path:
    image.save(path, kind, **options)
    return path


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in (*chunks, (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        content += struct.pack(">I", len(data)) + kind + data + checksum
    return content


def assert_reads(path: Path, expected: np.ndarray, tolerance: int = 0) -> None:
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert image_size(path) == expected.shape[:2]
    assert np.abs(image.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_the_name_of_a_file_does_not_matter(tmp_path: Path, kind: str) -> None:
    assert_reads(saved(tmp_path / "image.jpg", Image.fromarray(quadrants()), kind), quadrants())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = quadrants()
    # What the camera stored, so that the orientation turns it upright (Exif 2.32, tag 0x0112).
    stored = [
        upright,
        np.fliplr(upright),
        np.rot90(upright, 2),
        np.flipud(upright),
        upright.transpose(1, 0, 2),
        np.rot90(upright, 1),
        np.rot90(upright, 2).transpose(1, 0, 2),
        np.rot90(upright, -1),
    ][orientation - 1]
    exif, info = Image.Exif(), TiffImagePlugin.ImageFileDirectory_v2()
    exif[0x0112] = info[0x0112] = orientation
    options = {
        "PNG": {"exif": exif},
        "TIFF": {"tiffinfo": info},
        "JPEG": {"exif": exif, "quality": 98, "subsampling": 0},
        "WEBP": {"exif": exif, "lossless": True},
    }[kind]
    path = saved(tmp_path / "i", Image.fromarray(np.ascontiguousarray(stored)), kind, **options)
    image = read_image(path)
    assert image.shape == upright.shape
    assert image_size(path) == upright.shape[:2]
    for y, x in ((6, 8), (6, 40), (26, 8), (26, 40)):  # a border may ring in JPEG
        assert np.abs(image[y, x].astype(int) - upright[y, x]).max() < 6


def test_unusual_pixels_are_read(tmp_path: Path) -> None:
    cmyk = saved(tmp_path / "cmyk.jpg", Image.fromarray(quadrants()).convert("CMYK"), "JPEG")
    assert np.abs(read_image(cmyk)[6, 8].astype(int) - RED).max() < 12
    ramp = np.linspace(0, 65535, 32 * 48).astype(np.uint16).reshape(32, 48)
    grey = saved(tmp_path / "grey.png", Image.fromarray(ramp), "PNG")
    assert_reads(grey, np.repeat((ramp >> 8).astype(np.uint8)[:, :, None], 3, axis=2))
    rgb = np.random.default_rng(0).integers(0, 65536, (4, 5, 3)).astype(">u2")
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rgb))
    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    (tmp_path / "deep.png").write_bytes(png((b"IHDR", header), (b"IDAT", rows)))
    assert_reads(tmp_path / "deep.png", (rgb >> 8).astype(np.uint8))
    for mode, value, expected in (("1", 1, 255), ("L", 90, 90)):
        path = saved(tmp_path / mode, Image.new(mode, (7, 5), value), "PNG")
        assert_reads(path, np.full((5, 7, 3), expected))
    frames = [Image.fromarray(quadrants()), Image.new("RGB", (48, 32), "black")]
    path = saved(tmp_path / "i.gif", frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert_reads(path, quadrants(), tolerance=3)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    expected = quadrants()
    expected[16:, 24:] = 255
    rgba = np.dstack([quadrants(), np.full((32, 48), 255, np.uint8)])
    rgba[16:, 24:, 3] = 0
    assert_reads(saved(tmp_path / "rgba.png", Image.fromarray(rgba), "PNG"), expected)
    palette = Image.new("P", (48, 32))
    palette.putpalette([*RED, *GREEN, *BLUE, *GREY])
    numbers = np.zeros((32, 48), np.uint8)
    numbers[:16, 24:], numbers[16:, :24], numbers[16:, 24:] = 1, 2, 3
    palette.putdata(numbers.ravel().tolist())
    for kind, transparency in (("PNG", 3), ("PNG", bytes([255, 255, 255, 0])), ("GIF", 3)):
        assert_reads(saved(tmp_path / "p", palette, kind, transparency=transparency), expected)
    assert_reads(saved(tmp_path / "opaque.gif", palette, "GIF"), quadrants())


def encoded(kind: str, **options) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind, **options)
    return file.getvalue()


JPEG = encoded("JPEG")
BOMB = png((b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)), (b"IDAT", b"x"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"\0" * 5000, "not an image"),
        (b"Dear reader, this is no image.\n", "not an image"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "a HEIC image: install pillow-heif"),
        (JPEG[:2000], "truncated"),
        (JPEG[:30], "."),
        (BOMB, "decompression bomb"),
        (encoded("JPEG", progressive=True)[:-200], "truncated"),
        (encoded("PNG")[:-300], "."),
        (encoded("WEBP", lossless=True)[:-300], "."),
        (encoded("TIFF", compression="tiff_lzw")[:-300], "."),
    ],
)
def test_a_bad_image_is_refused_with_a_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_other_kinds_of_files_are_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    saved(tmp_path / "float", Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    saved(tmp_path / "large", Image.new("1", (12_000, 10_000)), "PNG")
    reasons = {
        "dangling": "dangling link",
        "folder": "a folder",
        "pipe": "a pipe",
        "device": "a device",
        "float": "float",
        "large": "decompression bomb",
        "none": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(UnreadableImage, match=reason):
            read_image(tmp_path / name)


@settings(deadline=None)
@given(st.binary(max_size=64), st.integers(0, 3000))
def test_damage_is_read_or_refused_but_never_anything_else(tmp_path_factory, junk, at) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    path.write_bytes(JPEG[:at] + junk + JPEG[at + len(junk) :])
    with contextlib.suppress(UnreadableImage):
        assert read_image(path).dtype == np.uint8


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600))
def test_resizing_keeps_the_aspect_ratio_and_never_enlarges(height, width, short_side) -> None:
    new_height, new_width = resized_shape(height, width, short_side)
    assert min(new_height, new_width) == min(height, width, short_side)
    if min(height, width) > short_side:  # within half a pixel on the longer side
        assert abs(new_height * width / height - new_width) <= 0.5 * max(1, width / height) + 1e-6
    else:
        assert (new_height, new_width) == (height, width)


def test_resizing_is_pillows_antialiased_bicubic() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(resize(image, (20, 30)), expected)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "cannot be read now"),
        (MemoryError(), "not enough memory to decode"),
    ],
)
def test_a_busy_machine_is_not_taken_for_a_bad_image(
    failure: Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "good.png", Image.new("RGB", (8, 8)), "PNG")

    def fail(*_) -> None:
        raise failure

    monkeypatch.setattr(decode.Image, "open", fail)
    for read in (read_image, image_size):
        with pytest.raises(OSError, match=message):
            read(path)
