"""A reader who leaves (`runner.py all | head -1`) stops nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def test_a_study_goes_on_when_nobody_listens_any_more(images, tmp_path) -> None:
    command = [
        sys.executable,
        "runner.py",
        "all",
        "--preset",
        "pocket",
        "--dataset",
        f"imagefolder:{images}",
        "--data-dir",
        str(tmp_path),
        "--runs",
        str(tmp_path / "runs"),
        "--study",
        "s",
        "--steps",
        "3",
        "4",
        "--resolution",
        "32",
        "--epochs",
        "1",
        "--warmup-epochs",
        "0",
        "--batch-size",
        "24",
        "--device",
        "cpu",
        "--no-trial",
    ]
    reader, writer = os.pipe()
    with subprocess.Popen(
        command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(writer)
        assert os.read(reader, 10_000)
        os.close(reader)
        said = process.communicate(timeout=250)[1]
    assert process.returncode == 0, said
    assert "Broken pipe" not in said
    assert "Traceback" not in said
    assert len(list((tmp_path / "runs/s").glob("*/seed-0/result.json"))) == 2
    assert (tmp_path / "runs/s/report/report.md").exists()


def test_what_is_left_to_be_said_at_the_end_is_no_error_either(tmp_path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for request, code in ((["show", "3", "--regime", "pocket"], 0), (["train", "nonsense"], 2)):
        process = subprocess.run(
            [sys.executable, "runner.py", *request],
            cwd=ROOT,
            stdout=writer,
            stderr=writer,
            check=False,
        )
        assert process.returncode == code
    os.close(writer)
