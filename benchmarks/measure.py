"""What the benchmarks share: interleaved timings, their spread, images, and where a result was
measured."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from training.device import code_version, device_name

RESULTS = Path(__file__).parent / "results"


def interleaved(
    steps: Mapping[str, Callable[[], object]], images: int, rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Time every step once a round, in turn, for so many rounds or seconds (three rounds at least).

    Returns for each its images per second: n timings, min, median and max. The first, untimed round
        warms up.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    for number in range(rounds + 1):
        for name, step in steps.items():
            _wait()
            started = time.perf_counter()
            step()
            _wait()
            if number:
                times[name].append(time.perf_counter() - started)
        if number >= 3 and time.perf_counter() > end:
            break
    return {
        name: {
            "n": len(each),
            "min": round(images / max(each), 1),
            "median": round(images / statistics.median(each), 1),
            "max": round(images / min(each), 1),
        }
        for name, each in times.items()
    }


class VarianceComponents:
    """Seeded uint8 images of one size in memory, as a decoded store has them; labels of 10
    classes."""

    def __init__(self, count: int, side: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(
            0, 256, (64, side, side, 3), dtype=torch.uint8, generator=generator
        )
        self.labels = torch.randint(0, 10, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> torch.Tensor:
        return self.images[index % 64]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def write(
    name: str,
    device: torch.device,
    content: Mapping[str, Any],
    *libraries: str,
    folder: Path = RESULTS,
) -> dict[str, str]:
    """NAME.json in `folder`: the content and its provenance, which is returned."""
    about = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(device),
        "python": platform.python_version(),
        **{library: version(library) for library in ("torch", "torchvision", *libraries)},
        "code_version": code_version(),
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"about": about, **content}, indent=1) + "\n")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return about
