"""predictions.csv: what a network said of each test image. No torch here."""

import csv
import io
from collections.abc import Iterable, Sequence

HEADER = ("image", "label", "p_label", "p_top1")
DIGITS = 4


def as_csv(
    ids: Iterable[str],
    labels: Iterable[int],
    p_labels: Iterable[float],
    p_tops: Iterable[float],
    tops: Sequence[Sequence[int]],
) -> bytes:
    """A row an image: its name, its class, the probabilities of that class and of the best, the
    best classes.

    Classes are indices, the best first; probabilities have `DIGITS` digits
    (docs/decisions.md#pack).
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*HEADER, *(f"top{i + 1}" for i in range(len(tops[0])))])
    rows = zip(ids, labels, p_labels, p_tops, tops, strict=True)
    form = f".{DIGITS}g"
    writer.writerows(
        [image, label, format(p, form), format(best, form), *top]
        for image, label, p, best, top in rows
    )
    return file.getvalue().encode(errors="surrogateescape")


def from_csv(
    content: bytes,
) -> tuple[list[str], list[int], list[float], list[float], list[list[int]]]:
    """The columns that `as_csv` was given. Raises ValueError where `content` is of another form."""
    header, *rows = csv.reader(io.StringIO(content.decode(errors="surrogateescape"), newline=""))
    if not rows or any(len(row) != len(header) for row in rows) or len(header) <= len(HEADER):
        raise ValueError("the rows are not of one length")
    images, labels, p_labels, p_tops, *_ = zip(*rows, strict=True)
    tops = [list(map(int, row[len(HEADER) :])) for row in rows]
    return (
        list(images),
        list(map(int, labels)),
        list(map(float, p_labels)),
        list(map(float, p_tops)),
        tops,
    )
