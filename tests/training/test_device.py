"""The device's settings: precision says whether TF32 may be used."""

from collections.abc import Iterator

import pytest
import torch

from training.device import environment, set_up


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = convolution, benchmark


@pytest.mark.parametrize(("precision", "tf32"), [("bf16", True), ("fp32", False), ("fp16", True)])
def test_tf32_follows_the_precision_and_can_be_asked_for_by_its_old_and_new_names(precision, tf32) -> None:
    set_up(torch.device("cuda"), precision)
    # torch raises where the two interfaces were mixed, in the middle of torch.compile.
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")


def test_the_cpu_is_left_alone() -> None:
    set_up(torch.device("cpu"), "bf16")
    assert torch.get_float32_matmul_precision() == "highest"
    assert environment(torch.device("cpu"))["tf32"] is False
