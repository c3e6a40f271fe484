"""How large a network is and how much it computes, counted by fvcore on a trace of the network
itself."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from models.architecture import Architecture, SwinArchitecture
from models.builder import empty

with warnings.catch_warnings():
    # fvcore 0.1.5 uses torch.jit.script, which torch 2.15 calls deprecated.
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
    """Convolutions, linear layers and attention products only: what the paper's tables print."""
    activations: int
    """Output elements of all convolutions, linear layers and attention products."""


@contextmanager
def _traceable(model: nn.Module, resolution: int) -> Iterator[Tensor]:
    """An image to trace `model` with, in eval mode and without what fvcore and torch's tracer have
    to say."""
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    # fvcore warns of every operator that it has no formula for (ReLU, additions); the tracer of
    # every Python branch.
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield torch.zeros(
                1, 3, resolution, resolution, device=parameter.device, dtype=parameter.dtype
            )
    finally:
        model.train(was_training)


def _flops_and_outputs(name: str, flops: Callable[..., Any]) -> Callable[..., Counter[str]]:
    """An operator's FLOPs and, beside them, its output elements, so that one trace gives both."""
    outputs = jit_handles.generic_activation_jit()

    def count(*values: Any) -> Counter[str]:
        counted = flops(*values)
        named = counted if isinstance(counted, Counter) else {name: counted}
        return Counter({**named, _OUTPUTS: outputs(*values)})

    return count


_FLOPS_AND_OUTPUTS = {
    "aten::_convolution": _flops_and_outputs("conv", jit_handles.conv_flop_jit),
    "aten::addmm": _flops_and_outputs("addmm", jit_handles.addmm_flop_jit),
    "aten::bmm": _flops_and_outputs("bmm", jit_handles.bmm_flop_jit),
    "aten::einsum": _flops_and_outputs("einsum", jit_handles.einsum_flop_jit),
    "aten::matmul": _flops_and_outputs("matmul", jit_handles.matmul_flop_jit),
    "aten::linear": _flops_and_outputs("linear", jit_handles.linear_flop_jit),
}
"""For the operators whose outputs fvcore's ActivationCountAnalysis counts."""


def complexity(model: nn.Module, resolution: int = 224) -> Complexity:
    """Count parameters, FLOPs and activations of `model` for one (3, resolution, resolution) image.

    The model's train or eval mode is left as it was.
    """
    with _traceable(model, resolution) as image:
        by_operator: Counter[str] = (
            FlopCountAnalysis(model, image).set_op_handle(**_FLOPS_AND_OUTPUTS).by_operator()
        )
        activations = int(by_operator.pop(_OUTPUTS))
    return Complexity(
        params=sum(parameter.numel() for parameter in model.parameters()),
        flops=int(sum(by_operator.values())),
        flops_paper_convention=int(sum(by_operator[name] for name in PAPER_OPERATORS)),
        activations=activations,
    )


@dataclass(frozen=True)
class StageComplexity:
    """One stage's share; its strided or separate downsampling is part of it."""

    name: str
    params: int
    flops: int
    """For one image, in the paper's convention."""


def stage_complexity(
    architecture: Architecture | SwinArchitecture, resolution: int = 224
) -> list[StageComplexity]:
    """Stem, stages and head (final norm, pooling, classifier), counted by fvcore; layer scale is
    left out."""
    model = empty(architecture)
    if isinstance(architecture, SwinArchitecture):
        parts = {"stem": ["features.0"], "stage 1": ["features.1"]}
        parts |= {
            f"stage {i + 1}": [f"features.{2 * i}", f"features.{2 * i + 1}"]
            for i in range(1, len(architecture.depths))
        }
    else:
        parts = {"stem": ["stem"]} | {
            f"stage {i + 1}": [f"stages.{i}"] for i in range(len(architecture.depths))
        }
    parts["head"] = (
        ["norm", "mlp", "head"] if isinstance(architecture, Architecture) else ["norm", "head"]
    )
    with _traceable(model, resolution) as image:
        by_module = FlopCountAnalysis(model, image).by_module_and_operator()
    return [
        StageComplexity(
            name,
            sum(p.numel() for part in inside for p in model.get_submodule(part).parameters()),
            int(sum(by_module[part][operator] for part in inside for operator in PAPER_OPERATORS)),
        )
        for name, inside in parts.items()
    ]


@cache
def architecture_complexity(
    architecture: Architecture | SwinArchitecture,
    resolution: int = 224,
    *,
    layer_scale: bool = False,
) -> Complexity:
    """Count what `architecture` would have, without drawing its initial weights."""
    return complexity(empty(architecture, layer_scale=1.0 if layer_scale else None), resolution)
