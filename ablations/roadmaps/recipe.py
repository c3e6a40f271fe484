"""From ResNet's classic recipe to the modern one, one decision a step, on one network."""

from dataclasses import replace

from ablations.roadmap import Roadmap
from ablations.roadmaps.paper import PAPER
from ablations.step import RecipeOf, Step

_OPTIMIZATION, _MIXING = "Optimization", "Mixing and labels"
_RATE = "optimizer lr lr_batch batch_size micro_batches betas momentum weight_decay decay_all"
_LENGTH = "schedule warmup_epochs min_lr step_epochs step_factor epochs ema"
_RANDOM_OPS = "rand_augment_magnitude rand_augment_std color_jitter"

# Of each step: name, description, source, group, and the fields that take the modern recipe's
# value. Why some fields change together: docs/decisions.md#recipe-roadmap.
_DECISIONS = (
    (
        "optimizer",
        "SGD to AdamW, with its batch and rate",
        "Loshchilov and Hutter, 2019",
        _OPTIMIZATION,
        _RATE,
    ),
    (
        "schedule",
        "steps to warm-up and cosine, over more epochs",
        "Loshchilov and Hutter, 2017",
        _OPTIMIZATION,
        _LENGTH,
    ),
    (
        "initial-weights",
        "He's initial weights to truncated normal",
        "section 2.1",
        _OPTIMIZATION,
        "init",
    ),
    ("crops", "crops and flips", "Szegedy et al., 2015", "Images", "crop_scale flip"),
    ("rand-augment", "RandAugment", "Cubuk et al., 2020", "Images", _RANDOM_OPS),
    ("random-erasing", "random erasing", "Zhong et al., 2020", "Images", "random_erasing"),
    ("mixup", "mixup", "Zhang et al., 2018", _MIXING, "mixup"),
    ("cutmix", "cutmix, in turns with mixup", "Yun et al., 2019", _MIXING, "cutmix"),
    ("label-smoothing", "label smoothing", "Szegedy et al., 2016", _MIXING, "label_smoothing"),
    ("stochastic-depth", "stochastic depth", "Huang et al., 2016", "Depth", "drop_path"),
    ("layer-scale", "layer scale", "Touvron et al., 2021", "Depth", "layer_scale"),
)
_DECAY, _SHORT_DECAY = 0.9999, 0.99
"""Of the moving average. The paper's code has 0.9999; a study of small networks may end after 400
updates, when that average has hardly begun."""


def recipe(network: str = "baseline") -> Roadmap:
    """Return the roadmap on the network of one of the paper's steps.

    Its last step is that step's run in the paper's roadmap. On another network than the baseline,
    the names of the steps include it: mixup-on-depthwise.

    Raises:
        ValueError: there is no such step.
    """
    on = PAPER.step(network)
    if on.reference:
        raise ValueError(
            f"{on.name} has a recipe of its own kind: give the network of a step on the paper's "
            "roadmap"
        )
    steps = [
        Step(
            "baseline",
            "ResNet's classic recipe",
            "He et al., 2016",
            "Baseline",
            None,
            0,
            recipe=RecipeOf.CLASSIC.whole(),
        )
    ]
    for number, (name, description, source, group, names) in enumerate(_DECISIONS, start=1):
        modern = dict.fromkeys(names.split(), RecipeOf.MODERN)
        after = steps[-1].name
        steps.append(Step(name, description, source, group, after, number, recipe=modern))
    steps.append(
        Step(
            "moving-average",
            "moving average of the weights, off the path",
            "Polyak and Juditsky, 1992",
            _OPTIMIZATION,
            steps[-1].name,
            recipe={"ema": _DECAY},
            sizes={"small": {"ema": _SHORT_DECAY}, "mini": {"ema": _SHORT_DECAY}},
        )
    )
    description = "from ResNet's recipe to ConvNeXt's"
    if on.name == "baseline":
        return Roadmap("recipe", description, tuple(steps))
    names_on = {step.name: f"{step.name}-on-{on.name}" for step in steps}
    names_on["baseline"] = f"classic-on-{on.name}"
    renamed = tuple(
        replace(step, name=names_on[step.name], after=step.after and names_on[step.after])
        for step in steps
    )
    return Roadmap(
        f"recipe-on-{on.name}",
        f"{description}, on the network of {on.name}",
        renamed,
        start=PAPER.path_to(on),
    )
