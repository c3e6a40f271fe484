"""How the report writes numbers: the one place that formats them."""

import math
from collections.abc import Iterable

MINUS = "−"
NOTHING = "–"
MOST = 100.0


def known(value: float | None) -> bool:
    """Whether there is a number to write."""
    return value is not None and not math.isnan(value)


def signed(value: float | None, digits: int = 2) -> str:
    """+1.20 or −0.31, with a real minus sign; 0.00 has none."""
    if value is None or math.isnan(value):
        return NOTHING
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def interval(low: float, high: float, digits: int = 2) -> str:
    """[−0.31, +1.20]."""
    if not (known(low) and known(high)):
        return NOTHING
    return f"[{signed(low, digits)}, {signed(high, digits)}]"


def possible(low: float, high: float) -> tuple[float, float]:
    """An interval cut off where no difference of two accuracies can be, in points."""
    return max(low, -MOST), min(high, MOST)


def amount(value: float | None) -> str:
    """Two decimals, or three significant digits below one."""
    if value is None or math.isnan(value):
        return NOTHING
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:#.3g}"


def percent(mean: float | None, deviation: float | None = None, runs: int = 1) -> str:
    """91.53 ± 0.19 (n = 4)."""
    if mean is None or math.isnan(mean):
        return NOTHING
    spread = f" ± {deviation:.2f} (n = {runs})" if known(deviation) else ""
    return f"{mean:.2f}{spread}"


def probability(p: float) -> str:
    """0.33, 0.012 or < 0.0001."""
    if p < 0.0001:
        return "< 0.0001"
    return f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def seeds(counts: Iterable[int]) -> str:
    """3, or 3 and 2 where two rows have different numbers."""
    return " and ".join(map(str, dict.fromkeys(counts)))


def flops_unit(gflops: Iterable[float]) -> tuple[str, float]:
    """The unit that suits these GFLOPs, and how many of it one GFLOP is."""
    most = max((value for value in gflops if known(value)), default=1.0)
    return ("MFLOPs", 1000.0) if most < 0.1 else ("GFLOPs", 1.0)
