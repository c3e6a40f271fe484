"""The image store: exact, built once, and refused where it is damaged or not of these images."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.decode import read_image, resize, resized_shape
from data.image_store import ImageStore, open_store
from data.splits import Files, Split

COUNT, SIDE = 40, 24
ROOT = Path(__file__).parents[2]
BUILD = """
import os, pickle, resource, signal, sys
import data.splits
from data.image_store import open_store
split, cache, side, kill, limit = pickle.loads(sys.stdin.buffer.read())
read = data.splits.read_image
def killed(path):
    if path.name == kill:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(path)
data.splits.read_image = killed
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    print(len(open_store(split, cache, side, workers=2)))
except OSError as error:
    print(error)
"""


def build(split: Split, cache: Path, kill: str = "", limit: int = 0) -> subprocess.Popen:
    """Build the store in another process, which kills itself before it reads the image `kill`."""
    command = [sys.executable, "-c", BUILD]
    process = subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, stderr=-1)
    assert process.stdin is not None
    process.stdin.write(pickle.dumps((split, cache, SIDE, kill, limit)))
    process.stdin.close()
    process.stdin = None
    return process


def contents(store: ImageStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.folder.iterdir()}


def test_a_store_holds_every_image_resized(split: Split, cache: Path) -> None:
    store = open_store(split, cache, SIDE)
    assert len(store) == COUNT
    assert store.ids == split.ids
    assert store.labels.tolist() == list(split.labels)
    for index in range(COUNT):
        image = split.read(index)
        expected = resize(image, resized_shape(image.shape[0], image.shape[1], SIDE))
        assert torch.equal(store[index], torch.from_numpy(expected.copy()))
        assert store.shapes[index].tolist() == list(expected.shape[:2])
    assert store.nbytes == (store.folder / "images.bin").stat().st_size
    assert store[1].untyped_storage().data_ptr() == store[2].untyped_storage().data_ptr()


def test_a_store_travels_to_other_processes_as_a_path(split: Split, cache: Path) -> None:
    store = open_store(split, cache, SIDE)
    parcel = pickle.dumps(store)
    assert len(parcel) < 1000
    assert torch.equal(pickle.loads(parcel)[7], store[7])


def test_a_second_opening_decodes_nothing(split: Split, cache: Path, monkeypatch) -> None:
    open_store(split, cache, SIDE)
    with monkeypatch.context() as patch:
        patch.setattr("data.splits.read_image", None)
        assert len(open_store(split, cache, SIDE)) == COUNT
    assert len(open_store(split, cache, SIDE + 1)) == COUNT


def test_the_store_is_the_same_for_any_number_of_workers(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_store(split, tmp_path / "one", SIDE, workers=1)
    monkeypatch.setattr("data.image_store.BLOCK", 7)
    four = open_store(split, tmp_path / "four", SIDE, workers=4)
    assert contents(one) == contents(four)


def test_a_killed_build_leaves_no_store_and_is_built_again(
    split: Split, cache: Path, tmp_path: Path
) -> None:
    process = build(split, cache, kill="30.png")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in cache.glob("test*")] == [f"test-split-{SIDE}.part"]
    store = open_store(split, cache, SIDE)
    assert contents(store) == contents(open_store(split, tmp_path / "fresh", SIDE))
    assert [path.name for path in cache.iterdir()] == [f"test-split-{SIDE}"]


def test_a_store_of_another_version_is_built_again(split: Split, cache: Path) -> None:
    store = open_store(split, cache, 64)
    meta = store.folder / "meta.json"
    current = meta.read_text()
    meta.write_text(json.dumps(json.loads(current) | {"version": 1}))
    assert open_store(split, cache, 64).ids == store.ids
    assert meta.read_text() == current


def test_two_processes_at_once_build_once(split: Split, cache: Path, tmp_path: Path) -> None:
    answers = [process.communicate() for process in [build(split, cache) for _ in range(2)]]
    assert [out for out, _ in answers] == [b"40\n", b"40\n"]
    assert sorted(b"Decoding 40 images of test-split once" in err for _, err in answers) == [0, 1]
    fresh = open_store(split, tmp_path / "fresh", SIDE)
    assert contents(open_store(split, cache, SIDE)) == contents(fresh)


def test_unreadable_images_are_named_and_left_out_only_on_request(
    split: Split, cache: Path, tmp_path: Path
) -> None:
    for number in (2, 7):
        (tmp_path / "images" / f"{number}.png").unlink()
    os.mkfifo(tmp_path / "images/2.png")
    (tmp_path / "images/5.png").write_text("not an image at all")
    spoiled = {"c/2": "a pipe", "c/5": "not an image", "c/7": "no such file"}
    with pytest.raises(ValueError, match="^3 of 40 images of test-split cannot be read") as caught:
        open_store(split, cache, SIDE)
    message = str(caught.value)
    assert message.isprintable()
    assert all(f"{name}: " in message and reason in message for name, reason in spoiled.items())
    assert not list(cache.iterdir())
    store = open_store(split, cache, SIDE, skip_unreadable=True)
    assert store.ids == tuple(name for name in split.ids if name not in spoiled)
    assert store.skipped == tuple(spoiled)
    with pytest.raises(ValueError, match="built without 3 unreadable images"):
        open_store(split, cache, SIDE)


def test_a_split_without_a_readable_image_is_refused(cache: Path, tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{number}.jpg" for number in range(50))
    lost = Split("lost", tuple(path.name for path in paths), (0,) * 50, Files(paths))
    with pytest.raises(ValueError, match="50 of 50 images of lost cannot .* and 40 more"):
        open_store(lost, cache, SIDE, skip_unreadable=True)


def test_images_changed_since_they_were_decoded_are_noticed(
    split: Split, cache: Path, tmp_path: Path
) -> None:
    open_store(split, cache, SIDE)
    path = tmp_path / "images" / "9.png"
    Image.fromarray(read_image(path)[::-1]).save(path)
    with pytest.raises(ValueError, match=r"^1 images changed .* \(c/9\); delete .* build it again"):
        open_store(split, cache, SIDE)
    fewer = split.take(range(COUNT - 1), split.name)
    other_labels = Split(split.name, split.ids, (0,) * COUNT, split.source)
    for changed in (fewer, other_labels):
        with pytest.raises(ValueError, match="came, went or changed their class"):
            open_store(changed, cache, SIDE)


@pytest.mark.parametrize("name", ["images.bin", "index.npz", "meta.json"])
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
    with pytest.raises((OSError, ValueError), match="delete .* to build it again"):
        open_store(split, cache, SIDE)


def test_a_planted_pickle_is_not_executed(split: Split, cache: Path, tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    store = open_store(split, cache, SIDE)
    np.save(store.folder / "planted.npy", np.array([Planted()], object), allow_pickle=True)
    shutil.move(store.folder / "planted.npy", store.folder / "index.npz")
    with pytest.raises(OSError, match="delete it to build it again"):
        open_store(split, cache, SIDE)
    assert not (tmp_path / "executed").exists()


def test_too_little_disk_is_found_before_anything_is_decoded(
    split: Split, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.splits.image_size", lambda path: (3 * 10**6, 3 * 10**6))
    with pytest.raises(OSError, match=r"^the image cache of test-split needs .* GB and the disk"):
        open_store(split, cache, 3 * 10**6)


def test_a_write_that_fails_is_one_line_and_leaves_nothing(split: Split, cache: Path) -> None:
    """With a real limit on the size of files, as a quota hit in mid-write."""
    answer, _ = build(split, cache, limit=20_000).communicate()
    expected = f"the image cache {cache / 'test-split-24'} could not be written (File too large)"
    assert answer.decode().startswith(expected)
    assert answer.count(b"\n") == 1
    assert not list(cache.iterdir())
    with pytest.raises(OSError, match=r"^the image cache /proc/none/.* could not be written"):
        open_store(split, Path("/proc/none"), SIDE)
