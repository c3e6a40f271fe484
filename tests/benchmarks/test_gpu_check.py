"""The check of a GPU, on the CPU with pocket networks, so that it runs the first time where there
is one."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_check
from benchmarks.gpu_check import Setting
from benchmarks.jobs import Finding, Job
from training.execution import ComputeOptions

SMALL = "--cpu --regime mini --resolution 32 --batch 8 --warm 1 --updates 2 --workers 0"
PARTS = ("rates", "options", "resumed", "memory", "waiting", "losses")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting("cpu", "mini", 32, batch=4, workers=0, threads=1, folder=tmp_path)


def _here(jobs: Sequence[Job], processes: int, end: float) -> Iterator[Finding]:
    """As `run_all`, in this process."""
    for job in jobs:
        yield from job.function(*job.arguments)


def test_the_check_asks_all_it_can_on_the_cpu_and_writes_a_page(
    tmp_path, monkeypatch, capfd
) -> None:
    monkeypatch.setattr(gpu, "run_all", _here)
    words = ["--steps", "separate-downsampling", "--precisions", "bf16", "--out", str(tmp_path)]
    gpu.main(["--check", *SMALL.split(), "--parts", *PARTS, *words])
    parts = json.loads((tmp_path / "gpu-check-shown-on-cpu.json").read_text())["parts"]
    assert list(parts)[:2] == ["rates", "options"], "the most valuable figures come first"
    held = {name: [finding["held"] for finding in part] for name, part in parts.items()}
    assert held["losses"] == [True, True]  # as it is and rewritten
    assert held["resumed"] == [True, True]  # with --deterministic and without
    assert held["memory"] == held["waiting"] == held["rates"] == [None]
    assert parts["rates"][0]["figures"]["images_per_second"] > 0
    texts = {each["what"].partition(": ")[2]: each["text"] for each in parts["options"]}
    for name in ("contiguous", "weights cast in every part", "one part, as in food101-h200"):
        assert "of the defaults" in texts[name]
    for name in ("recorded (CUDA graphs)", "cuDNN's depthwise kernels", "compiled"):
        assert texts[name] == "not measured: for a GPU"
    assert {each["text"] for each in parts["compiled"]} == {"not measured: it was left out"}
    page = (tmp_path / "gpu-check-shown-on-cpu.md").read_text()
    assert "**4 held, 0 did not," in page
    assert "| separate-downsampling, bf16: contiguous |" in page
    assert "4,292" in page


def test_without_a_gpu_nothing_is_measured(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main(["--check", "--out", str(tmp_path)])
    parts = json.loads((tmp_path / "gpu-check.json").read_text())["parts"]
    texts = {finding["text"] for part in parts.values() for finding in part}
    assert texts == {"not measured: there is no CUDA device"}
    assert len(parts["compiled"]) == 1 + 3 * 18


def test_losses_that_are_not_the_cpus_do_not_hold(setting) -> None:
    ask = lambda: next(gpu_check.losses("baseline", "fp32", ComputeOptions(), setting))  # noqa: E731
    assert ask().held
    kept = setting.folder / "baseline.json"
    truth = json.loads(kept.read_text())
    for spoilt in (
        {**truth, "losses": [1.002 * each for each in truth["losses"]]},
        {**truth, "norms": [1.1 * each for each in truth["norms"]]},
    ):
        kept.write_text(json.dumps(spoilt))
        assert ask().held is False


def test_a_run_that_goes_on_elsewhere_does_not_hold(setting, monkeypatch) -> None:
    whole = gpu_check.train

    def forgetful(run, *others):
        (run.folder / "checkpoint.pt").unlink(missing_ok=True)
        return whole(run, *others)

    monkeypatch.setattr(gpu_check, "train", forgetful)
    assert next(gpu_check.resumed("baseline", "fp32", True, setting)).held is False
