"""Count every step's parameters and FLOPs, beside what the paper prints."""

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

_OF_THE_PAPER = (224, 1000)
"""Resolution and classes."""
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
_TEXT = ("N", "step", "change", "params", "GFLOPs", "conv+fc", "paper", "agrees", "paper top-1")
_AGREES = {True: "yes", False: "no", None: ""}


@dataclass(frozen=True)
class CountedStep:
    """The size of one step; GFLOPs for one image, one multiply-add counted as one."""

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
    """Convolutions and linear layers only (and attention products for Swin)."""
    gflops_paper: str | None
    """As the paper prints it, with its digits; None where it has no such row."""
    top1_paper: float | None
    """Percent, ImageNet-1K."""
    agrees: bool | None
    """Whether our count in the paper's convention rounds to what it prints; None where the two
    cannot be compared."""
    note: str


def count_steps(
    roadmap: Roadmap, regime: Regime, resolution: int = 224, num_classes: int = 1000
) -> Iterator[CountedStep]:
    """Count the roadmap's steps in a regime one by one (a second each in the larger regime)."""
    comparable = (resolution, num_classes) == _OF_THE_PAPER
    for step in roadmap.steps_in(regime):
        architecture = roadmap.architecture(step, regime, num_classes)
        released = step.released_with_layer_scale
        size = architecture_complexity(architecture, resolution, layer_scale=released)
        gflops = size.flops_paper_convention / 1e9
        paper = paper_row(regime.name, step.name) if roadmap.name == PAPER.name else None
        agrees, notes = None, []
        if paper and comparable:
            notes = [paper.note] if paper.note else []
            agrees = paper.agrees(gflops) if isinstance(architecture, Architecture) else None
        if released:
            scale = size.params - architecture_complexity(architecture, 32).params
            notes.append(
                f"parameters include the {scale:,} of the recipe's layer scale, as in the "
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


def as_csv(steps: list[CountedStep]) -> str:
    """Return comma-separated values with a header; unknown values are empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _CSV, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for step in steps:
        counts = {name: f"{getattr(step, name):.4f}" for name in _CSV[4:6]}
        writer.writerow({**vars(step), **counts, "agrees": _AGREES[step.agrees]})
    return file.getvalue()


def as_json(steps: list[CountedStep]) -> str:
    """Return a list of objects with every field of `CountedStep`."""
    return json.dumps([vars(step) for step in steps], indent=2) + "\n"


def as_text(steps: list[CountedStep]) -> str:
    """Return columns for a terminal, with the notes below."""
    notes: dict[str, str] = {}
    rows = []
    for step in steps:
        mark = notes.setdefault(step.note, f"[{len(notes) + 1}]") if step.note else ""
        rows.append(
            (
                step.number,
                step.name,
                step.change,
                f"{step.params / 1e6:.2f} M",
                f"{step.gflops_fvcore:.3f}",
                f"{step.gflops_paper_convention:.3f}",
                step.gflops_paper,
                f"{_AGREES[step.agrees]} {mark}".strip(),
                None if step.top1_paper is None else f"{step.top1_paper:.2f}",
            )
        )
    align = ("right", "left", "left", "right", "right", "right", "right", "left", "right")
    text = tabulate(rows, _TEXT, tablefmt="simple", colalign=align, disable_numparse=True)
    footer = [
        "",
        "GFLOPs: all that fvcore counts; conv+fc: the paper's convention; one multiply-add is one "
        "FLOP.",
    ]
    return "\n".join([text, *footer, *(f"{mark} {note}" for note, mark in notes.items())]) + "\n"
