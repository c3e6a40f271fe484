"""Fixtures that tests share: few small images, and a study of one finished run."""

import collections
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # processes that share the cores; read when torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
from PIL import Image

import runner

os.environ.setdefault("GOMP_SPINCOUNT", runner.SPINS)  # as in a command

BuildOnce = Callable[[str, Callable[[Path], object]], Path]


def pytest_configure() -> None:
    """Tests write in memory if it has space: each file that a run makes safe waits milliseconds
    for a disk."""
    memory = Path("/dev/shm")
    if (
        not memory.is_dir()
        or not os.access(memory, os.W_OK)
        or os.statvfs(memory).f_flag & os.ST_NOEXEC
    ):
        return
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    space = min(shutil.disk_usage(memory).free, int(available[1]) * 1024 if available else 0)
    if space > 2 * 2**30:  # half a gigabyte was in use at most
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores, eight at most: a test that waits for a process of its own leaves its
    core to another."""
    return min(8, (os.cpu_count() or 1) + 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each process begins with its share of the slow tests, so that none is left alone with one at
    the end."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = [item for item in items if not item.get_closest_marker("slow")]
    items.clear()
    for worker in range(workers):
        items += (
            slow[worker::workers]
            + quick[len(quick) * worker // workers : len(quick) * (worker + 1) // workers]
        )


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what this user's runs remember."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))


@pytest.fixture(scope="session", autouse=True)
def fast_settings() -> Iterator[None]:
    """What is timed is timed as seldom, and what is drawn is as coarse, as may be: few tests ask
    how fast or fine."""
    from report import plots
    from studies import cost_estimate
    from training import records

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "_TIMING_SECONDS", 0.0)
        patch.setattr(cost_estimate, "_TRIES", 1)
        patch.setattr(cost_estimate, "_IMAGES_SECONDS", 0.0)
        patch.setattr(plots, "_DPI", 40)
        yield


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of reports are drawn and not written, where something else is asked of a
    command."""
    from report import page

    drawn = page.drawn

    def forget(summary: object) -> Iterator[object]:
        collections.deque(drawn(summary), maxlen=0)
        yield from ()

    monkeypatch.setattr(page, "drawn", forget)


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> BuildOnce:
    """build_once(name, make): a folder that `make` has filled, once for all processes of this
    session. To be read."""
    from utils.files import one_writer

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = shared / "shared" / name, shared / "shared" / f"{name}.whole"
        folder.parent.mkdir(exist_ok=True)
        with one_writer(folder), pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(folder.parent / ".cache"))
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def images(build_once: BuildOnce) -> Path:
    """A folder with one folder a class: 3 classes of 30 JPEGs that differ in the direction of their
    stripes."""

    def draw(root: Path) -> None:
        rng = np.random.default_rng(0)
        y, x = np.mgrid[:40, :48]
        for name, wave in (("across", y), ("diagonal", x + y), ("down", x)):
            (root / name).mkdir()
            for i in range(30):
                stripes = np.sin(wave * rng.uniform(0.5, 0.9) + rng.uniform(0, 6))[..., None]
                pixels = (
                    128 + 90 * stripes * rng.uniform(0.4, 1, 3) + rng.normal(0, 12, (40, 48, 3))
                )
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                    root / name / f"{i:02}.jpg"
                )

    return build_once("images", draw)


def files(folder: Path) -> set[str]:
    """What lies in a folder, at any depth."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def quick_study(tmp_path: Path, images: Path) -> list[str]:
    """Options that put everything of a quick study on small images under tmp_path."""
    (tmp_path / "data").mkdir()
    return [
        "--preset",
        "pocket",
        "--dataset",
        f"imagefolder:{images}",
        "--runs",
        str(tmp_path / "runs"),
        "--data-dir",
        str(tmp_path / "data"),
        "--study",
        "quick",
        "--resolution",
        "32",
        "--epochs",
        "1",
        "--warmup-epochs",
        "0",
        "--batch-size",
        "24",
    ]


STUDY = [
    "--preset",
    "pocket",
    "--study",
    "s",
    "--steps",
    "3",
    "--resolution",
    "32",
    "--epochs",
    "2",
    "--warmup-epochs",
    "0",
    "--batch-size",
    "24",
    "--device",
    "cpu",
    "--workers",
    "0",
]
"""A request for the study that `finished_study` holds, without its places."""


def places_in(root: Path, images: Path) -> list[str]:
    """Options that put a study's runs and decoded images below `root`."""
    runs = str(root / "runs")
    return ["--dataset", f"imagefolder:{images}", "--data-dir", str(root), "--runs", runs]


@pytest.fixture(scope="session")
def finished_study(build_once: BuildOnce, images: Path) -> Path:
    """A folder with a study of one finished run, and decoded images. Not to be changed."""

    def train(root: Path) -> None:
        assert runner.main(["all", *STUDY, *places_in(root, images), "--no-trial"]) == 0

    return build_once("finished_study", train)


@pytest.fixture
def study_places(finished_study: Path, images: Path, tmp_path: Path) -> list[str]:
    """Options of a copy of `finished_study` that a test may damage."""
    shutil.copytree(finished_study, tmp_path / "finished_study")
    return places_in(tmp_path / "finished_study", images)
