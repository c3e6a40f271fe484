"""Learning rate, parameter groups, optimizer, loss: the arithmetic of a recipe."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from data.batches import Batch
from training.recipe import Recipe

_ALSO_SPARED = (".bias", ".layer_scale", ".relative_position_bias_table")
"""Names of parameters without weight decay, whatever their shape."""


def learning_rate(recipe: Recipe, update: int, updates_per_epoch: int) -> float:
    """The learning rate of optimizer update number `update`, counted from 0.

    It rises linearly from 0 over the warm-up, then falls as a cosine to `min_lr` (or in steps),
    update by update.
    """
    peak = recipe.peak_lr
    warmup = recipe.warmup_epochs * updates_per_epoch
    if update < warmup:
        return peak * update / warmup
    if recipe.schedule == "step":
        return peak * recipe.step_factor ** (update // (recipe.step_epochs * updates_per_epoch))
    progress = (update - warmup) / max(recipe.epochs * updates_per_epoch - warmup, 1)
    return recipe.min_lr + (peak - recipe.min_lr) * (1 + math.cos(math.pi * progress)) / 2


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """Two groups: parameters with weight decay, and those without (biases and everything of one
    dimension).

    Layer scale has one number per channel and counts as one-dimensional; its shape only serves
    broadcasting. Swin's tables of position biases are biases, and are spared in its authors' code
    too.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        one_dimensional = parameter.ndim <= 1 or name.endswith(_ALSO_SPARED)
        (spared if one_dimensional and not recipe.decay_all else decayed).append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """torch's AdamW or SGD over `parameter_groups`; the fused kernels, which compute the same in
    one pass."""
    groups = parameter_groups(model, recipe)
    fused = device.type in ("cuda", "cpu")
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.peak_lr, betas=recipe.betas, fused=fused)
    sgd = torch.optim.SGD(groups, lr=recipe.peak_lr, momentum=recipe.momentum, fused=fused)
    if recipe.momentum:
        # Zeros give the same first step. Left to itself the fused kernel keeps uninitialized memory
        # as momentum where fp16's scaler skips the first update.
        for parameter in model.parameters():
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move `average`, a copy of `model`, a step towards it: decay x average + (1 - decay) x model.

    Parameters and floating-point buffers (batch norm's statistics) are averaged; counters are
    copied.
    """
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    move([ours for ours, _ in floating], [theirs for _, theirs in floating], 0)
    for ours, theirs in pairs:
        if not ours.is_floating_point():
            ours.copy_(theirs)


def loss_function(logits: Tensor, batch: Batch, label_smoothing: float) -> Tensor:
    """Cross entropy to smoothed targets of which `batch.weight` belongs to the label and the rest
    to the partner's.

    logits: (B, classes), taken to float32 at least. Returns the mean over the batch.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    own = F.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=label_smoothing)
    if batch.partner_labels is batch.labels:
        return own.mean()
    partner = F.cross_entropy(
        logits, batch.partner_labels, reduction="none", label_smoothing=label_smoothing
    )
    return (batch.weight * own + (1 - batch.weight) * partner).mean()
