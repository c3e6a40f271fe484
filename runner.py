"""The command line: steps, show, train, all, report, predict, export. `python runner.py --help` lists them.

`python runner.py COMMAND --help` explains each one.

Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 75 stopped on request and resumable.
"""

import errno
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, TextIO, cast

import tyro

import command_line
from ablations import Step, get_regime
from ablations.presets import get_preset
from training.interrupt import STOPPED, StopRequest, stop_on_signals
from training.recipe import CLASSIC, Recipe, StudyConfig, follow
from training.streams import Patient

DONE, FAILED, REFUSED = 0, 1, 2
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Steps:
    """Print the roadmap: every step's parameters and FLOPs beside what the paper prints."""

    regime: Literal["tiny", "base", "pocket"] = "tiny"
    """ResNet-50 to ConvNeXt-T, ResNet-200 to ConvNeXt-B, or networks for a laptop."""
    format: Literal["table", "csv", "json"] = "table"
    """For people, for spreadsheets, for programs."""
    resolution: int = 224
    """Side of the picture that FLOPs are counted for, in pixels."""


@dataclass(frozen=True)
class _Training:
    """What `train` and `all` have in common."""

    preset: str = "food101"
    """food101 (the study, on a GPU), fashion-mnist or pocket (on a CPU): defaults for all that follows."""
    study: str | None = None
    """Name of the study's folder; the preset's name if none is given."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    data_dir: Path | None = None
    """Folder that data sets are downloaded or drawn into; datasets/ beside runner.py if none is given."""
    cache_dir: Path | None = None
    """Folder for decoded pictures, where the data folder may not be written to; cache/ in it if none is given."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    trial: bool = True
    """Begin a new run with a second's trial of memory formats, threads and torch.compile, and keep the fastest."""
    workers: int | None = None
    """Processes that prepare pictures; if none is given, what suits device and data set."""
    checkpoint_minutes: float = 10
    """A checkpoint is written after every epoch and, within one, after so many minutes; 0: after every update."""
    deterministic: bool = False
    """On CUDA: only kernels that always round alike, where there are such (slower); the CPU's always do."""
    skip_unreadable: bool = False
    """Leave out pictures that cannot be read, instead of refusing to build the cache of decoded pictures."""
    init_weights: Path | None = None
    """Start from these weights (safetensors or torch file; a run's, torchvision's, timm's, the ConvNeXt release's)."""
    config: Annotated[StudyConfig, tyro.conf.arg(name="")] = field(default_factory=StudyConfig)


@dataclass(frozen=True)
class Train(_Training):
    """Train one step of the roadmap; a finished run is left as it is, an unfinished one is resumed."""

    step: tyro.conf.Positional[str] = tyro.MISSING
    """Number or name of the step (see the command `steps`)."""
    seed: int = 0
    """Which of the study's repetitions."""
    overwrite: str | None = None
    """Name of the step, to throw its run away, finished or not, and make it again."""


@dataclass(frozen=True)
class All(_Training):
    """Train every step of the roadmap, then write the report; finished runs are skipped, unfinished ones resumed."""

    seeds: tuple[int, ...] = (0,)
    """The study's repetitions, e.g. --seeds 0 1 2."""
    steps: tuple[str, ...] = ()
    """Numbers or names, if not all."""
    overwrite: tuple[str, ...] = ()
    """Names of steps whose runs are to be thrown away, finished or not, and made again; if interrupted: repeat it."""
    dry_run: bool = False
    """Print what would be done and what it would cost, and stop."""


@dataclass(frozen=True)
class Report:
    """Write a study's report from whatever runs exist."""

    preset: str = "food101"
    """The preset whose name the study has."""
    study: str | None = None
    """Name of the study, or its folder; the preset's name if none is given."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    mixed_code: bool = False
    """Report runs of different versions of this code together, instead of leaving out those of the rarer ones."""


@dataclass(frozen=True)
class Show:
    """Draw one step's network beside the step before, changed lines marked, with parameters and FLOPs per stage."""

    step: tyro.conf.Positional[str] = tyro.MISSING
    """Number or name of the step (see the command `steps`)."""
    regime: Literal["tiny", "base", "pocket"] = "tiny"
    """Size of the networks."""
    resolution: int = 224
    """Side of the picture that FLOPs are counted for, in pixels."""


_Runs = Annotated[tuple[Path, ...], tyro.conf.arg(name="run"), tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class Predict:
    """Say what trained networks see in pictures; several runs (--run A --run B) are compared on the same pictures."""

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Pictures, and folders of them."""
    runs: _Runs = ()
    """A run's folder, such as runs/food101/depthwise/seed-0; the best on validation pictures if none is given."""
    top: int = 5
    """How many classes are told."""
    json: bool = False
    """Print JSON instead of a table."""
    plot: Path | None = None
    """Also draw each picture beside its best classes into this file (.png, .svg, .pdf)."""


@dataclass(frozen=True)
class Export:
    """Write a run's network for use elsewhere, checked against ours, with config.json and a model card."""

    run: Path | None = None
    """The run's folder, such as runs/food101/depthwise/seed-0; the best on validation pictures if none is given."""
    out: Path = tyro.MISSING
    """The folder to make; it can be uploaded as a model repository as it is."""
    format: Literal["safetensors", "torchvision", "onnx", "torch-export"] = "safetensors"
    """safetensors (this project reads it), torchvision (its names), onnx, or torch-export (.pt2)."""
    fold_layer_scale: bool = False
    """Multiply layer scale into the convolution before it."""
    images: tuple[Path, ...] = ()
    """Pictures, or folders of them, that the export is checked on; noise if none are given."""
    license: str = "other"
    """Licence that the model card names, such as cc-by-4.0."""


_Command = Steps | Train | All | Report | Show | Predict | Export
COMMANDS: dict[str, type[_Command]] = {
    "steps": Steps, "train": Train, "all": All, "report": Report, "show": Show, "predict": Predict, "export": Export,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # torch's CPU threads wait for each other by spinning; spinning long makes a run 20 times slower as soon as another
    # program wants a core (docs/decisions.md#spin). Read when torch is imported, so it is set before.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        with stop_on_signals() as stop:
            if arguments[:1] == ["--from-make"]:
                arguments = command_line.from_make(COMMANDS, arguments[1:], os.environ)
                print(f"runner.py {shlex.join(arguments)}", file=sys.stderr, flush=True)
            command = _parse(arguments)
            match command:
                case Steps():
                    return steps(command)
                case Train():
                    return train(command, stop)
                case All():
                    return train_all(command, stop)
                case Report():
                    return report(command)
                case Show():
                    return show(command)
                case Predict():
                    return predict(command)
                case Export():
                    return export(command)
    except ValueError as error:
        _tell(f"runner.py: {error}")
        return REFUSED
    except OSError as error:
        named = error.strerror and error.filename
        said = f"{error.filename} could not be read or written ({error.strerror})" if named else error
        _tell(f"runner.py: {said}")
        return REFUSED if error.errno == errno.ENAMETOOLONG else FAILED
    except KeyboardInterrupt:
        _tell("runner.py: stopped; the same command begins again, with what is done already")
        return STOPPED


def _parse(arguments: Sequence[str]) -> _Command:
    """The command, with the asked preset's values as defaults. Wrong requests become one-sentence ValueErrors."""

    def defaults(given: command_line.Given) -> dict[str, _Command]:
        name = given.get("--preset", ["food101"])[-1]
        config = _config(name)
        return {
            word: kind(preset=name, config=config) if issubclass(kind, _Training) else kind()
            for word, kind in COMMANDS.items()
        }

    command: _Command
    command, given = command_line.parse(COMMANDS, arguments, defaults, description=__doc__)
    if isinstance(command, Train | All):
        before, after = _config(command.preset).recipe, command.config.recipe
        own = {name: getattr(command.config.classic, name)
               for name in ("epochs", "step_epochs", "batch_size", "micro_batches")
               if f"--classic.{name.replace('_', '-')}" in given}  # fmt: skip
        try:
            classic = replace(follow(command.config.classic, before, after), **own)
        except ValueError as error:
            raise ValueError(str(error).replace("--", "--classic.")) from None
        command = replace(command, config=replace(command.config, classic=classic))
    return command


def _config(preset: str) -> StudyConfig:
    it = get_preset(preset)
    return StudyConfig(
        it.dataset, it.regime, it.resolution,
        recipe=Recipe().change(**it.recipe), classic=CLASSIC.change(**it.classic),
    )  # fmt: skip


def steps(command: Steps) -> int:
    """Print the roadmap, counted."""
    regime = get_regime(command.regime)
    StudyConfig(resolution=command.resolution)
    from ablations import table

    rows = list(table.count_steps(regime, command.resolution))
    print({"table": table.as_text, "csv": table.as_csv, "json": table.as_json}[command.format](rows), end="")
    return DONE


def train(command: Train, stop: StopRequest) -> int:
    """Train one step."""
    step = get_regime(command.config.regime).step(command.step)
    if command.overwrite not in (None, step.name):
        raise ValueError(f"--overwrite names {command.overwrite!r} and the step is {step.name!r}: name the same step")
    return _train(command, [step], [command.seed], {step.name} if command.overwrite else set(), stop)


def train_all(command: All, stop: StopRequest) -> int:
    """Train every step, then write the report."""
    regime = get_regime(command.config.regime)
    chosen = [regime.step(asked) for asked in command.steps] or list(regime.steps)
    overwrite = set(command.overwrite)
    if strange := overwrite - {step.name for step in chosen}:
        raise ValueError(
            f"--overwrite names {', '.join(sorted(strange))}: give names of the steps that are to be trained"
        )
    code = _train(command, chosen, command.seeds, overwrite, stop)
    if code in (DONE, FAILED) and not command.dry_run:
        try:
            print("report:", _write_report(_study_folder(command), mixed_code=False), flush=True)
        except ValueError as nothing_to_report:
            if code == DONE:
                raise
            _tell(f"runner.py: {nothing_to_report}")
    return code


def report(command: Report) -> int:
    """Write the report of a study."""
    print("report:", _write_report(_study_folder(command), command.mixed_code))
    return DONE


def show(command: Show) -> int:
    """Draw one step."""
    regime = get_regime(command.regime)
    step = regime.step(command.step)
    StudyConfig(resolution=command.resolution)
    from ablations import diagram

    print(diagram.show(regime, step, command.resolution), end="")
    return DONE


def predict(command: Predict) -> int:
    """Ask trained networks about pictures."""
    from inference.best import best_run
    from inference.output import answer

    runs = command.runs or (best_run(Path("runs")),)
    text = answer(command.images, runs, top=command.top, as_json=command.json, plot_into=command.plot)
    if not command.runs:
        _tell(f"{runs[0]} was asked, the best of its study on validation pictures; --run names another")
    print(text, end="")
    return DONE


def export(command: Export) -> int:
    """Write a run's network for use elsewhere."""
    from inference.best import best_run
    from inference.export import write

    run = command.run or best_run(Path("runs"))
    difference = write(
        run, command.format, command.out, fold_layer_scale=command.fold_layer_scale, pictures=command.images,
        license=command.license,
    )  # fmt: skip
    if not command.run:
        _tell(f"{run} was exported, the best of its study on validation pictures; --run names another")
    print(f"export: {command.out} (largest difference of a logit {difference:.1e} of the largest)")
    return DONE


def _write_report(folder: Path, mixed_code: bool) -> str:
    if not (folder / "study.json").exists():
        raise ValueError(f"{folder} holds no study: train a step first, or name another with --study or --preset")
    from report.page import write

    return str(write(folder, mixed_code=mixed_code, tell=lambda odd: _tell(f"report: {odd}")))


def _tell(complaint: object) -> None:
    print(command_line.one_line(complaint), file=sys.stderr)


def _study_folder(command: _Training | Report) -> Path:
    from training.study import check_name

    if isinstance(command, Report) and command.study and Path(command.study, "study.json").exists():
        return Path(command.study)
    name = command.study or command.preset
    check_name(name)
    return command.runs / name


def _train(
    command: Train | All, chosen: Sequence[Step], seeds: Sequence[int], overwrite: set[str], stop: StopRequest
) -> int:
    """Train the chosen steps with each seed. Everything that can be refused is refused before anything is written."""
    import data
    from data.files import require_folder
    from training.request import check_choice, check_machine
    from training.study import find_study, open_study

    config, folder = command.config, _study_folder(command)
    check_choice([step.name for step in chosen], seeds)
    check_machine(command.device, command.workers, command.checkpoint_minutes)
    require_folder(command.runs, "the runs folder", may_be_missing=True, writable=True)
    data_dir = command.data_dir or _HERE / "datasets"
    if command.data_dir:
        require_folder(data_dir, "the data folder")
    data.check(config.dataset, data_dir, create_root=command.data_dir is None)
    cache = command.cache_dir or data_dir / "cache"
    require_folder(cache, "the folder of decoded pictures (--cache-dir)", may_be_missing=command.cache_dir is None)
    if command.init_weights:
        from ablations.fitting import check_file
        from training.initial_weights import describe

        check_file(command.init_weights, get_regime(config.regime), chosen)
        config = replace(config, init_weights=describe(command.init_weights))
    find_study(folder, config)

    if command.deterministic:  # before CUDA is used for the first time: cuBLAS then adds in one order
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from data.sizes import sizes
    from training.bill import Bill
    from training.device import find_device, find_precision, find_workers
    from training.run import Execution, Run, open_stores, share, short_side
    from training.series import carry_out
    from training.speed import remember

    device = find_device(command.device)
    config = replace(config, precision=find_precision(config.precision, device))
    study = find_study(folder, config)
    regime, workers = get_regime(config.regime), find_workers(command.workers, device)
    side = short_side(config.resolution, config.recipe.augmentation.crop_scale)
    pictures = sizes(config.dataset, data_dir, cache, side)
    if pictures.cache and cache.exists():
        data.require_writable(cache, "the folder of decoded pictures (--cache-dir)")
    runs = [
        Run(study, step.name, step.number, seed, regime.architecture(step, pictures.classes),
            config.recipe_of(step.classic_recipe), command.init_weights)
        for seed in seeds for step in chosen
    ]  # fmt: skip
    for run in runs:
        run.check_records(overwrite)
    runs = share(runs, overwrite)
    bill = Bill(runs, pictures, device, workers, overwrite)
    if isinstance(command, All):
        print(bill, flush=True)
    bill.require_disk(data_dir, cache, command.runs)
    if isinstance(command, All) and command.dry_run:
        return DONE

    dataset = data.load(config.dataset, data_dir)
    stores = open_stores(dataset, cache, side, command.skip_unreadable)
    study = open_study(folder, config, dataset.summary, dataset.fingerprint)
    remember(folder, bill.device_name, bill.speeds)
    runs = [replace(run, study=study) for run in runs]
    told = bill.finished if isinstance(command, All) else None
    execution = Execution(
        device, workers, trial=command.trial, checkpoint_minutes=command.checkpoint_minutes,
        deterministic=command.deterministic,
    )  # fmt: skip
    return carry_out(runs, stores, execution, stop, overwrite, told)


if __name__ == "__main__":
    sys.stdout, sys.stderr = cast(TextIO, Patient(sys.stdout)), cast(TextIO, Patient(sys.stderr))
    sys.exit(main())
