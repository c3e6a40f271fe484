"""What the whole study takes on 1, 8 and 64 GPUs: arithmetic from FLOPs and published rates,
nothing measured.

The tables of docs/scaling.md are what this prints: python -m benchmarks.scaling
"""

import csv
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ablations

SEEDS, BATCH = 3, 512
TRAIN, VALIDATION, TEST = 68_175, 7_575, 25_250
"""Food-101's images: 675, 75 and 250 of each of its 101 classes."""
RESNET50 = {"real images": 2_734, "synthetic images": 3_378}
"""Training images a second of ResNet-50 on one H100 (fp16, eager, channels last), published by
milabench; synthetic ones in batches of 128, the published size that is nearest to the 64 of a part
of the study's batch."""
DEPTHWISE = (819 * 4.456) / (1_218 * 4.089)
"""FLOP/s of ConvNeXt-T over those of ResNet-50, from both rates on an RTX 3090, published by
timm."""
FORWARD = 1 / 3
"""Of an update's time that an image of an evaluation takes."""
DOLLARS = 2.50
"""An hour of one H100: an assumption, prices differ by a factor of three."""
CORE = 2_100
"""Training images that one core prepares a second, measured (benchmarks/results/images.json)."""
IMAGE_BYTES, WEIGHTS_BYTES = 305 * 406 * 3, 4 * 28_589_128
"""A decoded image of 4:3 in the cache (docs/images.md); ConvNeXt-T's weights in float32."""


@dataclass(frozen=True)
class Network:
    name: str
    gflops: float
    """Multiply-adds of an image, forward, in the paper's convention."""
    depthwise: bool
    classic: bool

    def rate(self, resnet50: float) -> float:
        """Training images a second where ResNet-50 makes `resnet50`: in proportion to the FLOPs."""
        return resnet50 * 4.089 / self.gflops * (DEPTHWISE if self.depthwise else 1)

    def hours(self, epochs: int, resnet50: float) -> float:
        """Of one run, its evaluations included."""
        trained = epochs * (TRAIN // BATCH) * BATCH
        return (trained + FORWARD * (epochs * VALIDATION + TEST)) / self.rate(resnet50) / 3600


def networks() -> list[Network]:
    """The roadmap's 17 rows in regime tiny. The baseline has its own epochs, the depthwise ones
    begin with step 4."""
    path = Path(ablations.__file__).parent / "paper.csv"
    with path.open(newline="") as file:
        rows = [
            row for row in csv.DictReader(file) if row["regime"] == "tiny" and row["gflops_recount"]
        ]
    first = [row["step"] for row in rows].index("depthwise")
    return [
        Network(row["step"], float(row["gflops_recount"]), number >= first, number == 0)
        for number, row in enumerate(rows)
    ]


def makespan(hours: Sequence[float], gpus: int) -> float:
    """Hours until all runs are made, each on one GPU, the longest first."""
    busy = [0.0] * gpus
    for run in sorted(hours, reverse=True):
        heapq.heappush(busy, heapq.heappop(busy) + run)
    return max(busy)


def study(epochs: int, resnet50: float) -> list[float]:
    """Hours of every run of a study of `epochs` epochs; the baseline's are in the paper's
    proportion, 90 of 300."""
    return [
        network.hours(round(epochs * 0.3) if network.classic else epochs, resnet50)
        for network in networks()
        for _ in range(SEEDS)
    ]


def study_table() -> str:
    lines = [
        "| epochs | rate taken | GPU-hours | 1 GPU | 8 GPUs | 64 GPUs | 64, perfectly shared | "
        "money |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for epochs in (300, 90):
        for source, resnet50 in RESNET50.items():
            hours = study(epochs, resnet50)
            spans = " | ".join(
                f"{span / 24:.1f} days" if span > 48 else f"{span:.1f} h"
                for span in (
                    makespan(hours, 1),
                    makespan(hours, 8),
                    makespan(hours, 64),
                    sum(hours) / 64,
                )
            )
            lines.append(
                f"| {epochs} | {source} | {sum(hours):.0f} | {spans} | "
                f"{sum(hours) * DOLLARS:,.0f} USD |"
            )
    return "\n".join(lines)


def network_table() -> str:
    lines = [
        "| network | GFLOPs | images/s | hours a run of 300 epochs | cores to feed it |",
        "|---|---|---|---|---|",
    ]
    for network in networks():
        slow, fast = (network.rate(rate) for rate in RESNET50.values())
        epochs = 90 if network.classic else 300
        took = " to ".join(
            f"{network.hours(epochs, rate):.1f}" for rate in reversed(RESNET50.values())
        )
        note = " (90 epochs)" if network.classic else ""
        lines.append(
            f"| {network.name} | {network.gflops} | {slow:,.0f} to {fast:,.0f} | {took}{note} | "
            f"{slow / CORE:.1f} to {fast / CORE:.1f} |"
        )
    return "\n".join(lines)


def limits_table() -> str:
    last = next(network for network in networks() if network.name == "separate-downsampling")
    rate = last.rate(RESNET50["synthetic images"])
    epoch = (TRAIN + FORWARD * VALIDATION) / rate
    read, written = rate * IMAGE_BYTES / 1e9, 4 * WEIGHTS_BYTES / epoch / 1e6
    lines = ["| of ConvNeXt-T at its faster rate | one GPU | 8 | 64 |", "|---|---|---|---|"]
    for name, value, unit, digits in (
        ("cores that prepare images", rate / CORE, "", 1),
        ("read, where decoded images are not in memory", read, " GB/s", 1),
        ("written, a checkpoint and the best weights each epoch", written, " MB/s", 0),
    ):
        lines.append(
            f"| {name} | {' | '.join(f'{value * gpus:,.{digits}f}{unit}' for gpus in (1, 8, 64))} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print("\n\n".join((study_table(), network_table(), limits_table())))
