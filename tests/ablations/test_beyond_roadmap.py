"""What came after the paper, as a roadmap: with networks that timm has."""

from dataclasses import replace

import pytest

from ablations import PAPER, REGIMES, get_regime, get_roadmap
from ablations.presets import PRESETS
from models.complexity import architecture_complexity, complexity

BEYOND = get_roadmap("beyond")


def test_it_begins_where_the_paper_ends() -> None:
    for preset in PRESETS.values():
        regime = get_regime(preset.regime)
        assert BEYOND.setup("0", regime, preset) == PAPER.setup("13", regime, preset)


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
def test_each_step_is_a_different_network(regime) -> None:
    config = PRESETS["food101"]
    setups = [BEYOND.setup(step, regime, config) for step in BEYOND.steps_in(regime)]
    assert len(set(setups)) == len(setups)
    assert BEYOND.setup("response-norm", regime, config).recipe == replace(
        config.recipe, layer_scale=None
    )


@pytest.mark.parametrize(
    ("step", "name"),
    [("response-norm", "convnextv2_tiny"), ("inception-next", "inception_next_tiny")],
)
def test_whole_networks_are_counted_as_timms(step, name) -> None:
    timm = pytest.importorskip("timm")
    theirs = complexity(timm.create_model(name).eval())
    architecture = BEYOND.architecture(step, get_regime("tiny"), 1000)
    released = BEYOND.step(step).released_with_layer_scale
    ours = architecture_complexity(architecture, layer_scale=released)
    assert (ours.params, ours.flops) == (theirs.params, theirs.flops)
