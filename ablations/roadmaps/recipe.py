"""From ResNet's classic recipe to the modern one, one decision a step, on one network."""

from dataclasses import replace

from ablations.roadmap import Roadmap
from ablations.roadmaps.paper import PAPER
from ablations.step import RecipeOf, Step

_DECISIONS: tuple[tuple[str, str, str, str, tuple[str, ...]], ...] = (
    (
        "optimizer",
        "SGD to AdamW, with its batch and rate",
        "Loshchilov and Hutter, 2019",
        "Optimization",
        (
            "optimizer",
            "lr",
            "lr_batch",
            "batch_size",
            "micro_batches",
            "betas",
            "momentum",
            "weight_decay",
            "decay_all",
        ),
    ),
    (
        "schedule",
        "steps to warm-up and cosine, over more epochs",
        "Loshchilov and Hutter, 2017",
        "Optimization",
        ("schedule", "warmup_epochs", "min_lr", "step_epochs", "step_factor", "epochs", "ema"),
    ),
    (
        "initial-weights",
        "He's initial weights to truncated normal",
        "section 2.1",
        "Optimization",
        ("init",),
    ),
    ("crops", "crops and flips", "Szegedy et al., 2015", "Images", ("crop_scale", "flip")),
    (
        "rand-augment",
        "RandAugment",
        "Cubuk et al., 2020",
        "Images",
        ("rand_augment_magnitude", "rand_augment_std", "color_jitter"),
    ),
    ("random-erasing", "random erasing", "Zhong et al., 2020", "Images", ("random_erasing",)),
    ("mixup", "mixup", "Zhang et al., 2018", "Mixing and labels", ("mixup",)),
    ("cutmix", "cutmix, in turns with mixup", "Yun et al., 2019", "Mixing and labels", ("cutmix",)),
    (
        "label-smoothing",
        "label smoothing",
        "Szegedy et al., 2016",
        "Mixing and labels",
        ("label_smoothing",),
    ),
    ("stochastic-depth", "stochastic depth", "Huang et al., 2016", "Depth", ("drop_path",)),
    ("layer-scale", "layer scale", "Touvron et al., 2021", "Depth", ("layer_scale",)),
)
"""Name, description, source, group and fields; why some fields go together:
docs/decisions.md#recipe-roadmap."""

_DECAY, _SHORT_DECAY = 0.9999, 0.99
"""Of the moving average. The paper's code has 0.9999; a study of small networks may be over after
400 updates, when that average has hardly begun."""


def recipe(network: str = "baseline") -> Roadmap:
    """The roadmap on the network of a step of the paper's. The last row is that step's run in the
    paper's roadmap.

    Rows on another network than the baseline have names that say so: mixup-on-depthwise.

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
            None,
            0,
            "Baseline",
            recipe=RecipeOf.CLASSIC.whole(),
        )
    ]
    for number, (name, description, source, group, names) in enumerate(_DECISIONS, start=1):
        modern = dict.fromkeys(names, RecipeOf.MODERN)
        steps.append(Step(name, description, source, steps[-1].name, number, group, recipe=modern))
    short = {"small": {"ema": _SHORT_DECAY}, "pocket": {"ema": _SHORT_DECAY}}
    average = (
        "moving-average",
        "moving average of the weights, off the path",
        "Polyak and Juditsky, 1992",
    )
    steps.append(
        Step(*average, steps[-1].name, None, "Optimization", recipe={"ema": _DECAY}, sizes=short)
    )
    if on.name == "baseline":
        return Roadmap("recipe", "from ResNet's recipe to ConvNeXt's", tuple(steps))
    named = {step.name: f"{step.name}-on-{on.name}" for step in steps} | {
        "baseline": f"classic-on-{on.name}"
    }
    renamed = (
        replace(step, name=named[step.name], after=step.after and named[step.after])
        for step in steps
    )
    description = f"from ResNet's recipe to ConvNeXt's, on the network of {on.name}"
    return Roadmap(f"recipe-on-{on.name}", description, tuple(renamed), start=PAPER.way(on))
