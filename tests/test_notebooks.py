"""The notebooks run from start to end on the embedded images, and are committed without outputs."""

from pathlib import Path

import pytest

from data import pocket
from tests.conftest import BuildOnce

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
nbformat = pytest.importorskip("nbformat")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]  # warnings of the kernel's own libraries
EPOCHS = (
    24  # far more than pass between the first checkpoint and the stop, on a machine however busy
)
QUICK = (
    f"--dataset food101 --resolution 32 --epochs {EPOCHS} "
    "--warmup-epochs 0 --batch-size 24 --device cpu"
)


@pytest.fixture(scope="module")
def few_images(build_once: BuildOnce) -> Path:
    """The first pocket images, eight a class."""
    return build_once("few-pocket", lambda root: pocket.write(root / "food-101", train=6, test=2))


@pytest.fixture
def quick(few_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    values = {
        "RUNS": tmp_path / "runs",
        "DATA_DIR": few_images,
        "PRESET": "pocket",
        "STEP": "13",
        "OPTIONS": QUICK,
        "REHEARSAL": "1",
        "OMP_NUM_THREADS": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": tmp_path / "ipython",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    for name in ("RUN", "IMAGE", "REPOSITORY", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "runs"


def executed(name: str):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources=resources
    ).execute()
    return notebook


def outputs(notebook, kind: str) -> list[str]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        output.data[kind]
        for cell in cells
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


def printed(notebook) -> str:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return "".join(output.get("text", "") for cell in cells for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


def test_inference_shows_bars_and_where_the_network_looked(quick: Path) -> None:
    pytest.importorskip("pytorch_grad_cam")
    notebook = executed("inference.ipynb")
    assert len(outputs(notebook, "image/png")) == 2
    assert "separate-downsampling" in printed(notebook)
    assert (quick / "notebook/separate-downsampling/seed-0/result.json").exists()


def test_colab_trains_goes_on_after_a_stop_and_reports(quick: Path) -> None:
    notebook = executed("colab.ipynb")
    assert "the same command resumes it" in printed(notebook)
    assert "top-1" in printed(notebook)
    page = "".join(outputs(notebook, "text/html"))
    assert "tensorboard" in page.lower()
    assert "separate-downsampling" in page
    lines = (quick / "pocket/separate-downsampling/seed-0/metrics.jsonl").read_text().splitlines()
    assert len(lines) == EPOCHS
