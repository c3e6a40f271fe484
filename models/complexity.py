"""The size of a network and its FLOPs, counted by fvcore on a trace of the network itself."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from models.architecture import Architecture, SwinArchitecture
from models.builder import empty

with warnings.catch_warnings():
    # fvcore 0.1.5 uses torch.jit.script, which torch 2.15 deprecates.
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis, jit_handles

# The paper's convention counts these alone; attention products occur in Swin only.
PAPER_OPERATORS = ("conv", "linear", "addmm", "matmul", "bmm")
_OUTPUTS = "outputs"


@dataclass(frozen=True)
class Complexity:
    """Counts for one image; one multiply-add is one FLOP, as in fvcore and in the paper."""

    params: int
    flops: int
    """Every operator that fvcore counts: convolutions, classifier, norms, pooling."""
    flops_paper_convention: int
    """Convolutions, linear layers and attention products only, as in the paper's tables."""
    activations: int
    """Output elements of all convolutions, linear layers and attention products."""


def _with_outputs(name: str, flops: Callable[..., Any]) -> Callable[..., Counter[str]]:
    """fvcore's handle `flops` that also counts output elements, so that one trace gives both."""
    outputs = jit_handles.generic_activation_jit()

    def count(*values: Any) -> Counter[str]:
        result = flops(*values)
        counts = result if isinstance(result, Counter) else Counter({name: result})
        return Counter({**counts, _OUTPUTS: outputs(*values)})

    return count


# The operators that fvcore's ActivationCountAnalysis counts.
_HANDLES = {
    "aten::_convolution": _with_outputs("conv", jit_handles.conv_flop_jit),
    "aten::addmm": _with_outputs("addmm", jit_handles.addmm_flop_jit),
    "aten::bmm": _with_outputs("bmm", jit_handles.bmm_flop_jit),
    "aten::einsum": _with_outputs("einsum", jit_handles.einsum_flop_jit),
    "aten::matmul": _with_outputs("matmul", jit_handles.matmul_flop_jit),
    "aten::linear": _with_outputs("linear", jit_handles.linear_flop_jit),
}


@torch.no_grad()
def _count(model: nn.Module, resolution: int) -> dict[str, Counter[str]]:
    """Count by module and operator on one image in eval mode; "" is the whole model."""
    parameter = next(model.parameters())
    image = torch.zeros(
        1, 3, resolution, resolution, device=parameter.device, dtype=parameter.dtype
    )
    was_training = model.training
    model.eval()
    # fvcore warns of every operator without a formula, the tracer of every Python branch.
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            analysis = FlopCountAnalysis(model, image).set_op_handle(**_HANDLES)
            counts: dict[str, Counter[str]] = analysis.by_module_and_operator()
    finally:
        model.train(was_training)
    return counts


def complexity(model: nn.Module, resolution: int = 224) -> Complexity:
    """Count parameters, FLOPs and activations of `model` for a (3, resolution, resolution) image.

    The model's train or eval mode is left as it was.
    """
    counts = Counter(_count(model, resolution)[""])
    activations = int(counts.pop(_OUTPUTS))
    return Complexity(
        params=sum(parameter.numel() for parameter in model.parameters()),
        flops=int(sum(counts.values())),
        flops_paper_convention=int(sum(counts[name] for name in PAPER_OPERATORS)),
        activations=activations,
    )


def stage_complexity(
    architecture: Architecture | SwinArchitecture, resolution: int = 224
) -> dict[str, tuple[int, int]]:
    """Count stem, stages with their downsampling, and head (final norm, pooling, classifier).

    Returns:
        Parameters without layer scale, and FLOPs in the paper's convention, by name.
    """
    stages = range(len(architecture.depths))
    if isinstance(architecture, SwinArchitecture):
        modules = {"stem": ["features.0"], "stage 1": ["features.1"]}
        modules |= {
            f"stage {i + 1}": [f"features.{2 * i}", f"features.{2 * i + 1}"] for i in stages[1:]
        }
        modules["head"] = ["norm", "head"]
    else:
        modules = {"stem": ["stem"], **{f"stage {i + 1}": [f"stages.{i}"] for i in stages}}
        modules["head"] = ["norm", "mlp", "head"]
    model = empty(architecture)
    counts = _count(model, resolution)
    return {
        name: (
            sum(p.numel() for each in inside for p in model.get_submodule(each).parameters()),
            int(sum(counts[each][operator] for each in inside for operator in PAPER_OPERATORS)),
        )
        for name, inside in modules.items()
    }


@cache
def architecture_complexity(
    architecture: Architecture | SwinArchitecture,
    resolution: int = 224,
    *,
    layer_scale: bool = False,
) -> Complexity:
    """Count a network of `architecture` without drawing initial weights."""
    return complexity(empty(architecture, layer_scale=1.0 if layer_scale else None), resolution)
