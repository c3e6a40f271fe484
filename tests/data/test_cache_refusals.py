"""What the image cache does not accept: unreadable or changed images, damage, a full disk."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data
from data.cache import open_store
from data.decode import read_image, resize, resized_shape
from data.splits import Files, Source, Split

COUNT, SIDE = 40, 24


def shrunk(image: np.ndarray) -> np.ndarray:
    height, width, _ = image.shape
    return resize(image, resized_shape(height, width, SIDE))


def spoil(folder: Path) -> dict[str, str]:
    """Seven images made unreadable, with the reason for each."""
    whole = (folder / "8.png").read_bytes()
    (folder / "3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "4.png").write_bytes(b"")
    (folder / "5.png").write_text("not an image at all")
    (folder / "6.png").unlink()
    (folder / "6.png").symlink_to("/nowhere")
    (folder / "7.png").unlink()
    (folder / "39.png").write_bytes(whole[:60])
    return {
        "c/3": "truncated",
        "c/4": "empty",
        "c/5": "not an image",
        "c/6": "dangling",
        "c/7": "no such file",
        "c/39": "",
    }


def reasons(refusal: ValueError) -> dict[str, str]:
    """Why each image that the one sentence names cannot be read."""
    assert "\n" not in str(refusal)
    named = str(refusal).partition(" cannot be read (")[2].rpartition("): repair")[0]
    return dict(one.split(": ", 1) for one in named.split("; "))


def test_unreadable_images_are_all_named_and_stop_the_build(
    split: Split, cache: Path, tmp_path: Path
) -> None:
    spoiled = spoil(tmp_path / "images")
    with pytest.raises(
        ValueError, match=r"^6 of 40 images of test-split cannot be read \(c/3: .*\): repair"
    ) as caught:
        open_store(split, cache, SIDE)
    named = reasons(caught.value)
    assert list(named) == list(spoiled)
    for name, reason in spoiled.items():
        assert reason in named[name]
    assert not (cache / f"test-split-{SIDE}").exists()


def test_what_would_hang_or_may_not_be_read_is_named_too(
    split: Split, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    for number in (1, 2, 3):
        (folder / f"{number}.png").unlink()
    os.mkfifo(folder / "1.png")
    (folder / "2.png").mkdir()
    bomb = bytearray((folder / "4.png").read_bytes())
    bomb[16:24] = struct.pack(">II", 30_000, 30_000)  # what its header says of width and height
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    (folder / "3.png").write_bytes(bomb)
    with pytest.raises(ValueError, match=r"^3 of 40 images of test-split cannot be read") as caught:
        open_store(split, cache, SIDE)
    for said, reason in zip(
        reasons(caught.value).values(), ("a pipe", "a folder", "bomb"), strict=True
    ):
        assert reason in said


def test_unreadable_images_are_left_out_when_asked_to(
    split: Split, cache: Path, tmp_path: Path
) -> None:
    spoiled = spoil(tmp_path / "images")
    with pytest.raises(ValueError, match="cannot be read"):
        open_store(split, cache, SIDE)
    store = open_store(split, cache, SIDE, skip_unreadable=True)
    assert store.ids == tuple(name for name in split.ids if name not in spoiled)
    assert store.skipped == tuple(spoiled)
    for image, name in zip(store, store.ids, strict=True):
        expected = shrunk(split.read(split.ids.index(name)))
        assert np.array_equal(image.numpy(), expected)
    # It never passes silently for the whole.
    with pytest.raises(ValueError, match="built without 6 unreadable images"):
        open_store(split, cache, SIDE)


def test_a_repaired_image_is_read_again(split: Split, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "images" / "3.png"
    status = path.stat()
    whole = path.read_bytes()
    path.write_bytes(b"x" * len(whole))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ValueError, match="1 of 40 images"):
        open_store(split, cache, SIDE)
    path.write_bytes(
        whole
    )  # with the same size and time: nothing tells it from what was noted before
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(open_store(split, cache, SIDE)) == COUNT


def test_many_unreadable_images_are_listed_in_a_file(cache: Path, tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{number}.jpg" for number in range(50))
    split = Split("lost", tuple(path.name for path in paths), (0,) * 50, Files(paths))
    with pytest.raises(ValueError, match="50 of 50 images of lost cannot be read") as caught:
        open_store(split, cache, SIDE, skip_unreadable=True)
    assert f"and 40 more, listed in {cache / 'lost-unreadable.txt'}" in str(caught.value)
    assert len((cache / "lost-unreadable.txt").read_text().splitlines()) == 50


def test_images_changed_under_their_cache_are_noticed(
    split: Split, cache: Path, tmp_path: Path
) -> None:
    open_store(split, cache, SIDE)
    path = tmp_path / "images" / "9.png"
    Image.fromarray(read_image(path)[::-1]).save(path)
    with pytest.raises(
        ValueError,
        match=r"^1 images changed since test-split was cached \(c/9\); delete .*-24 to build",
    ):
        open_store(split, cache, SIDE)
    path.unlink()
    with pytest.raises(ValueError, match=r"\(c/9\)"):
        open_store(split, cache, SIDE)
    fewer = split.take(range(COUNT - 1), split.name)
    with pytest.raises(ValueError, match="came, went or changed their class"):
        open_store(fewer, cache, SIDE)
    relabelled = Split(split.name, split.ids, (0,) * COUNT, split.source)
    with pytest.raises(ValueError, match="came, went or changed their class"):
        open_store(relabelled, cache, SIDE)


@pytest.mark.parametrize("name", ["images.bin", "index.npz", "ids.json", "meta.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_damaged_store_is_recognised(split: Split, cache: Path, name: str, damage: str) -> None:
    path = open_store(split, cache, SIDE).folder / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises((OSError, ValueError), match=r"delete .* to build it again"):
        open_store(split, cache, SIDE)


def test_a_planted_pickle_is_not_executed(split: Split, cache: Path, tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    store = open_store(split, cache, SIDE)
    np.save(store.folder / "planted.npy", np.array([Planted()], object), allow_pickle=True)
    shutil.move(store.folder / "planted.npy", store.folder / "index.npz")
    with pytest.raises(OSError, match="is damaged"):
        open_store(split, cache, SIDE)
    assert not (tmp_path / "executed").exists()


@dataclass(frozen=True)
class Vast:
    """A source of images that no disk can hold."""

    def read(self, index: int) -> np.ndarray:
        raise AssertionError("decoded in spite of a full disk")

    def size(self, index: int) -> tuple[int, int]:
        return 3 * 10**6, 3 * 10**6

    def stamp(self, index: int) -> tuple[int, int]:
        return 0, 0

    def take(self, indices: Sequence[int]) -> Source:
        raise NotImplementedError


def test_too_little_disk_is_said_before_anything_is_decoded(cache: Path) -> None:
    split = Split("vast", ("a", "b"), (0, 1), Vast())
    with pytest.raises(
        OSError, match=r"^the image cache of vast needs 54000\.0 GB and the disk of .* has .* free"
    ):
        open_store(split, cache, 3 * 10**6)


LIMITED_BUILD = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from data import cache_build
from data.cache import open_store
from data.splits import Files, Split
cache_build.CHUNK_BYTES = 5_000
paths = tuple(Path(sys.argv[2]) / f"{n}.png" for n in range(40))
split = Split("test-split", tuple(f"c/{n}" for n in range(40)), tuple(n % 7 for n in range(40)), Files(paths))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    open_store(split, Path(sys.argv[3]), 24)
except OSError as error:
    print(error)
"""


def test_a_write_that_fails_is_one_sentence_and_what_is_done_is_kept(
    split: Split, cache: Path, tmp_path: Path
) -> None:
    """With a real limit on the size of files, as a quota hit in mid-write."""
    home = str(Path(data.__file__).parents[1])
    command = [sys.executable, "-c", LIMITED_BUILD, home, str(tmp_path / "images"), str(cache)]
    said = subprocess.run(command, cwd=home, check=True, capture_output=True, text=True).stdout
    assert said == (
        f"the image cache {cache / 'test-split-24'} could not be written (File too large); what "
        "is done is kept and "
        "the next build goes on from there\n"
    )
    assert len(open_store(split, cache, SIDE)) == COUNT


def test_a_cache_folder_that_cannot_be_made_is_one_sentence(split: Split) -> None:
    with pytest.raises(
        OSError, match=r"^the image cache /proc/none/test-split-24 could not be written"
    ):
        open_store(split, Path("/proc/none"), SIDE)


def test_an_impossible_size_is_refused(split: Split, cache: Path) -> None:
    with pytest.raises(ValueError, match="shorter side of 0 pixels"):
        open_store(split, cache, 0)
