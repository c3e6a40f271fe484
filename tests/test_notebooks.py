"""The notebooks run from start to end on few small images, with only their settings changed."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import food101
from tests.conftest import BuildOnce

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
nbformat = pytest.importorskip("nbformat")
LARGEST = 300_000
"""Bytes of a notebook with its outputs."""
EPOCHS = 24
"""Far more than pass between the first checkpoint and the stop, on a machine however busy."""


@pytest.fixture(scope="module")
def few_images(build_once: BuildOnce) -> Path:
    """The first pocket images, eight a class."""
    return build_once("few-pocket", lambda root: food101.write(root / "food-101", train=6, test=2))


@pytest.fixture
def options(few_images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Options that make a run of any preset a short one."""
    environment = {
        "OMP_NUM_THREADS": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    return (
        f"--dataset food101 --resolution 32 --epochs {EPOCHS} --warmup-epochs 0 --batch-size 24 "
        f"--device cpu --no-trial --data-dir {few_images}"
    )


def execute(name: str, **settings: str):
    """Run a notebook with other values in its cell of settings."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    (form,) = (cell for cell in notebook.cells if cell.source.startswith("# @title Settings"))
    for setting, value in settings.items():
        form.source, count = re.subn(
            rf'(?m)^{setting} = "[^"]*"', f'{setting} = "{value}"', form.source
        )
        assert count == 1, setting
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources
    )
    client.execute()
    return notebook


def outputs(notebook, kind: str) -> list[str]:
    """All outputs of a kind: a MIME type, or text for what was printed."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            content = output.get("data", {}) | {"text": output.get("text")}
            if content.get(kind):
                found.append(content[kind])
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_has_a_form_and_small_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].source.startswith("# @title Settings")
    assert path.stat().st_size < LARGEST
    assert not [each for cell in code for each in cell.outputs if each.output_type == "error"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_inference_shows_bars_and_where_the_network_looked(options, finished_study) -> None:
    pytest.importorskip("pytorch_grad_cam")
    notebook = execute("inference.ipynb", RUNS=f"{finished_study}/runs")
    assert len(outputs(notebook, "image/png")) == 2
    assert "patchify-stem" in "".join(outputs(notebook, "text"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_colab_goes_on_with_a_stopped_run_and_reports(options, tmp_path) -> None:
    runs = tmp_path / "runs"
    folder = runs / "pocket-colab/separate-downsampling/seed-0"
    command = [
        sys.executable,
        "runner.py",
        "train",
        "13",
        "--preset",
        "pocket",
        "--runs",
        str(runs),
    ]
    command += ["--study", "pocket-colab", *options.split()]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (folder / "checkpoint.pt").exists():
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 75
    before = (folder / "metrics.jsonl").read_text().splitlines()
    notebook = execute("colab.ipynb", PRESET="pocket", OPTIONS=options, RUNS=str(runs))
    assert "top-1" in "".join(outputs(notebook, "text"))
    page = "".join(outputs(notebook, "text/html"))
    assert "tensorboard" in page.lower()
    assert "separate-downsampling" in page
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert lines[: len(before)] == before
    assert len(lines) == EPOCHS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ablation_compares_two_steps(options, tmp_path) -> None:
    notebook = execute("ablation.ipynb", RUNS=str(tmp_path / "runs"), OPTIONS=options)
    printed = "".join(outputs(notebook, "text"))
    assert "depths" in printed  # what the step changes
    assert "MFLOPs" in printed
    assert "verdict:" in printed
