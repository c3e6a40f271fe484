"""Every kind of hostile or unusual image is either read correctly or refused with a reason."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from data import decode
from data.decode import UnreadableImage, image_size, read_image, resize, resized_shape

# Four quadrants of one colour each survive JPEG compression, so that turned and mirrored images can
# be told apart.
RED, GREEN, BLUE, GREY = (200, 30, 40), (40, 170, 60), (30, 60, 190), (128, 128, 128)


def quadrants(height: int = 32, width: int = 48) -> np.ndarray:
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = RED
    image[: height // 2, width // 2 :] = GREEN
    image[height // 2 :, : width // 2] = BLUE
    image[height // 2 :, width // 2 :] = GREY
    return image


def saved(path: Path, image: Image.Image, kind: str, **options: Any) -> Path:
    image.save(path, kind, **options)
    return path


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def assert_reads(path: Path, expected: np.ndarray, tolerance: int = 0) -> None:
    image = read_image(path)
    assert image.dtype == np.uint8
    assert image.shape == expected.shape
    assert image_size(path) == expected.shape[:2]
    assert np.abs(image.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_what_a_file_is_called_does_not_matter(tmp_path: Path, kind: str) -> None:
    assert_reads(saved(tmp_path / "image.jpg", Image.fromarray(quadrants()), kind), quadrants())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = quadrants()
    # What the camera stored, so that the orientation turns it upright (Exif 2.32, tag 0x0112).
    store: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda p: p,
        2: np.fliplr,
        3: lambda p: np.rot90(p, 2),
        4: np.flipud,
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    pil_image = Image.fromarray(np.ascontiguousarray(store[orientation](upright)))
    options: dict[str, Any] = {"exif": exif}
    if kind == "TIFF":
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[0x0112] = orientation
        options = {"tiffinfo": info}
    elif kind == "JPEG":
        options |= {"quality": 98, "subsampling": 0}
    elif kind == "WEBP":
        options |= {"lossless": True}
    path = saved(tmp_path / "image", pil_image, kind, **options)
    # A border between quadrants may ring in JPEG; their insides may not.
    image = read_image(path)
    assert image.shape == upright.shape
    assert image_size(path) == upright.shape[:2]
    for y, x in ((6, 8), (6, 40), (26, 8), (26, 40)):
        assert np.abs(image[y, x].astype(int) - upright[y, x]).max() < 6


def test_cmyk_is_read(tmp_path: Path) -> None:
    pil_image = Image.fromarray(quadrants()).convert("CMYK")
    image = read_image(saved(tmp_path / "image.jpg", pil_image, "JPEG", quality=98))
    assert np.abs(image[6, 8].astype(int) - RED).max() < 8
    assert np.abs(image[26, 8].astype(int) - BLUE).max() < 8


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 32 * 48).astype(np.uint16).reshape(32, 48)
    path = saved(tmp_path / "image.png", Image.fromarray(ramp), "PNG")
    assert_reads(path, np.repeat((ramp >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


def test_16_bit_rgb_keeps_its_upper_byte(tmp_path: Path) -> None:
    """Pillow does not write these, so the PNG is put together here."""
    rgb = np.random.default_rng(0).integers(0, 65536, (4, 5, 3)).astype(">u2")
    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rgb))
    path = tmp_path / "image.png"
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    assert_reads(path, (rgb >> 8).astype(np.uint8))


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
    assert_reads(saved(tmp_path / "number.png", palette, "PNG", transparency=3), expected)
    assert_reads(
        saved(tmp_path / "bytes.png", palette, "PNG", transparency=bytes([255, 255, 255, 0])),
        expected,
    )
    assert_reads(saved(tmp_path / "image.gif", palette, "GIF", transparency=3), expected)
    assert_reads(saved(tmp_path / "opaque.gif", palette, "GIF"), quadrants())


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(quadrants()), Image.new("RGB", (48, 32), "black")]
    path = saved(tmp_path / "image.jpg", frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert_reads(path, quadrants(), tolerance=3)


def test_bilevel_grey_and_thin_images_are_read(tmp_path: Path) -> None:
    assert (
        read_image(saved(tmp_path / "1.png", Image.new("1", (7, 5), 1), "PNG")).tolist()
        == [[[255] * 3] * 7] * 5
    )
    assert (
        read_image(saved(tmp_path / "L.png", Image.new("L", (7, 5), 90), "PNG")).tolist()
        == [[[90] * 3] * 7] * 5
    )
    assert read_image(
        saved(tmp_path / "thin.png", Image.new("RGB", (1, 300), RED), "PNG")
    ).shape == (300, 1, 3)


def jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG that says it has 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"\0" * 5000, "not an image"),
        (b"Dear reader, this is no image.\n", "not an image"),
        (jpeg()[:2000], "truncated"),
        (jpeg()[:30], "."),
        (bomb(), "decompression bomb"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_large_images_below_pillows_own_error_are_refused_too(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.png", Image.new("1", (12_000, 10_000)), "PNG")
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        read_image(path)


def test_links_folders_and_floats_are_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "folder.jpg").mkdir()
    saved(tmp_path / "float.tif", Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    reasons = {
        "dangling.jpg": "dangling link",
        "folder.jpg": "a folder",
        "float.tif": "float",
        "none.jpg": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(UnreadableImage, match=reason):
            read_image(tmp_path / name)


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In `tmp_path` as a user without rights: root may read everything."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # whose parents another user may not pass
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_image_one_may_not_read_is_refused_with_a_reason(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = saved(tmp_path / "image.png", Image.new("RGB", (4, 4)), "PNG")
    path.chmod(0)
    request.getfixturevalue("nobody")
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImage, match="no permission"):
            read("image.png")


def test_a_pipe_or_a_device_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "device.jpg"):
        for read in (read_image, image_size):
            with pytest.raises(UnreadableImage, match="no file but a pipe"):
                read(tmp_path / name)


def test_what_a_good_header_hides_is_found(tmp_path: Path) -> None:
    """Broken in its last part: a progressive JPEG cut in its last scan, a PNG and a WebP with a
    changed byte."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    files = {
        "JPEG": {"progressive": True},
        "PNG": {},
        "WEBP": {"lossless": True},
        "TIFF": {"compression": "tiff_lzw"},
    }
    for kind, options in files.items():
        path = saved(tmp_path / "image.jpg", noise, kind, **options)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(0.97 * len(whole))])
        if kind == "JPEG":
            assert image_size(path) == (64, 64)
        with pytest.raises(UnreadableImage):
            read_image(path)
        if kind == "PNG":  # the only one of them with checksums
            path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
            with pytest.raises(UnreadableImage):
                read_image(path)


@given(st.binary(max_size=64), st.integers(0, 3000))
def test_damage_is_read_or_refused_but_never_anything_else(
    tmp_path_factory: Any, junk: bytes, at: int
) -> None:
    whole = jpeg()
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    path.write_bytes(whole[:at] + junk + whole[at + len(junk) :])
    with contextlib.suppress(UnreadableImage):
        assert read_image(path).dtype == np.uint8


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600))
def test_resizing_keeps_the_aspect_ratio_and_never_enlarges(
    height: int, width: int, short_side: int
) -> None:
    new_height, new_width = resized_shape(height, width, short_side)
    assert min(new_height, new_width) == min(height, width, short_side)
    if min(height, width) > short_side:
        # Within half a pixel on the longer side.
        assert abs(new_height * width / height - new_width) <= 0.5 * max(1, width / height) + 1e-6
    else:
        assert (new_height, new_width) == (height, width)


def test_resizing_is_pillows_antialiased_bicubic() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling.BICUBIC))
    assert np.array_equal(resize(image, (20, 30)), expected)
    assert resize(image, (60, 90)) is image


@pytest.mark.parametrize("read", [decode.read_image, decode.image_size])
def test_too_many_open_files_are_not_taken_for_a_bad_image(
    read, tmp_path: Path, monkeypatch
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")

    def exhausted(_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(decode.Image, "open", exhausted)
    with pytest.raises(
        OSError, match=r"good\.png cannot be read now \(Too many open files\); start again$"
    ):
        read(tmp_path / "good.png")


def test_memory_that_runs_out_is_not_taken_for_a_bad_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")

    def exhausted(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decode, "_to_rgb", exhausted)
    with pytest.raises(OSError, match=r"^there is not enough memory to decode .*good\.png"):
        decode.read_image(tmp_path / "good.png")
