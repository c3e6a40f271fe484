"""What is set of the process and its device before it computes."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training import device
from training.device import (
    device_name,
    environment,
    find_precision,
    find_workers,
    first_line,
    is_out_of_memory,
    notes,
    set_up,
    threads,
    wait_for,
)
from training.execution import ComputeOptions

SCRIPT = '''
import resource, sys, torch
from training.device import set_up

def faults():
    """Page faults of an allocation: the least of ten, for a place has to be found first."""
    counts = []
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(16_000_000)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counts)

before = faults()
set_up(torch.device("cpu"), "fp32")
print(before, faults())
'''


CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    benchmark = torch.backends.cudnn.benchmark
    yield
    torch.set_float32_matmul_precision(matmul)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = convolution, benchmark


@pytest.mark.parametrize(("precision", "tf32"), [("bf16", True), ("fp32", False), ("fp16", True)])
def test_tf32_follows_the_precision_and_can_be_read_by_its_old_and_new_names(
    precision, tf32
) -> None:
    set_up(torch.device("cuda"), precision)
    # torch raises where the two interfaces were mixed, in the middle of torch.compile.
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")


@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_a_card_that_only_emulates_bf16_gets_fp16(capability, precision, monkeypatch) -> None:
    cards = {torch.device("cuda:1"): capability}
    monkeypatch.setattr(torch.cuda, "get_device_capability", cards.__getitem__)
    assert find_precision("auto", torch.device("cuda:1")) == precision


def test_a_gpu_is_fed_by_the_cores_that_the_process_may_use(monkeypatch) -> None:
    for have, workers in ((1, 1), (4, 4), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, have=have: set(range(have)))
        assert find_workers(None, torch.device("cuda")) == workers
    assert find_workers(None, CPU) == 0


def test_the_requested_device_is_the_current_one_and_clocks_wait_for_it(monkeypatch) -> None:
    current, waited = [], []
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    set_up(torch.device("cuda:1"), "fp32")
    for each in (CPU, torch.device("cuda"), torch.device("mps")):
        wait_for(each)
    assert (current, waited) == ([1], [torch.device("cuda"), torch.device("mps")])


def test_a_device_has_one_name_whatever_the_options() -> None:
    name = device_name(CPU)
    with threads(3), threads(1):
        assert device_name(CPU) == name
    assert device_name(CPU, 4) == f"4 x {name}", "four processes take another time than one"
    assert device_name(torch.device("mps")) != name


def test_the_cpu_is_left_alone() -> None:
    set_up(CPU, "bf16")
    assert torch.get_float32_matmul_precision() == "highest"
    assert environment(CPU)["tf32"] is False


def test_deterministic_selects_kernels_that_always_round_alike() -> None:
    for requested in (True, False):
        set_up(torch.device("cuda"), "fp32", deterministic=requested)
        assert torch.are_deterministic_algorithms_enabled() is requested
        assert torch.is_deterministic_algorithms_warn_only_enabled() or not requested
        assert torch.backends.cudnn.deterministic is requested
        assert torch.backends.cudnn.benchmark is not requested
    set_up(torch.device("cuda"), "fp32", search=False)
    assert not torch.backends.cudnn.benchmark, "an estimate sees each shape twice"


def test_bf16_that_the_cpu_emulates_is_answered_with_both_rates(monkeypatch) -> None:
    rates = {torch.float32: 58.0, torch.bfloat16: 0.9}
    monkeypatch.setattr(device, "_products_per_second", rates.__getitem__)
    (line,) = notes(CPU, "bf16")
    assert "0.9 GFLOP/s instead of 58 in fp32; give --precision fp32" in line
    assert notes(CPU, "fp32") == []
    rates[torch.bfloat16] = 60.0
    assert notes(CPU, "bf16") == []
    assert notes(torch.device("xpu"), "bf16") == ["device xpu was never tried with this program"]


def test_depthwise_kernels_are_chosen_within_a_block(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "depthwise_kernel", "auto", raising=False)
    assert device.depthwise_kernels(CPU) == ()
    for name in ("auto", *device.depthwise_kernels(torch.device("cuda"))):
        with ComputeOptions(depthwise=name).applied():
            assert torch.backends.cudnn.depthwise_kernel == name
        assert torch.backends.cudnn.depthwise_kernel == "auto"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        MemoryError(),
    ],
)
def test_every_lack_of_memory_is_recognized_and_keeps_its_words(error) -> None:
    assert is_out_of_memory(error)
    assert first_line(error) == (str(error) or "MemoryError")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="a setting of glibc")
def test_memory_that_was_freed_is_used_again_without_the_system() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert before > 25  # 64 MB in pages of up to 2 MiB
    assert after < 10
