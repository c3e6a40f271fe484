"""Disks that fill up, turn read-only or vanish in mid-run: real ones, file systems in memory of a
size we choose.

Where this process may not mount them, all of it is run once more in a user namespace, where it may.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import runner
from data import image_store
from data.image_store import open_store
from report import page
from studies import run_queue
from studies.study import read_json
from tests import food101
from training import checkpoint, records, train
from training.interrupt import StopRequest
from utils.files import write_json

pytestmark = pytest.mark.slow
_INSIDE = "CONVNEXT_TESTS_MAY_MOUNT"
_IN_A_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]


def call(*command: object) -> bool:
    try:
        return (
            subprocess.run(
                [str(word) for word in command], capture_output=True, check=False
            ).returncode
            == 0
        )
    except FileNotFoundError:
        return False


def may_mount(folder: Path) -> bool:
    return call("mount", "-t", "tmpfs", "tmpfs", folder) and call("umount", folder)


class Disk:
    """A separate file system, and what may happen to it."""

    def __init__(self, root: Path, size: str, inodes: int) -> None:
        self.root, self.kept = root, root.with_name("kept")
        for folder in (root, self.kept):
            folder.mkdir()
        assert call("mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes}", "tmpfs", root)
        assert call("mount", "--bind", root, self.kept)

    def fill(self, leave: int = 0) -> None:
        free = shutil.disk_usage(self.root).free - leave
        (self.root / "filler").write_bytes(bytes(max(free, 0)))

    def use_all_names(self) -> None:
        (self.root / "fillers").mkdir()
        try:
            for number in range(10_000):
                (self.root / "fillers" / str(number)).touch()
        except OSError:
            return
        raise AssertionError("the disk has names without end")

    def make_read_only(self) -> None:
        assert call("mount", "--bind", self.root, self.root)
        assert call("mount", "-o", "remount,bind,ro", self.root)

    def vanish(self) -> None:
        assert call("umount", "--lazy", self.root)

    def delete(self) -> None:
        for path in self.root.iterdir():
            shutil.rmtree(path)

    def heal(self) -> None:
        """As it was, with free space."""
        while call("umount", "--lazy", self.root):
            pass
        assert call("mount", "--bind", self.kept, self.root)
        (self.root / "filler").unlink(missing_ok=True)
        shutil.rmtree(self.root / "fillers", ignore_errors=True)

    def close(self) -> None:
        for folder in (self.root, self.kept):
            while call("umount", "--lazy", folder):
                pass


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """An empty disk of 60 MB at `tmp_path`/disk."""
    (tmp_path / "try").mkdir()
    if not may_mount(tmp_path / "try"):
        pytest.skip(
            "this process may not mount a file system (test_in_a_namespace runs it where one may, "
            "if one may)"
        )
    made = Disk(tmp_path / "disk", "60m", 200)
    yield made
    made.close()


def test_in_a_namespace(tmp_path: Path) -> None:
    if os.environ.get(_INSIDE) or may_mount(tmp_path):
        pytest.skip("this process may mount by itself")
    if not call(*_IN_A_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", tmp_path):
        pytest.skip(
            "neither root nor a user namespace is to be had here, so no file system of a chosen "
            "size"
        )
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        __file__,
        "--basetemp",
        str(tmp_path / "inside"),
    ]
    done = subprocess.run(
        [*_IN_A_NAMESPACE, *tests],
        env={**os.environ, _INSIDE: "1"},
        cwd=Path(runner.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed, 1 skipped" in done.stdout  # this one


def once(function: Callable, call_number: int, event: Callable[[], None]) -> Callable:
    """`function`, before whose `call_number`-th call something happens."""
    calls = []

    def wrapped(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == call_number:
            event()
        return function(*args, **kwargs)

    return wrapped


def outcome(folder: Path) -> dict[str, object]:
    """All of a finished run that must not depend on what happened to its disk."""
    result = read_json(folder / "result.json")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {
        "weights": (folder / "model.safetensors").read_bytes(),
        "predictions": (folder / "predictions.csv").read_bytes(),
        "result": {key: result[key] for key in ("top1", "loss", "selected_epoch")},
        "metrics": [line.partition(', "images_per_second"')[0] for line in lines],
    }


FULL = "No space left"
EVENTS = {
    "full at config": ((records, "begin", 1), Disk.fill, "config.json", FULL),
    "full at weights": ((records, "save_weights", 1), Disk.fill, "model.safetensors", FULL),
    "full at metrics": ((train, "write_atomically", 2), Disk.fill, "metrics.jsonl", FULL),
    "full at checkpoint": ((checkpoint, "save", 2), Disk.fill, "checkpoint.pt", FULL),
    "full at result": ((records, "architecture_complexity", 1), Disk.fill, "result.json", FULL),
    "no names left": ((checkpoint, "save", 2), Disk.use_all_names, "checkpoint.pt", FULL),
    "read-only": ((train, "evaluate", 2), Disk.make_read_only, "", "Read-only file system"),
    "vanished": ((train, "evaluate", 2), Disk.vanish, "", "No such file"),
    "deleted": ((train, "evaluate", 2), Disk.delete, "", "No such file"),
}
"""Before which call of a function it happens, what happens, the file and the reason named."""
NOTHING_SAVED = ("full at config", "full at weights", "deleted")
WHOLE: list[dict[str, object]] = []
"""The outcome of the same run on a disk that did not fail, made once."""


@pytest.mark.parametrize("event", EVENTS)
def test_a_failing_disk_is_one_line_and_the_run_ends_as_if_it_had_not_failed(
    event, disk, make_run, stores, execution, monkeypatch
) -> None:
    (module, name, number), happens, file, reason = EVENTS[event]
    run = make_run("13", study="disk/study", epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, once(getattr(module, name), number, lambda: happens(disk)))
        with pytest.raises(
            OSError, match=rf"^{run.title} was stopped by its disk: [^\n]*{file}[^\n]* \({reason}"
        ) as caught:
            run_queue.run_all([run], stores, execution, StopRequest())
    assert caught.value.errno is None  # a message, and exit code 1 (runner.main)
    disk.heal()
    # What was saved is whole, and there is no half written file.
    saved = checkpoint.load_latest(run.folder / checkpoint.NAME)
    assert (saved is not None) == (event not in NOTHING_SAVED)
    assert not list(disk.root.rglob("*.part"))
    assert not (run.folder / "result.json").exists()
    assert run_queue.run_all([run], stores, execution, StopRequest()) == 0
    if not WHOLE:
        whole = make_run("13", study="whole", epochs=2)
        run_queue.run_all([whole], stores, execution, StopRequest())
        WHOLE.append(outcome(whole.folder))
    assert outcome(run.folder) == WHOLE[0]


def test_through_the_command_line_it_is_exit_code_1_and_the_same_command_goes_on(
    disk, images, tmp_path, capsys, monkeypatch
) -> None:
    options = "--preset pocket --study s --resolution 32 --epochs 2 --warmup-epochs 0 --device cpu"
    places = ["--data-dir", str(tmp_path), "--runs", str(disk.root)]
    data = ["--dataset", f"imagefolder:{images}", "--steps", "3", "--batch-size", "24"]
    command = ["all", *options.split(), *data, *places, "--no-trial"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", once(checkpoint.save, 2, lambda: disk.fill(4096)))
        assert runner.main(command) == 1
    printed = capsys.readouterr().err
    assert printed.count("runner.py: ") == 1
    assert "patchify-stem seed 0 was stopped by its disk" in printed
    assert "Traceback" not in printed
    disk.heal()
    assert runner.main(command) == 0
    assert "to resume" in capsys.readouterr().out


@pytest.fixture
def finished(disk, make_run, stores, execution) -> Path:
    """A finished run of one epoch, on the disk."""
    run = make_run("13", study="disk/study", epochs=2)
    train.train(run.spec, stores, execution, StopRequest())
    return run.folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_report_that_does_not_fit_leaves_the_one_before(finished, disk, capsys) -> None:
    study = finished.parents[1]
    described = read_json(study / "study.json")
    described["dataset"] = {
        "name": "x",
        "description": "x",
        "synthetic": False,
        "classes": ["a", "b", "c"],
        "train": 72,
        "validation": 9,
        "test": 9,
        "skipped": {},
    }
    write_json(study / "study.json", described)
    page.write(study)
    before = contents(study / "report")
    disk.fill(30_000)
    assert runner.main(["report", "--study", str(study)]) == 1
    assert "the report of" in (printed := capsys.readouterr().err)
    assert "could not be written (No space left on device)" in printed
    assert contents(study / "report") == before
    assert not list(study.glob(".report*"))


@pytest.mark.parametrize("form", ["safetensors", "torch-export"])
def test_an_export_that_does_not_fit_leaves_nothing(form, finished, disk, capsys) -> None:
    disk.fill(12_288)
    before = sorted(disk.root.iterdir())
    out = disk.root / "out"
    assert runner.main(["export", "--run", str(finished), "--out", str(out), "--format", form]) == 1
    printed = capsys.readouterr().err
    assert (
        f"the export {out} could not be written (No space left on device); nothing was left there"
        in printed
    )
    assert "Traceback" not in printed
    assert sorted(disk.root.iterdir()) == before


def test_a_cache_that_does_not_fit_after_all_is_built_again(
    disk, dataset, stores, monkeypatch
) -> None:
    monkeypatch.setattr(image_store, "require_free", lambda *_: disk.fill(50_000))
    with pytest.raises(OSError, match=r"could not be written \(No space left on device\)"):
        open_store(dataset.train, disk.root, 37)
    monkeypatch.undo()
    disk.heal()
    store = open_store(dataset.train, disk.root, 37)
    for name in ("images.bin", "index.npz", "meta.json"):
        assert (store.folder / name).read_bytes() == (stores.train.folder / name).read_bytes()


def test_a_data_set_on_a_read_only_disk_is_trained_on_with_its_cache_elsewhere(
    disk, tmp_path, capsys
) -> None:
    food101.write(disk.root / "food-101", train=3, test=1)
    disk.make_read_only()
    options = "--preset pocket --dataset food101 --resolution 32 --epochs 1 --warmup-epochs 0"
    places = ["--data-dir", str(disk.root), "--runs", str(tmp_path / "runs")]
    command = ["train", "3", *options.split(), *places, "--batch-size", "10", "--device", "cpu"]
    command.append("--no-trial")
    assert runner.main(command) == 2
    printed = capsys.readouterr().err
    assert "the folder of decoded images (--cache-dir)" in printed
    assert "Read-only file system" in printed
    assert not (tmp_path / "runs").exists()
    (tmp_path / "cache").mkdir()
    assert runner.main([*command, "--cache-dir", str(tmp_path / "cache")]) == 0
    # A data folder that is complete, cache and all, has to be read only.
    disk.heal()
    shutil.copytree(tmp_path / "cache", disk.root / "cache")
    disk.make_read_only()
    assert runner.main([*command, "--runs", str(tmp_path / "again")]) == 0
