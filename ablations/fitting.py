"""Which steps a set of weights fits: for the one sentence that refuses weights of another
architecture."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.presets import REGIMES, Regime
from ablations.roadmap import Setup
from ablations.roadmaps import PAPER
from ablations.step import Step
from models import Architecture, SwinArchitecture

if TYPE_CHECKING:
    from torch import Tensor


def steps_that_fit(state: "Mapping[str, Tensor]") -> list[tuple[Regime, Step]]:
    """The steps, of any regime, whose network has the keys and shapes of `state` (under any known
    names).

    The number of classes is left aside. Steps that differ in nothing that has weights (an
    activation, say) all fit.
    """
    fitting = []
    for regime in REGIMES.values():
        for step in PAPER.steps_in(regime):
            try:
                _translate(state, PAPER.architecture(step, regime))
            except ValueError:
                continue
            fitting.append((regime, step))
    return fitting


def _translate(
    state: "Mapping[str, Tensor]", architecture: Architecture | SwinArchitecture
) -> None:
    import torch

    from models import weights
    from models.builder import build

    with torch.device("meta"):
        model = build(architecture)
    weights.translate(model, state, new_classifier=True)


def explain(state: "Mapping[str, Tensor]", error: ValueError, what: str) -> ValueError:
    """`error` of `models.weights` about the weights `what`, as one sentence that also says which
    steps they fit."""
    groups: dict[str, list[str]] = {}
    for regime, step in steps_that_fit(state):
        groups.setdefault(regime.name, []).append(step.name)
    fitting = " or ".join(
        f"{', '.join(steps)} in regime {regime}" for regime, steps in groups.items()
    )
    return ValueError(
        f"{what} cannot be loaded: {error} (they fit {fitting or 'no step of any regime'})"
    )


def check_file(path: Path, regime: Regime, rows: Mapping[str, Setup]) -> None:
    """Raise ValueError, in one sentence that says which steps would fit, unless the weights in
    `path` fit all rows."""
    from models import weights

    state = weights.read(path)
    for name, setup in rows.items():
        try:
            _translate(state, setup.architecture)
        except ValueError as error:
            raise explain(state, error, f"{path} for step {name} of regime {regime.name}") from None
