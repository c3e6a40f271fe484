"""The roadmap counted: every step's parameters and FLOPs beside what the paper prints."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

from tabulate import tabulate

from ablations.paper import paper_row
from ablations.presets import Regime
from ablations.roadmap import Roadmap
from ablations.roadmaps import PAPER
from models import Architecture
from models.complexity import architecture_complexity

_PAPER_RESOLUTION = 224
_PAPER_CLASSES = 1000


@dataclass(frozen=True)
class CountedStep:
    """One step's row; GFLOPs for one image, one multiply-add counted as one."""

    regime: str
    number: int | None
    name: str
    change: str
    source: str
    params: int
    activations: int
    gflops_fvcore: float
    """All operators that fvcore counts."""
    gflops_paper_convention: float
    """Convolutions and linear layers only (and, for Swin, attention products)."""
    gflops_paper: str | None
    """As the paper prints it, with its digits; None where it has no such row."""
    top1_paper: float | None
    """Percent, ImageNet-1K."""
    agrees: bool | None
    """Whether our count in the paper's convention rounds to what it prints; None where that cannot
    be asked."""
    note: str


def count_steps(
    roadmap: Roadmap,
    regime: Regime,
    resolution: int = _PAPER_RESOLUTION,
    num_classes: int = _PAPER_CLASSES,
) -> Iterator[CountedStep]:
    """Count the roadmap's rows in a regime, one after the other (a second each in the larger
    regime)."""
    for step in roadmap.steps_in(regime):
        architecture = roadmap.architecture(step, regime, num_classes)
        released = step.released_with_layer_scale
        size = architecture_complexity(architecture, resolution, layer_scale=released)
        gflops = size.flops_paper_convention / 1e9
        paper = paper_row(regime.name, step.name) if roadmap.name == PAPER.name else None
        comparable = (resolution, num_classes) == (_PAPER_RESOLUTION, _PAPER_CLASSES)
        agrees = (
            paper.agrees(gflops)
            if paper and comparable and isinstance(architecture, Architecture)
            else None
        )
        notes = [paper.note] if paper and comparable and paper.note else []
        if released:
            scaled = size.params - architecture_complexity(architecture, 32).params
            notes.append(
                f"parameters include the {scaled:,} of the recipe's layer scale, as in the "
                "released network"
            )
        yield CountedStep(
            regime=regime.name,
            number=step.number,
            name=step.name,
            change=step.description,
            source=step.source,
            params=size.params,
            activations=size.activations,
            gflops_fvcore=size.flops / 1e9,
            gflops_paper_convention=gflops,
            gflops_paper=paper.gflops_printed if paper and comparable else None,
            top1_paper=paper.top1 if paper else None,
            agrees=agrees,
            note="; ".join(notes),
        )


_CSV = (
    "regime",
    "number",
    "name",
    "params",
    "gflops_fvcore",
    "gflops_paper_convention",
    "gflops_paper",
    "agrees",
    "note",
)
_AGREES = {True: "yes", False: "no", None: ""}


def as_csv(rows: list[CountedStep]) -> str:
    """Comma-separated, with a header; empty cells where there is nothing to say."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV)
    for row in rows:
        cells = {**vars(row), "agrees": _AGREES[row.agrees]}
        cells["gflops_fvcore"] = f"{row.gflops_fvcore:.4f}"
        cells["gflops_paper_convention"] = f"{row.gflops_paper_convention:.4f}"
        writer.writerow(cells[name] for name in _CSV)
    return file.getvalue()


def as_json(rows: list[CountedStep]) -> str:
    """A list of objects with every field of `CountedStep`."""
    return json.dumps([vars(row) for row in rows], indent=2) + "\n"


def as_text(rows: list[CountedStep]) -> str:
    """Columns for a terminal, notes below."""
    header = (
        "N",
        "step",
        "change",
        "params",
        "GFLOPs",
        "conv+fc",
        "paper",
        "agrees",
        "paper top-1",
    )
    notes: dict[str, str] = {}
    table = []
    for row in rows:
        mark = notes.setdefault(row.note, f"[{len(notes) + 1}]") if row.note else ""
        table.append(
            (
                row.number,
                row.name,
                row.change,
                f"{row.params / 1e6:.2f} M",
                f"{row.gflops_fvcore:.3f}",
                f"{row.gflops_paper_convention:.3f}",
                row.gflops_paper,
                f"{_AGREES[row.agrees]} {mark}".strip(),
                None if row.top1_paper is None else f"{row.top1_paper:.2f}",
            )
        )
    align = ("right", "left", "left", "right", "right", "right", "right", "left", "right")
    text = tabulate(table, header, tablefmt="simple", colalign=align, disable_numparse=True)
    footer = [
        "",
        "GFLOPs: all that fvcore counts; conv+fc: the paper's convention; one multiply-add is one "
        "FLOP.",
    ]
    return "\n".join([text, *footer, *(f"{mark} {note}" for note, mark in notes.items())]) + "\n"
