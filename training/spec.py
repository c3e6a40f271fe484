"""One run as data: what to train, how, by which processes, its files. No torch here."""

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models import Architecture, SwinArchitecture
from training.recipe import InitialWeights, Precision, Recipe

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.jsonl"
RESULT = "result.json"
"""In a run's folder; its presence says that the run is finished."""
WEIGHTS = "model.safetensors"
"""In a run's folder from its first epoch on; not in a run that came out of a pack."""
ABOUT = "about"
"""Key of the weights' metadata: JSON that describes the network and its images."""


@dataclass(frozen=True)
class RunSpec:
    """All that training needs to know of one run."""

    folder: Path
    step: str
    number: int | None
    seed: int
    architecture: Architecture | SwinArchitecture
    recipe: Recipe
    resolution: int
    """Side of the images that the network sees, in pixels."""
    short_side: int
    """Shorter side of the decoded images, in pixels."""
    precision: Precision
    study: str
    """Name of the study."""
    study_hash: str
    identity: Mapping[str, Any]
    """For config.json: "digest" and "variant_digest", and all that they are computed from."""
    init_weights: Path | None = None
    """File of initial weights; None for random ones."""
    init_weights_record: InitialWeights | None = None
    """Name and checksum of that file when the study was created."""

    @property
    def title(self) -> str:
        return f"{self.step} seed {self.seed}"

    @property
    def digest(self) -> str:
        return str(self.identity["digest"])


@dataclass(frozen=True)
class RankInfo:
    """A process among those that torchrun started for a run; by default the only one."""

    rank: int = 0
    """Its number over all machines, from 0. The first process decides, writes and logs."""
    count: int = 1
    local_rank: int = 0
    """Its number on this machine, and that of its device there."""
    local_count: int = 1
    """Processes on this machine."""


def rank_info(environment: Mapping[str, str] = os.environ) -> RankInfo:
    """Read torchrun's environment variables."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return RankInfo()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return RankInfo(*(int(environment[name]) for name in names))


def short_side(resolution: int, crop_scale: tuple[float, float] = (0.08, 1.0)) -> int:
    """Shorter side of the decoded images, in pixels (docs/method.md has the measurement).

    As large as evaluation looks at them, which crops the central 87.5 %
    (`data.augment.centre_crop`), and large enough for a square crop of mean area to be no smaller
    than what the network sees.
    """
    return math.ceil(resolution / min(0.875, math.sqrt(sum(crop_scale) / 2)))


HEADER = ("image", "label", "p_label", "p_top1")
DIGITS = 4
"""Significant digits of a probability (docs/decisions.md#pack)."""


def predictions_csv(
    ids: Iterable[str],
    labels: Iterable[int],
    p_labels: Iterable[float],
    p_tops: Iterable[float],
    tops: Sequence[Sequence[int]],
) -> bytes:
    """The content of predictions.csv, one row per image; `tops` holds class indices, best first."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*HEADER, *(f"top{i + 1}" for i in range(len(tops[0])))])
    for image, label, p, best, top in zip(ids, labels, p_labels, p_tops, tops, strict=True):
        writer.writerow([image, label, f"{p:.{DIGITS}g}", f"{best:.{DIGITS}g}", *top])
    return file.getvalue().encode(errors="surrogateescape")


LIKELY_CAUSES = (
    "too few updates, a learning rate too high, a moving average of weights longer than the run, "
    "or batch norm on very small parts of a batch"
)
"""Of a collapse."""


def collapse(labels: Sequence[int], predicted: Sequence[int], classes: int) -> str:
    """Why predictions show that a run learned nothing; empty where they do not.

    No better than chance: not above it by two standard errors, nor by a fifth of it.
    """
    if len(set(predicted)) == 1 and len(set(labels)) > 1:
        return "constant predictions"
    chance = 1 / classes
    error = math.sqrt(chance * (1 - chance) / len(labels))
    right = sum(map(int.__eq__, labels, predicted)) / len(labels)
    return "no better than chance" if right <= chance + min(2 * error, chance / 5) else ""
