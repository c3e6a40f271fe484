"""The commands and their options: what `python runner.py COMMAND --help` says comes from here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ablations.designs import Kind
from studies.options import StudyOptions, TrainOptions


@dataclass(frozen=True)
class _Roadmap:
    """What commands about a roadmap have in common."""

    roadmap: str = "paper"
    """paper, recipe (ResNet's to the modern one), beyond (after the paper), or a file of your own,
    .toml or .py."""
    network: str | None = None
    """Of the roadmap recipe: the step of the paper's roadmap whose network it trains; the baseline
    if none is given."""


@dataclass(frozen=True)
class Steps(_Roadmap):
    """Print the roadmap: every step's parameters and FLOPs beside what the paper prints."""

    regime: Literal["tiny", "base", "small", "pocket"] = "tiny"
    """ResNet-50 to ConvNeXt-T, ResNet-200 to ConvNeXt-B, or networks for a laptop."""
    format: Literal["table", "csv", "json"] = "table"
    """For people, for spreadsheets, for programs."""
    resolution: int = 224
    """Side of the image that FLOPs are counted for, in pixels."""


@dataclass(frozen=True)
class Check:
    """Say in one sentence what is wrong with a roadmap, or what it comes to. Nothing is trained or
    written."""

    roadmap: tyro.conf.Positional[str] = tyro.MISSING
    """The file, .toml or .py, or the name of a roadmap."""
    preset: str = "food101"
    """The preset whose recipes its steps change."""


@dataclass(frozen=True)
class Training(_Roadmap, TrainOptions):
    """What `train` and `all` have in common."""


@dataclass(frozen=True)
class Train(Training):
    """Train one step of the roadmap; a finished run is left as it is, an unfinished one is
    resumed."""

    step: tyro.conf.Positional[str] = tyro.MISSING
    """Number or name of the step (see the command `steps`)."""
    seed: int = 0
    """Which of the study's repetitions."""
    overwrite: str | None = None
    """Name of the step, to throw its run away, finished or not, and make it again."""


@dataclass(frozen=True)
class All(Training):
    """Train every row of a design, then write the report; finished runs are skipped, unfinished
    ones resumed."""

    design: Kind = "cumulative"
    """The path step by step; the last network without each decision; the first with each; the
    average effect of each over the orders they can be taken in; or two or more groups of decisions,
    each on and off with the others."""
    base: str | None = None
    """The step that a design other than cumulative starts from, whose changes all its rows have."""
    factors: tuple[str, ...] = ()
    """Of orders and factorial: groups or steps to take as one decision each, several joined by
    +."""
    fraction: int = 1
    """Of factorial: train only one in 2, 4, 8 ... of all combinations; the report says what cannot
    be told apart."""
    runs_at_most: int | None = None
    """Of orders: draw as many orders at random as so many runs, over all seeds, can train; with
    --until-resolved: stop there."""
    seeds: tuple[int, ...] = ()
    """The study's repetitions, e.g. --seeds 0 1 2; only 0 if none are given, 0 to 9 with
    --until-resolved."""
    until_resolved: bool = False
    """Begin with two seeds, and add more only to rows whose comparison is still open and may yet be
    resolved."""
    margin: float | None = None
    """Points of top-1: what is surely smaller counts as no difference; 0.3 unless the study's plan
    says otherwise."""
    sweep: str | None = None
    """Train every row with each value of a field of its recipe, to choose its best on validation
    images: lr=0.5x,1x,2x for parts and multiples of the row's own, weight_decay=0.05,0.3 for plain
    values."""
    mixed_code: bool = False
    """Judge and report runs of different versions of this code together, instead of leaving the
    rarer ones out."""
    steps: tuple[str, ...] = ()
    """Numbers or names of rows, if not all."""
    overwrite: tuple[str, ...] = ()
    """Names of steps whose runs are to be thrown away, finished or not, and made again; if
    interrupted: repeat it."""
    dry_run: bool = False
    """Print what would be done and what it would cost, and stop."""
    jobs: int = 1
    """Train with so many processes at once: one a GPU or, without, one a group of cores; on Slurm,
    so many jobs."""
    worker: bool = False
    """Leave when other processes train all that is left, and write no report: what --jobs and
    --launcher start."""
    launcher: Literal["local", "slurm"] = "local"
    """slurm: submit an array of --jobs jobs, which go on with each other's runs, and one after them
    for the report."""
    time_limit: str | None = None
    """Of a Slurm job, such as 08:00:00; two minutes before it a job saves its run and goes back
    into the queue."""
    partition: str | None = None
    """Slurm's partition."""
    gpus: int | None = None
    """GPUs of a Slurm job."""
    sbatch: tuple[str, ...] = ()
    """Any other option of sbatch, without dashes: --sbatch account=mine mem=32G exclusive."""


@dataclass(frozen=True)
class Status(StudyOptions):
    """Say how far a study is: runs queued, running (where, how far, how long yet), done, failed and
    why."""

    format: Literal["table", "json"] = "table"
    """For people, for programs."""
    watch: bool = False
    """Say it again every two seconds, until all is done or failed, or Ctrl-C."""


@dataclass(frozen=True)
class Report:
    """Write a study's report from whatever runs exist."""

    source: tyro.conf.Positional[Path | None] = None
    """A pack or a study's folder, instead of --study."""
    preset: str = "food101"
    """The preset whose name the study has."""
    study: str | None = None
    """Name of the study, its folder or its pack; the preset's name if none is given."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    roadmap: str | None = None
    """Which of the roadmaps that the study was asked for, by its name; the first if none is
    given."""
    mixed_code: bool = False
    """Report runs of different versions of this code together, instead of leaving out those of the
    rarer ones."""


@dataclass(frozen=True)
class Pack:
    """Write all that a study's report needs, and no weights, into one small file: to publish, to
    commit, to merge."""

    study: tyro.conf.Positional[str] = tyro.MISSING
    """Name of the study, or its folder."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    out: Path | None = None
    """The file; the study's folder with .pack after it if none is given."""


@dataclass(frozen=True)
class Merge:
    """Put the runs of one study that several machines have made into one pack; a run that differs
    is named."""

    studies: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Packs or studies' folders, two or more."""
    out: Path = tyro.MISSING
    """The pack to write."""


@dataclass(frozen=True)
class Unpack:
    """Make a study's folder of a pack, to go on with it here: its runs are known as finished, but
    have no weights."""

    pack: tyro.conf.Positional[Path] = tyro.MISSING
    """The file."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    study: str | None = None
    """Name of the study's folder; the pack's own without its ending if none is given."""


@dataclass(frozen=True)
class Show(_Roadmap):
    """Draw one step's network beside the step before, changed lines marked, with parameters and
    FLOPs per stage."""

    step: tyro.conf.Positional[str] = tyro.MISSING
    """Number or name of the step (see the command `steps`)."""
    regime: Literal["tiny", "base", "small", "pocket"] = "tiny"
    """Size of the networks."""
    resolution: int = 224
    """Side of the image that FLOPs are counted for, in pixels."""


_Runs = Annotated[tuple[Path, ...], tyro.conf.arg(name="run"), tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class Predict:
    """Say what trained networks see in images; several runs (--run A --run B) are compared on the
    same images."""

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Images, and folders of them."""
    runs: _Runs = ()
    """A run's folder, such as runs/food101/depthwise/seed-0; the best on validation images if none
    is given."""
    top: int = 5
    """How many classes are told."""
    json: bool = False
    """Print JSON instead of a table."""
    plot: Path | None = None
    """Also draw each image beside its best classes into this file (.png, .svg, .pdf)."""


@dataclass(frozen=True)
class Export:
    """Write a run's network for use elsewhere, checked against ours, with config.json and a model
    card."""

    run: Path | None = None
    """The run's folder, such as runs/food101/depthwise/seed-0; the best on validation images if
    none is given."""
    out: Path = tyro.MISSING
    """The folder to make; it can be uploaded as a model repository as it is."""
    format: Literal["safetensors", "torchvision", "onnx", "torch-export"] = "safetensors"
    """safetensors (this project reads it), torchvision (its names), onnx, or torch-export
    (.pt2)."""
    fold_layer_scale: bool = False
    """Multiply layer scale into the convolution before it."""
    images: tuple[Path, ...] = ()
    """Images, or folders of them, that the export is checked on; noise if none are given."""
    license: str = "other"
    """Licence that the model card names, such as cc-by-4.0."""


Command = (
    Steps | Check | Train | All | Status | Report | Pack | Unpack | Merge | Show | Predict | Export
)
COMMANDS: dict[str, type[Command]] = {
    "steps": Steps,
    "check": Check,
    "train": Train,
    "all": All,
    "status": Status,
    "report": Report,
    "pack": Pack,
    "unpack": Unpack,
    "merge": Merge,
    "show": Show,
    "predict": Predict,
    "export": Export,
}
LAUNCHING = (
    "--jobs",
    "--worker",
    "--launcher",
    "--time-limit",
    "--partition",
    "--gpus",
    "--sbatch",
)
"""Options of `all` about who trains; what they start is asked for the rest."""
