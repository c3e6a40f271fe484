"""What a user can request of every command on a study, of those that train, and of judge. Needs no
torch.

The docstrings of the fields are the help of the command line.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from studies.study import study_folder
from training.recipe import StudyConfig
from utils.text import did_you_mean

_MOST_WORKERS = 256
_GPU_DRIVERS = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")
"""Device files of CUDA and ROCm: NVIDIA, its Jetsons, AMD, Windows' Linux."""


@dataclass(frozen=True)
class StudyOptions:
    """Options that name the folder of a study."""

    preset: str = "food101"
    """The preset whose name the study has."""
    study: str | None = None
    """Name of the study's folder; the preset's name by default."""
    runs: Path = Path("runs")
    """Folder of all studies."""

    @property
    def folder(self) -> Path:
        """The folder of the study. Raises ValueError where its name cannot be a folder's."""
        return study_folder(self.study or self.preset, self.runs)


@dataclass(frozen=True)
class ExecutionOptions:
    """Where files lie and how runs are executed."""

    data_dir: Path | None = None
    """Folder of data sets, which are downloaded or drawn into it; datasets/ next to runner.py by
    default."""
    cache_dir: Path | None = None
    """Folder of decoded images, where the data folder is read-only; cache/ in it by default."""
    trial: bool = True
    """Begin a new run by timing memory formats, threads and torch.compile for about a second, and
    keep the fastest."""
    workers: int | None = None
    """Processes that prepare images; by default what suits the device and the data set."""
    checkpoint_minutes: float = 10
    """Write a checkpoint after every epoch and, within one, after so many minutes; 0: after every
    update."""
    deterministic: bool = False
    """On CUDA: use only kernels that always round alike, where there are some (slower); the CPU's
    always do."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, instead of refusing the data set."""
    allow_slow: bool = False
    """Begin what would take more than a week on a CPU."""
    init_weights: Path | None = None
    """Start from these weights (safetensors or torch file; a run's, torchvision's, timm's, the
    ConvNeXt release's)."""
    init_key: str | None = None
    """Which weights of that file, such as model_ema; default: the first that are no average."""


@dataclass(frozen=True)
class TrainOptions(StudyOptions):
    """Options of the commands that train."""

    preset: str = "food101"
    """food101 (the study, on a GPU), food101-h200 (in larger parts), fashion-mnist or pocket (on a
    CPU): defaults for all other options."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    execution: Annotated[ExecutionOptions, tyro.conf.OmitArgPrefixes] = ExecutionOptions()
    config: Annotated[StudyConfig, tyro.conf.arg(name="")] = field(default_factory=StudyConfig)

    def check(self) -> None:
        """Raise ValueError for a device that does not exist, or impossible workers or minutes."""
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            hint = did_you_mean(self.device, ("auto", "cpu", "cuda", "mps"), after=" ")
            raise ValueError(
                f"there is no device {self.device!r}: {hint}choose auto, cpu, cuda, cuda:N or mps"
            )
        linux_gpu = any(any(Path("/dev").glob(driver)) for driver in _GPU_DRIVERS)
        if self.device.startswith("cuda") and sys.platform == "linux" and not linux_gpu:
            raise ValueError(
                f"device {self.device!r} was requested and this machine has no CUDA device: "
                "choose auto or cpu"
            )
        if self.execution.init_key is not None and self.execution.init_weights is None:
            raise ValueError("--init-key is for --init-weights FILE: give both, or leave it out")
        if self.execution.workers is not None and not 0 <= self.execution.workers <= _MOST_WORKERS:
            raise ValueError(f"--workers is {self.execution.workers}: give 0 to {_MOST_WORKERS}")
        if not self.execution.checkpoint_minutes >= 0:  # nor NaN
            raise ValueError(
                f"--checkpoint-minutes is {self.execution.checkpoint_minutes}: give 0 or more"
            )


@dataclass(frozen=True)
class JudgeOptions:
    """How a table of results is judged."""

    baseline: str | None = None
    """The variant that the others are compared with; default: the first."""
    against: Literal["baseline", "previous"] = "baseline"
    """previous: compare each variant with the one before it."""
    lower_is_better: bool = False
    """A lower value is an improvement."""
    margin: float | None = None
    """A difference that is surely smaller is "no difference", in the unit of value; default: no
    such verdict."""
    level: float = 0.05
    """The probability of any false verdict among the comparisons."""
    failed: Literal["refuse", "drop"] = "refuse"
    """drop: judge a variant with failed runs (no finite value) by its other runs."""
    pair: Literal["auto", "yes", "no"] = "auto"
    """Leave out what a seed does to all variants alike; auto: where it is clear."""
    find: float | None = None
    """The difference whose needed seeds are printed; default: the margin."""
