"""The arithmetic of the recipe, against closed forms and torch's own schedulers."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR, SequentialLR

from ablations import PAPER, REGIMES
from data.loader import Batch
from models.builder import build
from training.recipe import CLASSIC, Recipe, StudyConfig, follow
from training.update import learning_rate, loss_function, make_optimizer, parameter_groups

SHORT = Recipe(epochs=10, warmup_epochs=3, batch_size=4096, min_lr=1e-6)


def _torch_rates(schedulers, milestones, updates, lr) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    built = [make(optimizer) for make in schedulers]
    scheduler = SequentialLR(optimizer, built, milestones) if milestones else built[0]
    rates = []
    for _ in range(updates):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_the_learning_rate_of_every_update_is_warm_up_then_cosine() -> None:
    expected = _torch_rates(
        [
            lambda o: LinearLR(o, start_factor=1e-12, end_factor=1.0, total_iters=21),
            lambda o: CosineAnnealingLR(o, T_max=49, eta_min=1e-6),
        ],
        [21],
        70,
        lr=4e-3,
    )
    ours = [learning_rate(SHORT, update, 7) for update in range(70)]
    assert ours == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert ours[0] == 0
    assert max(ours) == ours[21] == 4e-3


def test_the_classic_learning_rate_falls_in_steps() -> None:
    expected = _torch_rates([lambda o: MultiStepLR(o, [150, 300], 0.1)], [], 450, lr=0.1)
    assert [learning_rate(CLASSIC, update, 5) for update in range(450)] == pytest.approx(expected)


def test_the_learning_rate_scales_with_the_batch() -> None:
    assert Recipe(batch_size=512).peak_lr == pytest.approx(5e-4)
    assert Recipe().peak_lr == 4e-3


# Written apart from training.update: what decays, by name; whatever is not named here does
# not.
DECAYED = re.compile(
    r"stem\.conv\.weight"
    r"|stages\.\d\.block\d+\.branch\.conv[123]\.weight"
    r"|stages\.\d\.block\d+\.shortcut\.conv\.weight"
    r"|stages\.\d\.downsample\.conv\.weight"
    r"|head\.weight"
    # torchvision's Swin: patches, attention, perceptron, merging. Its tables of position biases are
    # biases.
    r"|features\.0\.0\.weight"
    r"|features\.\d\.\d\.(attn\.(qkv|proj)|mlp\.[03])\.weight"
    r"|features\.\d\.reduction\.weight"
)
SPARED = re.compile(
    r".*(\.bias|norm\d?\.weight|\.layer_scale|relative_position_bias_table|features\.0\.2\.weight)"
)


@pytest.mark.parametrize("step", PAPER.steps_in(REGIMES["mini"]), ids=lambda step: step.name)
def test_every_parameter_of_every_step_is_in_its_decay_group(step) -> None:
    model = build(PAPER.architecture(step, REGIMES["mini"]), drop_path=0.1, layer_scale=1e-6)
    decay = {
        id(parameter): group["weight_decay"]
        for group in parameter_groups(model, Recipe())
        for parameter in group["params"]
    }
    assert len(decay) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert bool(DECAYED.fullmatch(name)) != bool(SPARED.fullmatch(name)), name
        assert decay[id(parameter)] == (0.05 if DECAYED.fullmatch(name) else 0.0), name
    everything = parameter_groups(model, CLASSIC)
    assert [group["weight_decay"] for group in everything] == [1e-4]
    assert len(everything[0]["params"]) == len(decay)


def test_the_optimizers_are_torchs_with_the_recipes_numbers() -> None:
    model = build(REGIMES["mini"].baseline)
    adamw = make_optimizer(model, Recipe(), torch.device("cpu"))
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["betas"] == (0.9, 0.999)
    sgd = make_optimizer(model, CLASSIC, torch.device("cpu"))
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.9, False)


def test_the_loss_is_cross_entropy_to_mixed_and_smoothed_targets() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 5)
    labels, partners = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([1, 0, 3, 2, 0, 4])
    weight = torch.tensor([0.3, 0.3, 1.0, 0.0, 0.7, 0.7])
    batch = Batch(torch.empty(0), labels, partners, weight, torch.arange(6))

    smooth = 0.1
    target = torch.full((6, 5), smooth / 5)
    for row in range(6):
        target[row, labels[row]] += (1 - smooth) * weight[row]
        target[row, partners[row]] += (1 - smooth) * (1 - weight[row])
    expected = -(target * F.log_softmax(logits, 1)).sum(1).mean()
    assert loss_function(logits, batch, smooth).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0: give 1 to"),
        ({"epochs": 20}, "the warm-up must end before the training does"),
        ({"lr": 0.0}, "lr is 0.0: give a number above 0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"min_lr": 1.0}, "give a --min-lr below it"),
        ({"drop_path": 1.0}, "less than 1"),
        ({"mixup": -1.0}, "mixup is -1.0: give 0 or more"),
        ({"random_erasing": 1.5}, "probability"),
        ({"micro_batches": 3}, "that divide the batch"),
        ({"crop_scale": (0.5, 0.2)}, "two rising shares"),
        ({"optimizer": "adam"}, "adamw or sgd"),
        ({"layer_scale": -1.0}, "above 0, or None"),
        ({"ema": 1.0}, "ema is 1.0: give a number above 0 and below 1"),
    ],
)
def test_an_impossible_recipe_is_refused_in_a_sentence(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe().change(**changes)


def test_an_impossible_study_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="give 1 to 4096"):
        StudyConfig(resolution=5000)
    with pytest.raises(ValueError, match="auto, fp32, bf16, fp16"):
        StudyConfig(precision="fp8")


def test_the_classic_recipe_follows_a_shorter_study() -> None:
    shorter = replace(Recipe(), epochs=100, batch_size=2048)
    followed = follow(CLASSIC, Recipe(), shorter)
    assert (followed.epochs, followed.step_epochs, followed.batch_size) == (30, 10, 128)
    assert follow(CLASSIC, Recipe(), Recipe()) == CLASSIC
