"""Regimes: the sizes of network in which a roadmap is walked."""

from collections.abc import Mapping
from dataclasses import dataclass

from models import Architecture
from training.recipe import LARGEST
from utils.text import did_you_mean


@dataclass(frozen=True)
class Regime:
    """A size of network; what a step changes in it is on the step's row."""

    name: str
    description: str
    baseline: Architecture
    paper: str
    """The regime whose rows of the paper's tables this one's are held against."""


REGIMES: Mapping[str, Regime] = {
    regime.name: regime
    for regime in (
        Regime(
            "tiny",
            "ResNet-50 to ConvNeXt-T, the paper's smaller regime",
            Architecture(),
            paper="tiny",
        ),
        Regime(
            "base",
            "ResNet-200 to ConvNeXt-B, the paper's larger regime",
            Architecture(depths=(3, 24, 36, 3)),
            paper="base",
        ),
        Regime(
            "small",
            "the same path for images of 32 pixels: three stages after a stem of half the stride",
            Architecture(depths=(1, 1, 2), width=16, stem_stride=2),
            paper="tiny",
        ),
        Regime(
            "pocket",
            "the same path on networks small enough for a laptop CPU",
            Architecture(depths=(1, 1, 2, 1), width=16),
            paper="tiny",
        ),
    )
}


def get_regime(name: str, resolution: int | None = None) -> Regime:
    """The regime of that name, for images of that side if one is given.

    Raises:
        ValueError: there is none, in one sentence that says which there are; its networks cannot
            see such images.
    """
    if name not in REGIMES:
        hint = did_you_mean(name, REGIMES, after=" ")
        raise ValueError(f"there is no regime {name!r}: {hint}choose {', '.join(REGIMES)}")
    regime = REGIMES[name]
    least = regime.baseline.total_stride
    if resolution is not None and not least <= resolution <= LARGEST:
        raise ValueError(
            f"--resolution is {resolution}: regime {name} makes images {least} times smaller, "
            f"give {least} to {LARGEST}"
        )
    return regime
