"""Several processes that share a run: real ones, started by torchrun, that meet over gloo."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import runner
from ablations import PAPER, REGIMES
from data.loader import eval_batches
from models.builder import build
from tests.conftest import BuildOnce
from training import checkpoint, device, processes
from training.device import find_device, find_workers
from training.evaluation import NotOnce, evaluate
from training.interrupt import STOPPED
from training.spec import RankInfo, rank_info

# Several processes of torch begin, on a busy machine one after the other.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
TORCHRUN = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run"]


@contextmanager
def started(processes: int, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """torchrun with a program and its words; ended with the block."""
    around = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": str(ROOT),
    }
    with subprocess.Popen(
        [*TORCHRUN, f"--nproc-per-node={processes}", "--standalone", *words],
        cwd=ROOT,
        env=around,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # not killed: it would leave its processes behind


def output(process: "subprocess.Popen[str]") -> str:
    """All that it prints until it ends."""
    return process.communicate()[0]


def process_of_rank(rank: int, torchrun: int) -> int:
    """The number of the process that torchrun started as `rank`."""
    for child in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"torchrun has no process {rank}")


def codes(report: str) -> list[int]:
    """Exit codes in torchrun's report."""
    return [int(code) for code in re.findall(r"^ *exitcode *: (-?\d+)", report, re.MULTILINE)]


AGREEMENT = Path(__file__).with_name("agreement.py")


@pytest.fixture(scope="module")
def alone(build_once: BuildOnce) -> dict[str, str]:
    """What one process makes of an update of every step; see agreement.py."""
    from tests.training import agreement

    def make(folder: Path) -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        (folder / "alone.json").write_text(json.dumps(agreement.all_steps()))
        torch.set_num_threads(threads)

    made: dict[str, str] = json.loads((build_once("alone", make) / "alone.json").read_text())
    return made


@pytest.mark.parametrize("processes", [2, 4])
def test_every_step_comes_out_the_same_to_the_last_bit_however_many_share_it(
    processes, alone, tmp_path
) -> None:
    with started(processes, str(AGREEMENT), str(tmp_path)) as torchrun:
        report = output(torchrun)
        assert torchrun.returncode == 0, report
    for rank in range(processes):
        together = json.loads((tmp_path / f"{rank}.json").read_text())
        assert together.keys() == alone.keys()
        different = [name for name, digest in alone.items() if together[name] != digest]
        assert not different, (rank, different)


OPTIONS = (
    "--preset pocket --study shared --resolution 32 --epochs 3 --warmup-epochs 1 --ema 0.9 "
    "--batch-size 8 --micro-batches 4 --mixup 0.8 --cutmix 1.0 --drop-path 0.2 --workers 0 "
    "--device cpu --no-trial"
)
REQUEST = OPTIONS.split()


def left(folder: Path) -> dict[str, object]:
    """What of a finished run must not depend on who made it."""
    state = checkpoint.load(folder / "checkpoint.pt")
    timeless = ("seconds", "images_per_second")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": (folder / "model.safetensors").read_bytes(),
        "states": {
            part: {name: value.numpy().tobytes() for name, value in state[part].items()}
            for part in ("model", "average")
        },
        "moments": [
            {name: value.numpy().tobytes() for name, value in one.items()}
            for one in state["optimizer"]["state"].values()
        ],
        "predictions": (folder / "predictions.csv").read_text(),
        "metrics": [
            {name: value for name, value in line.items() if name not in timeless} for line in lines
        ],
        "names": sorted(
            path.name for path in folder.iterdir() if not path.name.startswith("events.")
        ),
    }


def test_a_run_stopped_at_one_process_and_killed_at_another_ends_as_that_of_a_process_alone(
    finished_study, study_places, tmp_path
) -> None:
    """By two processes, then four, then three; on batch norm, with mixing, stochastic depth and an
    average."""
    words = ["train", "depthwise", *REQUEST, *study_places]
    folder = tmp_path / "finished_study/runs/shared/depthwise/seed-0"
    last = folder / "checkpoint.pt"

    def meet(processes: int, number: signal.Signals) -> str:
        """Send a signal to process 1 when an update more is saved; what is printed."""
        before = last.stat().st_mtime_ns if last.exists() else 0
        with started(processes, "runner.py", *words, "--checkpoint-minutes", "0") as torchrun:
            while not last.exists() or last.stat().st_mtime_ns == before:
                assert torchrun.poll() is None, output(torchrun)
                time.sleep(0.02)
            os.kill(process_of_rank(1, torchrun.pid), number)
            return output(torchrun)

    report = meet(2, signal.SIGTERM)
    assert (
        report.count(
            "depthwise seed 0 was stopped in epoch 1 and saved; the same command resumes it"
        )
        == 1
    ), report
    assert codes(report) == [STOPPED, STOPPED]
    assert checkpoint.load(last)["state"]["batch"] > 0

    report = meet(4, signal.SIGKILL)
    assert report.count("runner.py: another process of this run is gone") == 1, report
    assert sorted(codes(report)) == [-9, 1, 1, 1]

    with started(3, "runner.py", *words) as torchrun:
        report = output(torchrun)
        assert torchrun.returncode == 0, report
    assert report.count("top-1") == 1
    whole = [*words[:2], *REQUEST, *study_places[:-1], str(tmp_path / "alone")]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert runner.main(whole) == 0
    torch.set_num_threads(threads)
    assert left(folder) == left(tmp_path / "alone/shared/depthwise/seed-0")


def test_more_processes_than_parts_are_refused_in_one_line(study_places, tmp_path) -> None:
    runs = str(tmp_path / "none")
    words = ["train", "3", *REQUEST, *study_places[:-1], runs, "--micro-batches", "1"]
    with started(2, "runner.py", *words) as torchrun:
        report = output(torchrun)
    lines = [line for line in report.splitlines() if line.startswith("runner.py: ")]
    assert len(lines) == 1
    assert "give --micro-batches 2 or more" in lines[0]
    assert codes(report)[-1] == 2
    assert not (tmp_path / "none").exists()


def test_other_commands_run_once(finished_study) -> None:
    words = ["status", "--study", "s", "--runs", str(finished_study / "runs"), "--format", "json"]
    with started(2, "runner.py", *words) as torchrun:
        report = output(torchrun)
    assert torchrun.returncode == 0, report
    assert report.count("patchify-stem") == 1, report


def test_a_process_has_the_device_of_its_number_on_its_machine(monkeypatch) -> None:
    names = "TORCHELASTIC_RUN_ID RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE"
    here = rank_info(dict(zip(names.split(), ["x", "9", "16", "1", "8"], strict=True)))
    assert here == RankInfo(9, 16, 1, 8)
    assert rank_info({"RANK": "9", "WORLD_SIZE": "16"}) == RankInfo(), "another launcher's"
    have = {"devices": 8, "nccl": True}
    accelerator = torch.accelerator
    monkeypatch.setattr(accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(accelerator, "device_count", lambda: have["devices"])
    monkeypatch.setattr(device.dist, "is_backend_available", lambda name: have[name])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_device("auto", here) == find_device("cuda", here) == torch.device("cuda:1")
    assert find_device("cpu", here) == CPU
    with pytest.raises(ValueError, match="is 'cuda:3' and 16 processes .* give auto, cuda or cpu"):
        find_device("cuda:3", here)
    have["devices"] = 4
    with pytest.raises(ValueError, match="8 processes were .* 4 cuda devices.* start 4, or"):
        find_device("auto", here)
    have["devices"] = 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")  # a launcher gave each process one
    assert find_device("auto", here) == torch.device("cuda:0")
    have["nccl"] = False
    with pytest.raises(ValueError, match="this torch has no nccl"):
        find_device("auto", here)
    monkeypatch.setattr(device, "cores", lambda: 32)
    workers = [find_workers(None, torch.device("cuda"), trainers) for trainers in (1, 8, 64)]
    assert workers == [8, 4, 1]


def test_a_lack_of_memory_is_not_called_a_lost_process() -> None:
    with pytest.raises(torch.OutOfMemoryError), processes._connected():
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(processes.Disconnected), processes._connected():
        raise RuntimeError("Connection closed by peer")


@pytest.mark.parametrize(
    ("batches", "named"),
    [
        ([0, 1], r"8 images instead of each of 9 once \(.* 0 times\)"),
        ([0, 1, 2, 2], r"10 .* 9 once \(.* 2 times\)"),
        ([0, 0, 2], r"9 images instead of each of 9 once \(.* 2 times"),
    ],
)
def test_an_evaluation_that_misses_a_image_or_sees_one_twice_says_so(
    batches, named, stores
) -> None:
    model = build(PAPER.architecture(PAPER.step("3", REGIMES["mini"]), REGIMES["mini"], 3))
    made = list(eval_batches(stores.test, 32, batch_size=4))
    with pytest.raises(NotOnce, match=named):
        evaluate(model, [made[number] for number in batches], stores.test.ids, CPU, "fp32")
    seen = evaluate(model, [made[number] for number in (2, 0, 1)], stores.test.ids, CPU, "fp32")
    assert torch.equal(seen.labels, stores.test.labels)
