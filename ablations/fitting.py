"""Which steps a set of weights fits: for the one sentence that refuses weights of another architecture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.regimes import REGIMES, Regime
from ablations.roadmap import Step
from ablations.roadmaps import PAPER

if TYPE_CHECKING:
    from torch import Tensor


def steps_that_fit(state: "Mapping[str, Tensor]") -> list[tuple[Regime, Step]]:
    """The steps, of any regime, whose network has the keys and shapes of `state` (under any known names).

    The number of classes is left aside. Steps that differ in nothing that has weights (an activation, say) all fit.
    """
    fitting = []
    for regime in REGIMES.values():
        for step in PAPER.rows(regime):
            try:
                _translate(state, regime, step)
            except ValueError:
                continue
            fitting.append((regime, step))
    return fitting


def _translate(state: "Mapping[str, Tensor]", regime: Regime, step: Step) -> None:
    import torch

    from models import weights
    from models.builder import build

    with torch.device("meta"):
        model = build(PAPER.architecture(step, regime))
    weights.translate(model, state, new_classifier=True)


def explain(state: "Mapping[str, Tensor]", error: ValueError, what: str) -> ValueError:
    """`error` of `models.weights` about the weights `what`, as one sentence that also says which steps they fit."""
    groups: dict[str, list[str]] = {}
    for regime, step in steps_that_fit(state):
        groups.setdefault(regime.name, []).append(step.name)
    fitting = " or ".join(f"{', '.join(steps)} in regime {regime}" for regime, steps in groups.items())
    return ValueError(f"{what} cannot be loaded: {error} (they fit {fitting or 'no step of any regime'})")


def check_file(path: Path, regime: Regime, steps: Sequence[Step]) -> None:
    """Raise ValueError, in one sentence that says which steps would fit, unless the weights in `path` fit `steps`."""
    from models import weight_files

    state = weight_files.read(path)
    for step in steps:
        _check_fit(state, regime, step, str(path))


def _check_fit(state: "Mapping[str, Tensor]", regime: Regime, step: Step, what: str) -> None:
    try:
        _translate(state, regime, step)
    except ValueError as error:
        raise explain(state, error, f"{what} for step {step.name} of regime {regime.name}") from None
