"""The image cache: exact, resumable, built once."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import data
from data import cache_build
from data.cache import open_store
from data.decode import read_image, resize, resized_shape
from data.splits import Files, Source, Split
from data.store import ImageStore

COUNT, SIDE = 40, 24


def shrunk(image: np.ndarray) -> np.ndarray:
    height, width, _ = image.shape
    return resize(image, resized_shape(height, width, SIDE))


@dataclass(frozen=True)
class Counting:
    """A source that notes which images were decoded, and calls `before` first."""

    files: Files
    reads: list[int] = field(default_factory=list)
    before: Callable[[int], None] = lambda index: None

    def read(self, index: int) -> np.ndarray:
        self.before(index)
        self.reads.append(index)
        return self.files.read(index)

    def size(self, index: int) -> tuple[int, int]:
        return self.files.size(index)

    def stamp(self, index: int) -> tuple[int, int]:
        return self.files.stamp(index)

    def take(self, indices: Sequence[int]) -> Source:
        raise NotImplementedError


def counted(
    split: Split, before: Callable[[int], None] = lambda index: None
) -> tuple[Split, list[int]]:
    assert isinstance(split.source, Files)
    source = Counting(split.source, before=before)
    return Split(split.name, split.ids, split.labels, source), source.reads


def files_of(store: ImageStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder.iterdir()}


def test_a_store_holds_every_image_resized(split: Split, cache: Path) -> None:
    store = open_store(split, cache, SIDE)
    assert len(store) == COUNT
    assert store.ids == split.ids
    assert store.labels.tolist() == list(split.labels)
    assert store.labels.dtype == torch.int64
    for index, image in enumerate(store):
        expected = shrunk(split.read(index))
        assert image.dtype == torch.uint8
        assert torch.equal(image, torch.from_numpy(expected.copy()))
        assert store.shapes[index].tolist() == list(expected.shape[:2])
        assert min(expected.shape[:2]) <= SIDE
    with pytest.raises(IndexError):
        store[COUNT]


def test_images_are_views_of_one_memory_map(split: Split, cache: Path) -> None:
    store = open_store(split, cache, SIDE)
    assert store[1].untyped_storage().data_ptr() == store[2].untyped_storage().data_ptr()
    assert (
        store.nbytes
        == sum(image.numel() for image in store)
        == (store.folder / "images.bin").stat().st_size
    )


def test_a_store_travels_to_other_processes_as_a_path(split: Split, cache: Path) -> None:
    store = open_store(split, cache, SIDE)
    parcel = pickle.dumps(store)
    assert len(parcel) < 1000
    other = pickle.loads(parcel)
    assert torch.equal(other[7], store[7])
    assert other.ids == store.ids


def test_a_build_that_fails_closes_its_file_after_its_last_writer(
    split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, failed, written = threading.Event(), threading.Event(), []
    real = os.pwrite

    def before(index: int) -> None:
        if (
            index == 0
        ):  # goes on to write after the other chunk's failure was seen, or could have been
            begun.set()
            assert failed.wait(60)
            threading.Event().wait(0.2)
        else:
            assert begun.wait(60)
            failed.set()
            raise OSError("the disk of images is gone")

    def pwrite(descriptor: int, *what: Any) -> int:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        written.extend([name] if not name.endswith(".lock") else [])
        return real(descriptor, *what)

    monkeypatch.setattr(cache_build, "CHUNK_BYTES", 1)
    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="the disk of images is gone"):
        open_store(counted(split, before)[0], cache, SIDE, workers=2)
    assert written == ["images.bin"]


def test_a_second_opening_decodes_nothing(split: Split, cache: Path) -> None:
    first, reads = counted(split)
    open_store(first, cache, SIDE)
    assert sorted(reads) == list(range(COUNT))
    again, reads = counted(split)
    open_store(again, cache, SIDE)
    assert not reads
    open_store(again, cache, SIDE + 1)
    assert len(reads) == COUNT


def test_the_size_is_announced_before_anything_is_decoded(split: Split, cache: Path) -> None:
    events: list[str] = []
    watched, _ = counted(split, lambda index: events.append("decode"))
    store = open_store(watched, cache, SIDE, announce=events.append)
    assert events.index("decode") == 1
    assert events[0].startswith(
        f"Decoding {COUNT} images of test-split once, to {store.nbytes / 1000:.1f} kB in {cache}"
    )


def test_progress_is_reported_up_to_the_end(
    split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_build, "CHUNK_BYTES", 10_000)
    calls: list[tuple[int, int]] = []
    open_store(split, cache, SIDE, progress=lambda done, total: calls.append((done, total)))
    assert len(calls) > 4
    assert calls == sorted(calls)
    assert calls[0] == (0, COUNT)
    assert calls[-1] == (COUNT, COUNT)


def test_the_store_is_the_same_for_any_number_of_workers_and_chunks(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_store(split, tmp_path / "one", SIDE, workers=1)
    four = open_store(split, tmp_path / "four", SIDE, workers=4)
    assert files_of(one) == files_of(four)
    monkeypatch.setattr(cache_build, "CHUNK_BYTES", 5_000)
    small = open_store(split, tmp_path / "small", SIDE, workers=4)
    assert files_of(small)["images.bin"] == files_of(one)["images.bin"]


KILLED_BUILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from data import cache_build
from data.cache import open_store
from data.splits import Files, Split
cache_build.CHUNK_BYTES = 5_000
paths = tuple(Path(sys.argv[2]) / f"{n}.png" for n in range(40))
split = Split("test-split", tuple(f"c/{n}" for n in range(40)), tuple(n % 7 for n in range(40)), Files(paths))
def progress(done, total):
    if done >= 15:
        os.kill(os.getpid(), signal.SIGKILL)
open_store(split, Path(sys.argv[3]), 24, workers=2, progress=progress)
"""


HOLDER = """
import sys
from pathlib import Path
from utils.files import one_writer
with one_writer(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


def test_the_lease_of_a_build_that_was_killed_at_its_very_end_does_not_stay(
    split: Split, cache: Path
) -> None:
    store = open_store(split, cache, SIDE).folder
    before = {path.name for path in cache.iterdir()}
    command = [sys.executable, "-c", HOLDER, str(store)]
    house = Path(data.__file__).parents[1]
    with subprocess.Popen(
        command, cwd=house, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        (lease,) = {path.name for path in cache.iterdir()} - before
        open_store(split, cache, SIDE)
        assert (cache / lease).exists(), "its holder lives"
        holder.kill()
    open_store(split, cache, SIDE)
    assert {path.name for path in cache.iterdir()} == before


def test_a_killed_build_goes_on_where_it_stopped(
    split: Split, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = str(Path(data.__file__).parents[1])
    command = [sys.executable, "-c", KILLED_BUILD, home, str(tmp_path / "images"), str(cache)]
    assert (
        subprocess.run(command, cwd=home, check=False, capture_output=True).returncode
        == -signal.SIGKILL
    )
    part = cache / f"test-split-{SIDE}.part"
    assert part.is_dir()
    assert not (cache / f"test-split-{SIDE}").exists()
    noted = [json.loads(line) for line in (part / "done.jsonl").read_text().split("\n") if line]
    assert noted
    # As after a power failure: what was noted is not there, and a note is cut short.
    torn = shutil.copytree(cache, tmp_path / "torn") / part.name
    (torn / "images.bin").write_bytes(b"torn" + (torn / "images.bin").read_bytes()[4:])
    with open(torn / "done.jsonl", "a") as file:
        file.write('\n{"number": 3, "cr')
    monkeypatch.setattr(cache_build, "CHUNK_BYTES", 5_000)
    fresh = files_of(open_store(split, tmp_path / "fresh", SIDE))
    for left, first_is_good in ((part, 0 in {row["number"] for row in noted}), (torn, False)):
        again, reads = counted(split)
        store = open_store(again, left.parent, SIDE)
        assert len(reads) < COUNT
        assert (0 not in reads) == first_is_good
        assert not left.exists()
        assert files_of(store) == fresh


@pytest.mark.parametrize("renamed", [False, True])
def test_a_build_killed_at_its_very_end_decodes_nothing_again(
    renamed: bool, split: Split, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.replace

    def killed(source: Path, target: Path) -> None:
        last = source.is_dir()
        if renamed or not last:
            rename(source, target)
        if last:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            open_store(split, cache, SIDE)
    again, reads = counted(split)
    store = open_store(again, cache, SIDE)
    assert not reads
    assert files_of(store) == files_of(open_store(split, tmp_path / "fresh", SIDE))
    assert {path.name for path in store.folder.iterdir()} == {
        "images.bin",
        "index.npz",
        "ids.json",
        "meta.json",
    }


def test_a_half_built_cache_of_other_images_is_not_gone_on_with(
    split: Split, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_build, "CHUNK_BYTES", 5_000)

    def interrupt(index: int) -> None:
        if index == COUNT - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_store(counted(split, interrupt)[0], cache, SIDE, workers=1)
    assert (cache / f"test-split-{SIDE}.part").is_dir()
    path = tmp_path / "images" / "0.png"
    Image.fromarray(read_image(path)[::-1]).save(path)
    again, reads = counted(split)
    store = open_store(again, cache, SIDE)
    assert len(reads) == COUNT
    assert files_of(store) == files_of(open_store(split, tmp_path / "fresh", SIDE))


def test_two_builders_at_once_build_once(split: Split, cache: Path) -> None:
    announced: list[str] = []
    stores: list[ImageStore] = []
    threads = [
        threading.Thread(
            target=lambda: stores.append(open_store(split, cache, SIDE, announce=announced.append))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(announced) == 1
    assert [len(store) for store in stores] == [COUNT] * 4


def test_two_processes_at_once_build_once(split: Split, cache: Path, tmp_path: Path) -> None:
    """Real ones, told to begin together; none finds half a store, and the images are those of one
    builder."""
    program = (
        "import sys, pickle\nfrom data.cache import open_store\n"
        "split, cache, side = pickle.loads(sys.stdin.buffer.read())\n"
        "store = open_store(split, cache, side)\nprint(len(store))"
    )
    command = [sys.executable, "-c", program]
    work = pickle.dumps((split, cache, SIDE))
    house = Path(data.__file__).parents[1]
    builders = [
        subprocess.Popen(command, cwd=house, stdin=-1, stdout=-1, stderr=-1) for _ in range(2)
    ]
    for builder in builders:
        assert builder.stdin is not None
        builder.stdin.write(work)
        builder.stdin.close()
    said = []
    for builder in builders:
        assert builder.stdout is not None
        assert builder.stderr is not None
        assert builder.stdout.read() == b"40\n"
        said.append(builder.stderr.read())
        assert builder.wait() == 0
        builder.stdout.close()
        builder.stderr.close()
    assert sorted(b"Decoding" in words for words in said) == [False, True]
    assert files_of(open_store(split, cache, SIDE)) == files_of(
        open_store(split, tmp_path / "fresh", SIDE)
    )
