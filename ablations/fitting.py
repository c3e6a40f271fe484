"""Name the steps that a set of weights fits, for the message that refuses weights of another
architecture."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ablations.presets import REGIMES, Regime
from ablations.roadmap import Setup
from ablations.roadmaps import PAPER
from models import Architecture, SwinArchitecture, weights
from models.builder import build


def _translate(state: Mapping[str, Tensor], architecture: Architecture | SwinArchitecture) -> None:
    """Raise ValueError unless `state` has the names and shapes of the network, whatever its
    classes."""
    with torch.device("meta"):
        model = build(architecture)
    weights.translate(model, state, new_classifier=True)


def explain(state: Mapping[str, Tensor], error: ValueError, what: str) -> ValueError:
    """Return `error` of `models.weights` about the weights `what`, with the steps that they fit."""
    fitting = []
    for regime in REGIMES.values():
        names = []
        for step in PAPER.steps_in(regime):
            try:
                _translate(state, PAPER.architecture(step, regime))
            except ValueError:
                continue
            names.append(step.name)
        if names:
            fitting.append(f"{', '.join(names)} in regime {regime.name}")
    fit = " or ".join(fitting) or "no step of any regime"
    return ValueError(f"{what} cannot be loaded: {error} (they fit {fit})")


def check_file(
    path: Path, regime: Regime, setups: Mapping[str, Setup], key: str | None = None
) -> None:
    """Raise ValueError unless the weights in `path`, under `key`, fit the networks of all these
    steps."""
    state, _ = weights.read(path, key)
    for name, setup in setups.items():
        try:
            _translate(state, setup.architecture)
        except ValueError as error:
            raise explain(state, error, f"{path} for step {name} of regime {regime.name}") from None
