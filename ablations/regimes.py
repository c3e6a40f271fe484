"""Regimes: the sizes of network in which the roadmap is walked."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ablations.steps import STEPS, Step
from models import Architecture, SwinArchitecture


@dataclass(frozen=True)
class Regime:
    """A baseline network and the values that steps take in its size."""

    name: str
    sentence: str
    baseline: Architecture
    values: Mapping[str, Mapping[str, Any]]
    """Step name to the fields it changes in this regime only."""
    swin_name: str
    swin: SwinArchitecture
    paper: str
    """The regime whose rows of the paper's tables this one's are held against."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The 17 rows and, last, the Swin reference."""
        swin = Step(None, self.swin_name, "Swin Transformer, the reference", "2, Swin", None)
        return (*STEPS, swin)

    def step(self, asked: str) -> Step:
        """The step of that number or name.

        Raises:
            ValueError: there is none, in one sentence that says which there are.
        """
        for step in self.steps:
            if asked == step.name or (asked.isdecimal() and len(asked) < 4 and step.number == int(asked)):
                return step
        numbers = [step.number for step in self.steps if step.number is not None]
        if asked.lstrip("+-").isdecimal():
            raise ValueError(f"there is no step {asked[:20]}: steps are numbered {min(numbers)} to {max(numbers)}")
        names = [step.name for step in self.steps]
        near = difflib.get_close_matches(asked.lower(), names, 1, 0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no step {asked!r}{hint} (a number from 0 to {max(numbers)}, or {', '.join(names)})")

    def changes(self, step: Step) -> dict[str, Any]:
        """The fields that `step` changes, with their values in this regime."""
        return {**step.changes, **self.values.get(step.name, {})}

    def architecture(self, step: Step, num_classes: int | None = None) -> Architecture | SwinArchitecture:
        """What `step` builds: the baseline and every change on the way to it."""
        if step.name == self.swin_name:
            built: Architecture | SwinArchitecture = self.swin
        else:
            before = self.baseline if step.after is None else self.architecture(self.step(step.after))
            assert isinstance(before, Architecture)
            built = replace(before, **self.changes(step))
        return built if num_classes is None else replace(built, num_classes=num_classes)


REGIMES: Mapping[str, Regime] = {
    regime.name: regime
    for regime in (
        Regime(
            "tiny",
            "ResNet-50 to ConvNeXt-T, the paper's smaller regime",
            Architecture(),
            {"stage-ratio": {"depths": (3, 3, 9, 3)}, "width": {"width": 96}},
            "swin-t",
            SwinArchitecture(),
            paper="tiny",
        ),
        Regime(
            "base",
            "ResNet-200 to ConvNeXt-B, the paper's larger regime",
            Architecture(depths=(3, 24, 36, 3)),
            {"stage-ratio": {"depths": (3, 3, 27, 3), "width": 84}, "width": {"width": 128}},
            "swin-b",
            SwinArchitecture(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
            paper="base",
        ),
        Regime(
            "pocket",
            "the same path on networks small enough for a laptop CPU",
            Architecture(depths=(1, 1, 2, 1), width=16),
            {"stage-ratio": {"depths": (1, 1, 3, 1)}, "width": {"width": 24}},
            "swin-pocket",
            SwinArchitecture(embed_dim=24, depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), window_size=4),
            paper="tiny",
        ),
    )
}


def get_regime(name: str) -> Regime:
    """The regime of that name.

    Raises:
        ValueError: there is none, in one sentence that says which there are.
    """
    if name not in REGIMES:
        near = difflib.get_close_matches(name.lower(), REGIMES, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"there is no regime {name!r}: {hint}choose {', '.join(REGIMES)}")
    return REGIMES[name]
