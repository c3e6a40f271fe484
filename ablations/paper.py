"""The paper's measurements: its two tables of the roadmap (appendix C, tables 10 and 11), with our
recount, in paper.csv."""

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
    """Our count of the network that the paper describes, convolutions and classifier only."""
    note: str
    """Where the paper contradicts itself."""

    @property
    def gflops(self) -> float:
        return float(self.gflops_printed)

    def agrees(self, gflops: float) -> bool:
        """Return whether `gflops` rounds to what the paper prints."""
        digits = len(self.gflops_printed.partition(".")[2])
        return f"{gflops:.{digits}f}" == self.gflops_printed


@cache
def _rows() -> dict[tuple[str, str], PaperRow]:
    with (Path(__file__).parent / "paper.csv").open(newline="") as file:
        return {
            (row["regime"], row["step"]): PaperRow(
                top1=float(row["top1"]),
                top1_std=float(row["top1_std"]) if row["top1_std"] else None,
                seeds=int(row["seeds"]) if row["seeds"] else None,
                gflops_printed=row["gflops"],
                gflops_recount=float(row["gflops_recount"]) if row["gflops_recount"] else None,
                note=row["note"],
            )
            for row in csv.DictReader(file)
        }


def paper_row(regime: str, step: str) -> PaperRow | None:
    """Return the paper's figures for a step; None where the paper has none."""
    return _rows().get((regime, step))
