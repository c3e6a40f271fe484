"""What the paper measured: its two tables of the roadmap (appendix C, tables 10 and 11), recounted
in paper.csv."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's tables; ImageNet-1K, 224x224."""

    top1: float
    """Percent."""
    top1_std: float | None
    """Percentage points over `seeds` runs; None where the paper gives none."""
    seeds: int | None
    gflops_printed: str
    """As the paper prints it, with its digits."""
    gflops_recount: float | None
    """Our own count of the paper's description, convolutions and classifier only."""
    note: str
    """Where the paper contradicts itself."""

    @property
    def gflops(self) -> float:
        return float(self.gflops_printed)

    def agrees(self, gflops: float) -> bool:
        """Whether `gflops` rounds to what the paper prints."""
        digits = len(self.gflops_printed.partition(".")[2])
        return f"{gflops:.{digits}f}" == self.gflops_printed


def _optional(text: str) -> float | None:
    return float(text) if text else None


@cache
def _rows() -> dict[tuple[str, str], PaperRow]:
    with (Path(__file__).parent / "paper.csv").open(newline="") as file:
        return {
            (row["regime"], row["step"]): PaperRow(
                top1=float(row["top1"]),
                top1_std=_optional(row["top1_std"]),
                seeds=int(row["seeds"]) if row["seeds"] else None,
                gflops_printed=row["gflops"],
                gflops_recount=_optional(row["gflops_recount"]),
                note=row["note"],
            )
            for row in csv.DictReader(file)
        }


def paper_row(regime: str, step: str) -> PaperRow | None:
    """The paper's figures for a step of a regime; None where the paper has none (regime
    `pocket`)."""
    return _rows().get((regime, step))
