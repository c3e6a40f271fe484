"""A fine-tuning start: weights from a file instead of random ones (`--init-weights FILE`)."""

import sys
from pathlib import Path

from torch import nn

from models import naming, weights
from training.recipe import InitialWeights


def describe(path: Path) -> InitialWeights:
    """What a study records of the file. Raises ValueError where there is none."""
    return InitialWeights(path.name, weights.sha256(path))


def start_from(model: nn.Module, path: Path, recorded: InitialWeights) -> None:
    """Load the file into `model`; its classifier keeps its random weights where the number of
    classes differs.

    Raises:
        ValueError: the file is not the one recorded, or holds weights of another architecture.
    """
    if describe(path).sha256 != recorded.sha256:
        raise ValueError(
            f"{path} has changed since this study was asked for: give the file that it was made "
            "with"
        )
    state = weights.read(path)
    weights.load(model, state, new_classifier=True)
    there, here = (
        state[naming.names(model, naming.detect(state))["head.weight"]],
        model.state_dict()["head.weight"],
    )
    if len(there) != len(here):
        print(
            f"{path.name} knows {len(there):,} classes and this data set has {len(here):,}: the "
            "classifier starts anew",
            file=sys.stderr,
            flush=True,
        )
