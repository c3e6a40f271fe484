"""Predictions of many runs on the same images as a few arrays that compress well, and back to the
byte.

An image's name and class are kept once, and the classes that any run has among its best, most
frequent first: a run's best classes are then places in that list, small numbers most of the time.
Probabilities are decimal digits and an exponent. Every array is split into its bytes, the high ones
apart from the low ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from training.spec import DIGITS, predictions_csv, read_predictions

_AS_IS = "predictions/as-is/"
_NUMBERS = ("digits", "exponents", "digits_top1", "exponents_top1")


@dataclass
class _Group:
    """Runs with the same images, in the same order, and as many best classes."""

    ids: list[str]
    labels: list[int]
    runs: list[str] = field(default_factory=list)
    tops: list[np.ndarray] = field(default_factory=list)
    numbers: list[tuple[np.ndarray, ...]] = field(default_factory=list)


def encode(predictions: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """Files, by name, that hold the (run, predictions.csv) pairs. What has another form than ours
    is kept as it is."""
    groups: dict[str, _Group] = {}
    files: dict[str, bytes] = {}
    for run, content in predictions:
        try:
            ids, labels, p_labels, p_tops, tops = read_predictions(content)
            top = np.array(tops, dtype=np.uint16)
            best = np.where(np.equal(p_labels, p_tops), 0, p_tops)
            numbers = (*_digits(np.array(p_labels)), *_digits(best))
            if predictions_csv(ids, labels, *_probabilities(numbers), tops) != content:
                raise ValueError("other digits, or other ends of lines")
        except (ValueError, OverflowError):
            files[_AS_IS + run] = content
            continue
        key = hashlib.sha256(json.dumps([ids, labels, top.shape]).encode()).hexdigest()
        group = groups.setdefault(key, _Group(ids, labels))
        group.runs.append(run)
        group.tops.append(top)
        group.numbers.append(numbers)
    for number, group in enumerate(groups.values()):
        classes, places = _places(np.stack(group.tops))
        about = {"runs": group.runs, "images": group.ids, "labels": group.labels}
        files[f"predictions/{number}/about.json"] = json.dumps(about).encode()
        columns = (np.stack(column, axis=1) for column in zip(*group.numbers, strict=True))
        arrays = {"classes": classes, "top": places, **dict(zip(_NUMBERS, columns, strict=True))}
        files |= {
            f"predictions/{number}/{name}.npy": _bytes(array) for name, array in arrays.items()
        }
    return files


def decode(files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The (run, predictions.csv) pairs that `encode` was given, from its files."""
    for name, content in files.items():
        if name.startswith(_AS_IS):
            yield name.removeprefix(_AS_IS), content
        if not name.endswith("/about.json"):
            continue
        about = json.loads(content)
        classes, places, *numbers = (
            _array(files[name.replace("about.json", f"{array}.npy")])
            for array in ("classes", "top", *_NUMBERS)
        )
        for i, run in enumerate(about["runs"]):
            tops = np.take_along_axis(classes, places[:, :, i].T, axis=1)
            probabilities = _probabilities([column[:, i] for column in numbers])
            yield (
                run,
                predictions_csv(about["images"], about["labels"], *probabilities, tops.tolist()),
            )


def _places(tops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(classes, places) of `tops` (runs, images, k): each image's classes (images, m), and where in
    them each of `tops` is, (k, images, runs).

    The classes are those most often seen first, or in their own order where the lists would cost
    more than they save.
    """
    _, images, k = tops.shape
    rows, size = np.arange(images)[:, None], int(tops.max()) + 1
    seen = np.zeros((images, size), dtype=np.int32)
    for run in tops:
        np.add.at(seen, (rows, run), np.arange(k, 0, -1)[None])
    frequent = np.argsort(-seen, axis=1, kind="stable").astype(np.uint16)[
        :, : int((seen > 0).sum(axis=1).max())
    ]
    place_of = np.zeros((images, size), dtype=np.uint16)
    np.put_along_axis(
        place_of, frequent, np.arange(frequent.shape[1], dtype=np.uint16)[None], axis=1
    )
    plain = np.tile(np.arange(size, dtype=np.uint16), (images, 1))
    choices = ((frequent, np.stack([place_of[rows, run] for run in tops])), (plain, tops))
    classes, places = min(
        choices, key=lambda choice: sum(len(zlib.compress(_bytes(array), 1)) for array in choice)
    )
    return classes, places.transpose(2, 1, 0)


def _digits(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`DIGITS` decimal digits and the exponent of the first one; 0 and 0 for 0."""
    if not bool(np.all((numbers >= 0) & (numbers < 10))):
        raise ValueError("no probabilities")
    texts = [f"{number:.{DIGITS - 1}e}".split("e") for number in numbers.tolist()]
    digits = np.array([int(digits.replace(".", "")) for digits, _ in texts], dtype=np.uint32)
    return digits, np.array([int(exponent) for _, exponent in texts], dtype=np.int8)


def _probabilities(numbers: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Of the true class and of the best one, which is kept as 0 where the two are the same."""
    label, best = (
        [
            float(f"{digits}e{exponent - DIGITS + 1}")
            for digits, exponent in zip(d.tolist(), e.astype(np.int8).tolist())
        ]
        for d, e in (numbers[:2], numbers[2:])
    )
    return label, [other or one for one, other in zip(label, best, strict=True)]


def _bytes(array: np.ndarray) -> bytes:
    """Of an array of whole numbers, as numpy writes it, with an axis in front for the bytes that
    any of them needs."""
    unsigned = array.astype(np.uint8) if array.dtype == np.int8 else array
    count = max(1, (int(unsigned.max()).bit_length() + 7) // 8)
    planes = np.stack(
        [(unsigned >> 8 * place).astype(np.uint8) for place in reversed(range(count))]
    )
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(planes))
    return file.getvalue()


def _array(content: bytes) -> np.ndarray:
    planes: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    whole = np.zeros(planes.shape[1:], dtype=np.uint32)
    for plane in planes:
        whole = (whole << 8) | plane
    return whole
