"""What the benchmarks share: interleaved timings, their spread, images, and provenance."""

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


def spread(values: list[float]) -> dict[str, float]:
    """Count, least, median and largest."""
    least, most = min(values), max(values)
    return {"n": len(values), "min": least, "median": statistics.median(values), "max": most}


def interleaved(
    steps: Mapping[str, Callable[[], object]], images: int, rounds: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Time every step once a round, in turn, for so many rounds or seconds (three rounds at least).

    Returns the spread of each one's images per second. The first, untimed round warms up.
    """
    rates: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    for number in range(rounds + 1):
        for name, step in steps.items():
            _wait()
            started = time.perf_counter()
            step()
            _wait()
            if number:
                rates[name].append(round(images / (time.perf_counter() - started), 1))
        if number >= 3 and time.perf_counter() > end:
            break
    return {name: spread(each) for name, each in rates.items()}


class DrawnImages:
    """Seeded uint8 images of one size in memory, as a decoded store has them, of 10 classes."""

    def __init__(self, count: int, side: int) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (64, side, side, 3)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, 10, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> torch.Tensor:
        return self.images[index % 64]


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def provenance(device: torch.device, *libraries: str) -> dict[str, str]:
    """When, where and by which code something is measured."""
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(device),
        "python": platform.python_version(),
        **{library: version(library) for library in ("torch", "torchvision", *libraries)},
        "code_version": code_version(),
    }


def write(path: Path, device: torch.device, content: Mapping[str, Any], *libraries: str) -> None:
    """Write the content and its provenance as JSON."""
    path.parent.mkdir(exist_ok=True, parents=True)
    about = provenance(device, *libraries)
    path.write_text(json.dumps({"about": about, **content}, indent=1, default=str) + "\n")
    print(f"written to {path}")
