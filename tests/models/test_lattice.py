"""Any combination of flags is a valid network."""

import contextlib
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from models import Architecture
from models.builder import build, empty
from models.parts import BUILT_IN

depths = st.shared(st.lists(st.integers(1, 2), min_size=1, max_size=4).map(tuple), key="depths")
spatial = st.shared(st.sampled_from(["convolution", "inception"]), key="spatial")
FLAGS = dict(  # noqa: C408
    depths=depths,
    width=spatial.flatmap(
        lambda kind: st.integers(2, 6) if kind == "convolution" else st.integers(8, 10)
    ),
    stem=st.sampled_from(BUILT_IN["stem"]),
    stem_stride=st.sampled_from([1, 2, 4]),
    depthwise=st.booleans(),
    inverted_bottleneck=st.booleans(),
    depthwise_first=st.booleans(),
    kernel_size=st.sampled_from([1, 3, 5, 7]),
    activation=st.sampled_from(BUILT_IN["activation"]),
    fewer_activations=st.booleans(),
    fewer_norms=st.booleans(),
    norm=st.sampled_from(BUILT_IN["norm"]),
    separate_downsampling=st.booleans(),
    spatial=spatial,
    before_last=st.sampled_from(BUILT_IN["before_last"]),
    branch_end=st.sampled_from(BUILT_IN["branch_end"]),
    expansion=st.integers(1, 4)
    | depths.flatmap(lambda depths: st.tuples(*[st.integers(1, 4) for _ in depths])),
    head=st.sampled_from(BUILT_IN["head"]),
    all_biases=st.booleans(),
    num_classes=st.integers(1, 7),
)
architectures = st.builds(Architecture, **FLAGS)


def test_every_flag_is_among_those_that_are_combined() -> None:
    assert FLAGS.keys() == {field.name for field in fields(Architecture)}
    words = {field.name for field in fields(Architecture) if isinstance(field.default, str)}
    assert words == BUILT_IN.keys()  # so that a wrong name is refused


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_changes_some_network(flag: str) -> None:
    def changes(a: Architecture) -> bool:
        with contextlib.suppress(ValueError):  # the default does not fit the other flags
            return str(empty(a)) != str(empty(replace(a, **{flag: getattr(Architecture(), flag)})))
        return False

    # find raises if there is none.
    find(
        architectures,
        changes,
        settings=settings(phases=[Phase.generate], derandomize=True, database=None, deadline=None),
    )


@settings(max_examples=100, deadline=None, derandomize=True)
@given(architectures, st.sampled_from([32, 40, 47]))
def test_any_combination_trains(a: Architecture, side: int) -> None:
    torch.manual_seed(0)
    # float64: repeated squares of StarReLU without a norm between exceed the range of float32.
    model = build(a, drop_path=0.0, layer_scale=None, init="he").double()
    logits = model(torch.randn(3, 3, side, side, dtype=torch.float64))
    assert logits.shape == (3, a.num_classes)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@settings(max_examples=30, deadline=None, derandomize=True)
@given(architectures)
def test_drop_path_and_layer_scale_fit_any_combination(a: Architecture) -> None:
    bare = build(a)
    scaled = build(a, drop_path=0.3, layer_scale=1e-6)
    grown = sum(p.numel() for p in scaled.parameters()) - sum(p.numel() for p in bare.parameters())
    ends = [1 if a.inverted_bottleneck else expansion for expansion in a.expansions]
    assert grown == sum(depth * ends[i] * a.width * 2**i for i, depth in enumerate(a.depths))
    scaled(torch.randn(2, 3, 32, 32)).sum().backward()
