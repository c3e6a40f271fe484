"""From ResNet to ConvNeXt step by step: the ablation study of 'A ConvNet for the 2020s', runnable.

`python runner.py COMMAND --help` lists a command's options.

Exit codes: 0 done, 1 a run failed, 2 the request was wrong, 75 stopped on request and resumable.
"""

import contextlib
import errno
import functools
import io
import operator
import os
import re
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, cast, get_args
from unittest.mock import patch

import tyro

from ablations import REGIMES, Regime, Roadmap, get_regime, get_roadmap
from ablations.designs import DesignSpec, Kind, build_design
from ablations.presets import get_preset
from ablations.sweep import Sweep
from studies import pack
from studies import status as study_status
from studies.options import JudgeOptions, StudyOptions, TrainOptions
from studies.plan import ANALYSES, planned
from studies.study import no_study, study_folder
from training.interrupt import DONE, FAILED, REFUSED, STOPPED, StopRequest, stop_on_signals
from training.recipe import StudyConfig, follow
from training.spec import RankInfo, rank_info
from utils.streams import Patient
from utils.text import one_line, readable_bytes

SPINS = "10000"
"""GOMP_SPINCOUNT: torch's CPU threads wait for each other by spinning, and long spins make a run 20
times slower as soon as another program wants a core (docs/decisions.md#spin). It is read when torch
is imported."""


@dataclass(frozen=True)
class RoadmapOptions:
    """Options of every command about a roadmap."""

    roadmap: str = "paper"
    """paper, recipe (ResNet's recipe to the modern one), beyond (after the paper), or a .toml or
    .py file."""
    network: str | None = None
    """Only for the roadmap recipe: the step of the paper's roadmap whose network it trains;
    default: the baseline."""

    def load_roadmap(self) -> Roadmap:
        """The roadmap. Raises ValueError where there is none."""
        return get_roadmap(self.roadmap, self.network)


@dataclass(frozen=True)
class SizeOptions(RoadmapOptions):
    """Options of the commands that count a roadmap's networks."""

    preset: str = "food101"
    """The preset whose model size and resolution are shown."""
    regime: str | None = None
    """Model size: tiny (ResNet-50 to ConvNeXt-T), base (ResNet-200 to ConvNeXt-B), small (for 32
    pixels) or mini; default: the preset's."""
    resolution: int | None = None
    """Side of the image that FLOPs are counted for, in pixels; default: the preset's."""

    def size(self) -> tuple[Regime, int]:
        """The model size and the resolution. Raises ValueError where they are impossible."""
        config = get_preset(self.preset)
        resolution = config.resolution if self.resolution is None else self.resolution
        return get_regime(self.regime or config.regime, resolution), resolution


@dataclass(frozen=True)
class Steps(SizeOptions):
    """Print the roadmap: parameters and FLOPs of every step next to the paper's."""

    format: Literal["table", "csv", "json"] = "table"
    """Output format."""

    def execute(self) -> None:
        regime, resolution = self.size()
        from ablations import table

        rows = list(table.count_steps(self.load_roadmap(), regime, resolution))
        formats = {"table": table.as_text, "csv": table.as_csv, "json": table.as_json}
        print(formats[self.format](rows), end="")


@dataclass(frozen=True)
class Show(SizeOptions):
    """Draw one step's network next to the step before, with parameters and FLOPs per stage."""

    step: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="STEP")] = tyro.MISSING
    """Number or name of the step (see the command steps)."""

    def execute(self) -> None:
        regime, resolution = self.size()
        roadmap = self.load_roadmap()
        step = roadmap.step(self.step, regime)
        from ablations import diagram

        print(diagram.show(roadmap, regime, step, resolution), end="")


@dataclass(frozen=True)
class Check:
    """Check a roadmap: print its steps, or the first error. Nothing is trained or written."""

    roadmap: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")] = tyro.MISSING
    """The .toml or .py file, or the name of a roadmap."""
    preset: str = "food101"
    """The preset whose recipes its steps change."""

    def execute(self) -> None:
        roadmap, config = get_roadmap(self.roadmap), get_preset(self.preset)
        for regime in REGIMES.values():
            roadmap.check(regime, config)
        regime = get_regime(config.regime)
        for step in roadmap.steps_in(regime):
            changes = roadmap.difference(step, regime, config)
            fields = [f"{name} {old} to {new}" for name, (old, new) in changes.items()]
            text = ", ".join(fields) or "changes nothing here"
            print(f"{step.name}: {text if step.after else step.description}")
        print(f"{self.roadmap} is sound (regime {regime.name}, preset {self.preset})")


@dataclass(frozen=True)
class Train(RoadmapOptions, TrainOptions):
    """Train one step of the roadmap. A finished run is skipped, an unfinished one is resumed."""

    step: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="STEP")] = tyro.MISSING
    """Number or name of the step (see the command steps)."""
    seed: int = 0
    """Seed of the run."""
    overwrite: str | None = None
    """Name of the step: discard its run, finished or not, and train it again."""
    dry_run: bool = False
    """Print what the run would cost, then stop."""


@dataclass(frozen=True)
class DesignOptions:
    """What is compared with what, and when a comparison is settled."""

    design: Kind = "cumulative"
    """The path step by step; the last network without each decision; the first network with each;
    the average effect of each over the orders in which they can be taken; two or more groups of
    decisions, each on and off with the others."""
    base: str | None = None
    """The step that a design other than cumulative starts from; all its variants have that step's
    changes."""
    factors: tuple[str, ...] = ()
    """For orders and factorial: groups or steps to take as one decision each, joined by +."""
    fraction: int = 1
    """For factorial: train only one in 2, 4, 8 ... of all combinations; the report lists what is
    then confounded."""
    sweep: str | None = None
    """Train every variant with each value of a field of its recipe: lr=0.5x,1x,2x for multiples of
    its own value, weight_decay=0.05,0.3 for values."""
    until_resolved: bool = False
    """Begin with two seeds; add seeds only to comparisons that are still open and may yet be
    resolved."""
    margin: float | None = None
    """Smallest difference that matters, in points of top-1; default: the study's plan, or 0.3."""
    runs_at_most: int | None = None
    """For orders: draw as many random orders as so many runs, over all seeds, allow; with
    --until-resolved: the limit of runs."""
    mixed_code: bool = False
    """Report runs of different versions of this code together, instead of leaving the rarer ones
    out."""

    def spec(self, seeds: int) -> DesignSpec:
        """The design for so many seeds. Raises ValueError for options that exclude each other."""
        sweep = None if self.sweep is None else Sweep.parse(self.sweep)
        if sweep and (self.until_resolved or self.margin is not None):
            raise ValueError("--until-resolved and --margin are not for a --sweep: leave them out")
        orders = None
        if self.runs_at_most is not None and not self.until_resolved:
            orders = self.runs_at_most // seeds
        return DesignSpec(self.design, self.base, self.factors, self.fraction, orders, sweep)


@dataclass(frozen=True)
class SlurmOptions:
    """Who trains the runs."""

    launcher: Literal["local", "slurm"] = "local"
    """slurm: submit an array of --jobs jobs that share the runs, and one job for the report."""
    time_limit: str | None = None
    """For Slurm, such as 08:00:00; two minutes before it a job saves its run and requeues
    itself."""
    partition: str | None = None
    """For Slurm: the partition."""
    gpus: int | None = None
    """For Slurm: GPUs of a job."""
    sbatch: tuple[str, ...] = ()
    """For Slurm: any other option of sbatch, without dashes: --sbatch account=mine mem=32G."""
    worker: bool = False
    """Leave when other processes train all that is left, and write no report (used by --jobs and
    --launcher)."""

    def check(self) -> None:
        """Raise ValueError for an option that the launcher does not take."""
        for name in ("time_limit", "partition", "gpus", "sbatch"):
            if self.launcher != "slurm" and getattr(self, name):
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} is for Slurm: add --launcher slurm, or leave it out")
        if self.gpus and self.gpus > 1:
            raise ValueError(
                f"--gpus is {self.gpus}: a job has one GPU, give --gpus 1, more --jobs"
            )


@dataclass(frozen=True)
class AllGroups:
    """Groups of options of `all`. A base of it, so that help prints them before the recipe."""

    comparison: Annotated[DesignOptions, tyro.conf.OmitArgPrefixes] = DesignOptions()
    slurm: Annotated[SlurmOptions, tyro.conf.OmitArgPrefixes] = SlurmOptions()


@dataclass(frozen=True)
class All(RoadmapOptions, TrainOptions, AllGroups):
    """Train every variant of a design, then write the report. Finished runs are skipped, unfinished
    ones resumed."""

    seeds: tuple[int, ...] = ()
    """Seeds, such as --seeds 0 1 2; default: 0, or 0 to 9 with --until-resolved."""
    steps: tuple[str, ...] = ()
    """Numbers or names of variants; default: all."""
    dry_run: bool = False
    """Print the plan and what it would cost, then stop."""
    jobs: int | None = None
    """Number of processes: each has a GPU or, without GPUs, a group of cores; with Slurm: jobs at
    once. Default: 1, and for small networks on a CPU as many as are fast."""
    overwrite: tuple[str, ...] = ()
    """Names of steps: discard their runs, finished or not, and train them again."""


@dataclass(frozen=True)
class Status(StudyOptions):
    """Print a study's progress: runs queued, running (where, how far, time left), done, failed and
    why."""

    format: Literal["table", "json"] = "table"
    """Output format."""
    watch: bool = False
    """Print it every two seconds until all is done or failed, or Ctrl-C."""

    def execute(self) -> None:
        render = {"table": study_status.as_table, "json": study_status.as_json}[self.format]
        while True:
            now = study_status.read_status(self.folder)
            clear = "\x1b[H\x1b[2J" if self.watch and sys.stdout.isatty() else ""
            print(clear + render(now), end="", flush=True)
            if not self.watch or len(now.of("done") + now.of("failed")) == len(now.runs):
                return
            try:
                time.sleep(2)
            except KeyboardInterrupt:
                return


@dataclass(frozen=True)
class Report(StudyOptions):
    """Write a study's report from whatever runs exist."""

    source: tyro.conf.Positional[Path | None] = None
    """A pack or a study's folder, instead of --study."""
    roadmap: str | None = None
    """Name of one of the study's roadmaps; default: the first."""
    mixed_code: bool = False
    """Report runs of different versions of this code together, instead of leaving the rarer ones
    out."""

    def execute(self) -> None:
        if self.source and self.study:
            raise ValueError(
                f"both {self.source} and --study {self.study} were given: give one of them"
            )
        source = self.source or _source(self.study or self.preset, self.runs)
        print("report:", write_report(source, self.roadmap, self.mixed_code), flush=True)


@dataclass(frozen=True)
class Judge(JudgeOptions):
    """Judge anybody's results, a table of variant, seed and value: verdicts, intervals, seeds
    needed."""

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")] = tyro.MISSING
    """CSV with the columns variant, seed and value; - reads standard input."""
    items: str | None = None
    """CSV with the columns variant, seed, item and correct (1 or 0): adds the interval for new
    items."""
    format: Literal["text", "markdown", "json", "csv"] = "text"
    """Output format."""
    plot: Path | None = None
    """Also draw the differences and their intervals into this file (.png, .svg, .pdf)."""
    fail_on: Literal["loss"] | None = None
    """loss: exit with 1 if a verdict is a loss."""

    def execute(self) -> int:
        from report.results_table import judge, plot, read, render

        items = None if self.items is None else read(self.items)
        result = judge(read(self.file), items, self)
        if self.plot:
            plot(result, self.plot)
        print(render(result, self.format), end="")
        lost = any(one["verdict"] == self.fail_on for one in result["comparisons"])
        return FAILED if lost else DONE


@dataclass(frozen=True)
class Pack:
    """Write all that a study's report needs, without weights, into one small file."""

    study: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="STUDY")] = tyro.MISSING
    """Name of the study, or its folder."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    out: Path | None = None
    """The file; default: the study's folder with .pack after it."""

    def execute(self) -> None:
        study = _source(self.study, self.runs)
        out = self.out or study.with_name(f"{study.name}.pack")
        pack.pack(study, out)
        print(f"pack: {out} ({readable_bytes(out.stat().st_size)})")


@dataclass(frozen=True)
class Unpack:
    """Create a study's folder from a pack. Its runs count as finished, but have no weights."""

    pack: tyro.conf.Positional[Path] = tyro.MISSING
    """The file."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    study: str | None = None
    """Name of the study's folder; default: the pack's name."""

    def execute(self) -> None:
        study = study_folder(self.study or self.pack.stem, self.runs)
        finished, left_out = pack.unpack(self.pack, study)
        rest = f"; {left_out} unfinished left out" if left_out else ""
        print(f"study: {study} ({finished} finished runs, without weights{rest})")


@dataclass(frozen=True)
class Merge:
    """Merge the runs of one study from several machines into one pack."""

    studies: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Two or more packs or studies' folders."""
    out: Path = tyro.MISSING
    """The pack to write."""

    def execute(self) -> None:
        if len(self.studies) < 2:
            raise ValueError(
                "one study cannot be merged: give two or more packs or studies' folders"
            )
        pack.merge(self.studies, self.out)
        print(f"pack: {self.out} ({readable_bytes(self.out.stat().st_size)})")


@dataclass(frozen=True)
class Predict:
    """Classify images with trained networks; several runs (--run A --run B) are compared."""

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Images, and folders of images."""
    runs: Annotated[tuple[Path, ...], tyro.conf.arg(name="run"), tyro.conf.UseAppendAction] = ()
    """A run's folder, such as runs/food101/depthwise/seed-0; default: the best run on validation
    images."""
    top: int = 5
    """Number of classes to print."""
    json: bool = False
    """Print JSON instead of a table."""
    plot: Path | None = None
    """Also draw each image with its best classes into this file (.png, .svg, .pdf)."""
    roadmap: str | None = None
    """The .py file that registers the run's parts, where it has parts of your own."""

    def execute(self) -> None:
        from inference.output import answer
        from inference.predictor import best_run

        if self.roadmap:
            get_roadmap(self.roadmap)
        runs, skipped = self.runs, ""
        if not runs:
            best, skipped = best_run(Path("runs"))
            runs = (best,)
        text, unreadable = answer(
            self.images, runs, top=self.top, as_json=self.json, plot_into=self.plot
        )
        if not self.runs:
            log(f"{runs[0]} is used, the best of its study on validation images (see --run)")
        if skipped:
            log(skipped)
        for file, reason in unreadable.items():
            log(f"{file} is left out: {reason}")
        print(text, end="")


@dataclass(frozen=True)
class Export:
    """Write a run's network for use elsewhere, with config.json and a model card. Its logits are
    compared with ours."""

    run: Path | None = None
    """A run's folder, such as runs/food101/depthwise/seed-0; default: the best run on validation
    images."""
    out: Path = tyro.MISSING
    """The folder to create."""
    format: Literal["safetensors", "torchvision", "onnx", "torch-export"] = "safetensors"
    """safetensors (this project's names), torchvision (its names), onnx, or torch-export (.pt2)."""
    fold_layer_scale: bool = False
    """Multiply layer scale into the convolution before it."""
    images: tuple[Path, ...] = ()
    """Images, or folders of images, to compare the logits on; default: noise."""
    license: str = "other"
    """Licence that the model card names, such as cc-by-4.0."""
    roadmap: str | None = None
    """The .py file that registers the run's parts, where it has parts of your own."""

    def execute(self) -> None:
        from inference.export import write
        from inference.predictor import best_run

        if self.roadmap:
            get_roadmap(self.roadmap)
        run, skipped = (self.run, "") if self.run else best_run(Path("runs"))
        difference = write(
            run,
            self.format,
            self.out,
            fold_layer_scale=self.fold_layer_scale,
            images=self.images,
            license=self.license,
        )
        if not self.run:
            log(f"{run} is exported, the best of its study on validation images (see --run)")
        if skipped:
            log(skipped)
        print(f"export: {self.out} (largest difference of a logit {difference:.1e} of the largest)")


_Other = Status | Report | Judge | Pack | Unpack | Merge | Predict | Export
Command = Steps | Show | Check | Train | All | _Other
COMMANDS: dict[str, type[Command]] = {kind.__name__.lower(): kind for kind in get_args(Command)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    # A figure has a box in place of a character that its font lacks, such as an emoji.
    warnings.filterwarnings("ignore", r"Glyph \d+ ")
    place = rank_info()
    try:
        with stop_on_signals(alone=place.count == 1) as stop:
            command = parse(arguments)
            if place.count > 1:
                return run_with_ranks(command, arguments, stop, place)
            return run(command, arguments, stop)
    except FAILURES as failure:
        if place.rank == 0:
            log(f"runner.py: {message(failure)}")
        return exit_code(failure)


FAILURES = (ValueError, OSError, KeyboardInterrupt)
"""Exceptions that end a command with one line."""


def exit_code(failure: BaseException) -> int:
    """The exit code of a command that ended with one of FAILURES."""
    if isinstance(failure, KeyboardInterrupt):
        return STOPPED
    is_request = not isinstance(failure, OSError) or failure.errno == errno.ENAMETOOLONG
    return REFUSED if is_request else FAILED


def message(failure: BaseException) -> str:
    """The line to print for one of FAILURES."""
    if isinstance(failure, KeyboardInterrupt):
        return "stopped; the same command begins again, with what is done already"
    if isinstance(failure, OSError) and failure.strerror:
        file = failure.filename or "a file"
        return f"{file} could not be read or written ({failure.strerror})"
    return str(failure)


def log(text: object) -> None:
    """Print one line on standard error."""
    print(one_line(text), file=sys.stderr, flush=True)


def parse(arguments: Sequence[str]) -> Command:
    """The command with its options; the preset's values are the defaults.

    Raises:
        ValueError: a wrong request, in one line.
        SystemExit: help was requested.
    """
    preset = _given(arguments, "--preset") or TrainOptions.preset
    config = _shorter_warmup(get_preset(preset), arguments)
    kinds = []
    for word, kind in COMMANDS.items():
        default = kind(preset=preset, config=config) if issubclass(kind, TrainOptions) else kind()
        kinds.append(Annotated[kind, tyro.conf.subcommand(word, default=default)])
    union: Any = functools.reduce(operator.or_, kinds)
    errors = io.StringIO()
    # A refusal is not wrapped, help is.
    width = {} if {"-h", "--help"} & set(arguments) else {"COLUMNS": "10000"}
    try:
        with contextlib.redirect_stderr(errors), patch.dict(os.environ, width):
            command: Command = tyro.cli(
                union, args=list(arguments), prog="runner.py", description=__doc__
            )
    except SystemExit as refusal:
        if not refusal.code:
            raise
        raise ValueError(refusal_line(errors.getvalue())) from None
    if isinstance(command, TrainOptions):
        return replace(command, config=_scale_classic(command, arguments))
    return command


def _given(arguments: Sequence[str], option: str) -> str | None:
    """The last value of an option among the arguments; None where it is not given."""
    given = None
    for word, following in zip(arguments, [*arguments[1:], None]):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == option:
            given = value if equals else following
    return given


def _shorter_warmup(config: StudyConfig, arguments: Sequence[str]) -> StudyConfig:
    """Shorten the warm-up in proportion to --epochs, where these are fewer than the preset's."""
    recipe, epochs = config.recipe, _given(arguments, "--epochs") or ""
    if _given(arguments, "--warmup-epochs") or not epochs.isdecimal():
        return config
    warmup = recipe.warmup_epochs * int(epochs) // recipe.epochs
    return replace(config, recipe=recipe.change(warmup_epochs=min(warmup, recipe.warmup_epochs)))


def _scale_classic(command: TrainOptions, arguments: Sequence[str]) -> Any:
    """The study's config, where the classic recipe's length and batch follow the modern recipe's
    unless they are options."""
    config, default = command.config, get_preset(command.preset).recipe
    options = {word.partition("=")[0].replace("_", "-") for word in arguments}
    given = {
        name: getattr(config.classic, name)
        for name in ("epochs", "step_epochs", "batch_size", "micro_batches")
        if f"--classic.{name.replace('_', '-')}" in options
    }
    try:
        classic = replace(follow(config.classic, default, config.recipe), **given)
    except ValueError as error:
        raise ValueError(str(error).replace("--", "--classic.")) from None
    return replace(config, classic=classic)


def refusal_line(box: str) -> str:
    """One line from the box in which tyro prints a refusal."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:  # the first is a title
        text = line.strip("│ ")
        if text.strip("─╰╯-"):
            sections[-1].append(text)
        else:
            sections.append([])
    messages: list[str] = []
    for section in (" ".join(lines) for lines in sections if lines):
        if section.startswith("Perhaps you meant:"):
            options = sorted(set(re.findall(r"--[\w.-]+", section)) - {"--help"}, key=len)
            if not any(f" {option} " in messages[0] for option in options):
                messages.append(f"did you mean {' or '.join(options[:2])}?")
        elif not section.startswith(("For full help", "Argument help", "Arguments are applied")):
            messages.append(section)
    line = "; ".join(messages)
    line = re.sub(r"Error parsing __\S*\.classic\S*: --", "--classic.", line)
    return re.sub(r"Error parsing __\S*: ", "", line)


def run(command: Command, arguments: Sequence[str], stop: StopRequest) -> int:
    """Run a command, which `arguments` requested, and return its exit code."""
    if isinstance(command, Train):
        return train(command, stop)
    if isinstance(command, All):
        return train_all(command, arguments, stop)
    return command.execute() or DONE


def run_with_ranks(
    command: Command, arguments: Sequence[str], stop: StopRequest, place: RankInfo
) -> int:
    """Run a command in one of torchrun's processes: the first runs it, the others help it train."""
    if not isinstance(command, Train | All):
        return run(command, arguments, stop) if place.rank == 0 else DONE
    if isinstance(command, All) and (
        command.jobs not in (None, 1) or command.slurm.launcher != "local"
    ):
        raise ValueError(
            "--jobs and --launcher start processes themselves: give them without torchrun (GPUS)"
        )
    from training.helper import dismiss, help_with_runs
    from training.processes import joined

    with joined(place) as processes:
        try:
            if place.rank > 0:
                return help_with_runs(place, processes, stop, prepare=command.load_roadmap)
            code = run(command, arguments, stop)
            dismiss(processes)
            return code
        except FAILURES as failure:
            # Logged before the other processes notice: torchrun ends all soon after the first.
            rank = f"process {place.rank} of {place.count}: " if place.rank else ""
            log(f"runner.py: {rank}{message(failure)}")
            raise SystemExit(exit_code(failure)) from failure


def train(command: Train, stop: StopRequest) -> int:
    """Train one step."""
    regime = get_regime(command.config.regime, command.config.resolution)
    roadmap = command.load_roadmap()
    step = roadmap.step(command.step, regime)
    if command.overwrite not in (None, step.name):
        raise ValueError(f"--overwrite is {command.overwrite!r}: give the step's name, {step.name}")
    design = build_design(roadmap, regime, DesignSpec())
    command.check()
    from studies.train import Request
    from studies.train import train as run_request

    overwrite = {step.name} if command.overwrite else set[str]()
    request = Request(command, design, [design.variant(step.name)], [command.seed], overwrite)
    return run_request(replace(request, others="refuse", dry_run=command.dry_run), stop)


def train_all(command: All, arguments: Sequence[str], stop: StopRequest) -> int:
    """Train every variant of a design, or start workers that do, then write the report."""
    command.check()
    command.slurm.check()
    comparison = command.comparison
    seeds = command.seeds or (tuple(range(ANALYSES[-1])) if comparison.until_resolved else (0,))
    regime = get_regime(command.config.regime, command.config.resolution)
    design = build_design(command.load_roadmap(), regime, comparison.spec(len(seeds)))
    requested = [design.find(name) for name in command.steps]
    variants = [each for variant in requested for each in (variant, *design.settings(variant))]
    variants = variants or list(design.variants)
    names = [variant.name for variant in variants]
    if unknown := set(command.overwrite) - set(names):
        raise ValueError(
            f"--overwrite names {', '.join(sorted(unknown))}: give names of steps to be trained"
        )
    plan = None
    if comparison.sweep is None:
        plan = planned(
            command.folder,
            design,
            command.config,
            names,
            seeds,
            until_resolved=comparison.until_resolved,
            margin=comparison.margin,
            runs_at_most=comparison.runs_at_most,
        )
    from studies import launch
    from studies.train import Request, check_choice, train_until_resolved
    from studies.train import train as run_request

    check_choice(names, seeds)
    if command.slurm.worker:
        launch.end_with_parent()
    if command.jobs not in (None, 1) and command.overwrite:
        raise ValueError("--overwrite is for one process: leave out --jobs")
    if command.slurm.launcher == "slurm" and not command.dry_run:
        return _submit(command, arguments)
    request = Request(
        command,
        design,
        variants,
        seeds,
        command.overwrite,
        plan,
        # Workers of --until-resolved wait: the next round needs the others' results.
        others="leave" if command.slurm.worker and not comparison.until_resolved else "wait",
        estimate=not command.slurm.worker,
        dry_run=command.dry_run,
        mixed_code=comparison.mixed_code,
        jobs=1 if command.slurm.launcher == "slurm" else command.jobs,
        arguments=[*arguments, *WORKER_OPTIONS],
    )
    if plan and comparison.until_resolved:
        from report.sequential import missing_seeds

        needed = functools.partial(
            missing_seeds, command.folder, plan, design, mixed_code=comparison.mixed_code
        )
        code = train_until_resolved(request, needed, stop)
    else:
        code = run_request(request, stop)
    if code in (DONE, FAILED) and not command.dry_run and not command.slurm.worker:
        _report_all(command, code)
    return code


def _submit(command: All, arguments: Sequence[str]) -> int:
    """Have Slurm jobs train what `arguments` request. Returns the exit code."""
    from studies import launch
    from studies.run_queue import refuse_other_code
    from studies.study import find_study
    from studies.train import data_folder, with_init_weights
    from training.device import code_version

    if command.overwrite:
        raise ValueError("--overwrite is for one process: leave out --launcher")
    arguments = [*arguments, *WORKER_OPTIONS]
    jobs = 1 if command.jobs is None else command.jobs
    folder = command.folder
    given = {
        "job-name": folder.name,
        "time": command.slurm.time_limit,
        "partition": command.slurm.partition,
        "gpus": command.slurm.gpus,
    }
    options = launch.slurm_options(given, command.slurm.sbatch)
    find_study(folder, with_init_weights(command))
    refuse_other_code(folder, code_version())
    if command.execution.data_dir is None:
        arguments += ["--data-dir", str(data_folder(command))]
    roadmap = Path(command.roadmap) if Path(command.roadmap).is_file() else None
    place, array, closing = launch.submit(
        folder, arguments, jobs, options, code_version(), roadmap, data_folder(command)
    )
    print(
        f"submitted: job {array}, {jobs} at once, and job {closing}, which trains what "
        f"these leave and writes the report; `scancel {array} {closing}` cancels both\n"
        f"{place}: the script, the code as it is now, and the logs"
    )
    return DONE


WORKER_OPTIONS = (
    *("--jobs", "1", "--launcher", "local", "--time-limit", "None", "--partition", "None"),
    *("--gpus", "None", "--allow-slow", "--sbatch"),
)
"""Options of a process that --jobs or --launcher starts. They override the command's own."""


def _report_all(command: All, code: int) -> None:
    """Write the report at the end of `all`; a run that failed may leave nothing to report."""
    try:
        roadmap = command.load_roadmap().name
        page = write_report(command.folder, roadmap, command.comparison.mixed_code)
        print("report:", page, flush=True)
    except ValueError as nothing_to_report:
        if code == DONE:
            raise
        log(f"runner.py: {nothing_to_report}")


def write_report(source: Path, roadmap: str | None, mixed_code: bool) -> Path:
    """Write the report of a study's folder or pack and return its page."""
    if not source.is_file() and not (source / "study.json").exists():
        raise ValueError(no_study(source))
    from report.page import write

    return Path(
        write(source, roadmap, mixed_code=mixed_code, tell=lambda odd: log(f"report: {odd}"))
    )


def _source(study: str, runs: Path) -> Path:
    """The study's folder or pack: a path, or the name of a folder in `runs`."""
    path = Path(study)
    return path if path.is_file() or (path / "study.json").exists() else study_folder(study, runs)


if __name__ == "__main__":
    sys.stdout, sys.stderr = cast(TextIO, Patient(sys.stdout)), cast(TextIO, Patient(sys.stderr))
    sys.exit(main())
