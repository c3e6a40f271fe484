"""Read one run's folder and say in one sentence what is odd about it, if anything is.

A report may be wrong in only one way that matters: by showing a number that does not belong to it.
So a run is read as evidence to be checked, and whatever does not add up raises `OddRun`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SECONDS = ("data", "forward", "backward", "optimizer", "evaluation", "other")
METRICS = ("lr", "train_loss", "validation_loss", "validation_top1")
RESULTS = (
    "top1",
    "top5",
    "loss",
    "params",
    "gflops_fvcore",
    "gflops_paper_convention",
    "images_per_second",
)
MEASURED = ("activations", "inference_ms_1", "inference_ms_64", "peak_memory_mb")
"""Of a result, in runs made since they are measured."""
COUNTS = ("test_images", "epochs", "selected_epoch")


class OddRun(ValueError):
    """The run must not be reported; the message says why, as the end of a sentence about the
    run."""


@dataclass(frozen=True, eq=False)
class Listing:
    """The n test images, in the order of their names; one for all runs that list them alike."""

    images: np.ndarray
    """(n,) object: the names."""
    label: np.ndarray
    """(n,) int16."""
    order: np.ndarray
    """(n,) int64: where in the file each is."""
    digest: str
    """Of names and labels: runs are comparable only where it is the same."""

    @classmethod
    def of(cls, images: np.ndarray, label: np.ndarray, file: str) -> Listing:
        """Raises OddRun where a name is there twice."""
        order = np.argsort(images, kind="stable")
        images, label = images[order], label[order]
        if bool(np.any(images[1:] == images[:-1])):
            raise OddRun(f"{file} lists an image twice")
        text = "\n".join(
            f"{name}\t{number}" for name, number in zip(images, label.tolist(), strict=True)
        )
        return cls(images, label, order, hashlib.sha256(text.encode()).hexdigest())

    def lists(self, images: np.ndarray, label: np.ndarray) -> bool:
        """Whether a file with these columns lists the same images in the same order."""
        alike = len(images) == len(self.order) and np.array_equal(label[self.order], self.label)
        return alike and np.array_equal(images[self.order], self.images)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a run says of the n test images, in the order of their names."""

    listing: Listing
    top1: np.ndarray
    """(n,) int16: the best class."""
    p_top1: np.ndarray | None
    """(n,) float32: its probability; None in runs made before it was written."""

    @property
    def label(self) -> np.ndarray:
        """(n,) int16."""
        return self.listing.label

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool."""
        found: np.ndarray = self.label == self.top1
        return found


@dataclass(frozen=True, eq=False)
class RunRecord:
    """One run that passed the checks; what it has not while unfinished is None. Two runs are never
    equal."""

    step: str
    seed: int
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What config.json states of it (`studies.identity`)."""
    metrics: tuple[Mapping[str, Any], ...] = ()
    result: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    predictions: Predictions | None = None
    made_as: str | None = None
    """The step under whose name the same run was made, where another row than this one did."""

    @property
    def name(self) -> str:
        """The run's folder below the study's."""
        return f"{self.step}/seed-{self.seed}"

    @property
    def correct(self) -> np.ndarray | None:
        """(n,) bool, a test image each."""
        return None if self.predictions is None else self.predictions.correct


def _no_constant(text: str) -> float:
    raise OddRun(f"holds {text}, which is not a finite number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; OddRun for anything else, including NaN and infinity."""
    return _parse_object(_text(path), path.name)


def _require_file(path: Path) -> None:
    """Also because reading a pipe, or a device, would not end."""
    if not path.exists():
        raise OddRun(f"{path.name} is missing")
    if not path.is_file():
        raise OddRun(f"{path.name} is not a file")


def _text(path: Path) -> str:
    _require_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise OddRun(f"{path.name} cannot be read") from None


def _parse_object(text: str, name: str) -> dict[str, Any]:
    try:
        value = _DECODER.decode(text)
    except OddRun as odd:
        raise OddRun(f"{name} {odd}") from None
    except (ValueError, RecursionError):
        raise OddRun(f"{name} is damaged: it is not JSON") from None
    if not isinstance(value, dict):
        raise OddRun(f"{name} is damaged: it is not a JSON object")
    return value


def _number(record: Mapping[str, Any], key: str, name: str) -> float:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OddRun(f"{name} has no number {key!r}")
    # JSON's 1e999 is read as infinity without passing through parse_constant.
    if not math.isfinite(value):
        raise OddRun(f"{name} has a non-finite {key!r}")
    return float(value)


def _count(record: Mapping[str, Any], key: str, name: str) -> int:
    value = _number(record, key, name)
    if value != int(value) or value < 0:
        raise OddRun(f"{name} has {value:g} as its {key!r}, which is not a count")
    return int(value)


def _seconds(record: Mapping[str, Any], keys: tuple[str, ...], name: str) -> None:
    seconds = record.get("seconds")
    if not isinstance(seconds, dict):
        raise OddRun(f"{name} has no 'seconds'")
    for key in keys:
        if _number(seconds, key, name) < 0:
            raise OddRun(f"{name} has a negative time {key!r}")


def read_metrics(path: Path, *, finished: bool) -> tuple[Mapping[str, Any], ...]:
    """One record an epoch. In an unfinished run the line being written just now is not counted."""
    if not path.exists() and not finished:
        return ()
    text = _text(path)
    if not finished:
        text = text[: text.rfind("\n") + 1]
    name, records = path.name, list[Mapping[str, Any]]()
    for line in text.splitlines():
        if not line.strip():
            continue
        record = _parse_object(line, f"{name} (line {len(records) + 1})")
        epoch = _count(record, "epoch", name)
        if epoch != len(records) + 1:
            raise OddRun(f"{name} has epoch {epoch} where epoch {len(records) + 1} should be")
        of_epoch = f"{name} (epoch {epoch})"
        for key in METRICS:
            _number(record, key, of_epoch)
        _seconds(record, SECONDS, of_epoch)
        records.append(record)
    return tuple(records)


def read_predictions(path: Path, classes: int, known: Listing | None = None) -> Predictions:
    """`known` is a listing that the file probably has too: sorting names takes longer than reading
    them."""
    _require_file(path)
    try:
        table = pd.read_csv(path, dtype={"image": str}, na_filter=False)
    except (OSError, ValueError):
        # pandas' ParserError and EmptyDataError and a wrong encoding are ValueErrors.
        raise OddRun(f"{path.name} is damaged: it cannot be read as a table") from None
    missing = [name for name in ("image", "label", "p_label", "top1") if name not in table.columns]
    if missing:
        raise OddRun(f"{path.name} has no column {missing[0]!r}")
    label, top1 = (
        _column(
            table,
            name,
            lambda k: (k >= 0) & (k < classes) & (k == np.floor(k)),
            f"a {name} that is not one of the {classes} classes",
            path,
        ).astype(np.int16)
        for name in ("label", "top1")
    )
    probabilities = [
        _column(
            table,
            name,
            lambda p: (p >= 0) & (p <= 1 + 1e-6),
            "a probability that is not between 0 and 1",
            path,
        )
        for name in ("p_label", "p_top1")  # rounding may carry a softmax a hair above one
        if name in table.columns
    ]
    images = table["image"].to_numpy(dtype=object)
    listing = (
        known if known and known.lists(images, label) else Listing.of(images, label, path.name)
    )
    p_top1 = probabilities[1][listing.order].astype(np.float32) if len(probabilities) > 1 else None
    return Predictions(listing, top1[listing.order], p_top1)


def _column(
    table: pd.DataFrame, name: str, right: Callable[[np.ndarray], np.ndarray], what: str, path: Path
) -> np.ndarray:
    """A column of numbers, all of which are `right`; what is no number is NaN, which fails every
    comparison."""
    values: np.ndarray = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=float)
    if not bool(np.all(right(values))):
        raise OddRun(f"{path.name} has {what}")
    return values


def _same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise OddRun(f"{what} is {found!r}, but should be {expected!r}")


def _check_selection(metrics: tuple[Mapping[str, Any], ...], selected: int) -> None:
    """The test split was looked at by the weights of the epoch that was best on validation, the
    earlier of equals."""
    seen = [record["validation_top1"] for record in metrics]
    if not seen:
        raise OddRun("metrics.jsonl has no epoch")
    best = 1 + seen.index(max(seen))
    if selected != best:
        raise OddRun(
            f"it was tested after epoch {selected}, but epoch {best} was best on the validation "
            "images"
        )


def read_run(
    folder: Path,
    *,
    step: str,
    seed: int,
    study_hash: str,
    classes: int,
    test_images: int,
    listing: Listing | None = None,
) -> RunRecord:
    """The run in a folder; `listing` is that of another run of the study.

    Raises:
        OddRun: it belongs to another study, is damaged, or contradicts itself.
    """
    finished = (folder / "result.json").exists()
    config = read_object(folder / "config.json")
    if config.get("study_hash") != study_hash:
        raise OddRun(
            f"it was made by another config (hash {config.get('study_hash')!r}, not {study_hash!r})"
        )
    _same("the step in config.json", config.get("step"), step)
    _same("the seed in config.json", config.get("seed"), seed)
    metrics = read_metrics(folder / "metrics.jsonl", finished=finished)
    # Nothing is computed from the environment, so a missing one costs the run only its provenance.
    environment = (
        read_object(folder / "environment.json") if (folder / "environment.json").exists() else {}
    )
    if not finished:
        return RunRecord(step, seed, config, metrics, None, environment)

    result = read_object(folder / "result.json")
    if result.get("study_hash") != study_hash:
        raise OddRun(
            f"its result is of another config (hash {result.get('study_hash')!r}, not "
            f"{study_hash!r})"
        )
    _same("the step in result.json", result.get("step"), step)
    _same("the seed in result.json", result.get("seed"), seed)
    _same("the digest in result.json", result.get("digest"), config.get("digest"))
    for key in (*RESULTS, *(key for key in MEASURED if result.get(key) is not None)):
        _number(result, key, "result.json")
    for key in COUNTS:
        _count(result, key, "result.json")
    _seconds(result, (*SECONDS, "total"), "result.json")
    if result["epochs"] != len(metrics):
        raise OddRun(
            f"metrics.jsonl ends at epoch {len(metrics)}, but the run had {result['epochs']:g} "
            "epochs"
        )
    recipe = config.get("recipe")
    if isinstance(recipe, dict) and recipe.get("epochs", len(metrics)) != len(metrics):
        raise OddRun(f"it had {len(metrics)} epochs, but its recipe has {recipe['epochs']}")
    _check_selection(metrics, int(result["selected_epoch"]))
    if result["test_images"] != test_images:
        raise OddRun(
            f"it was tested on {result['test_images']:g} images, but the study has {test_images}"
        )
    predictions = read_predictions(folder / "predictions.csv", classes, listing)
    if len(predictions.label) != test_images:
        raise OddRun(
            f"predictions.csv has {len(predictions.label)} images, but the study tests on "
            f"{test_images}"
        )
    top1 = 100 * float(predictions.correct.mean())
    # Half an image is the widest tolerance that cannot hide one.
    if abs(top1 - result["top1"]) >= 50 / test_images:
        raise OddRun(
            f"result.json says {result['top1']:.4f} % top-1, but predictions.csv gives {top1:.4f} %"
        )
    return RunRecord(step, seed, config, metrics, result, environment, predictions)
