"""The command line: steps, show, check, train, all, report, pack, merge, predict, export.

`python runner.py --help` lists them, `python runner.py COMMAND --help` explains each one.

Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 75 stopped on request and resumable.
"""

import errno
import os
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import command_line
from ablations import REGIMES, Roadmap, get_regime, get_roadmap
from ablations.comparisons import planned
from ablations.designs import Design, Request, Row, design
from ablations.presets import get_preset
from commands import COMMANDS, All, Check, Command, Export, Merge, Pack, Predict, Report, Show, Steps, Train, Training
from data.datasets import Located
from data.words import first_few, left_out, one_line, readable_bytes
from training.interrupt import STOPPED, StopRequest, stop_on_signals
from training.plan import LOOKS, Plan
from training.recipe import follow
from training.streams import Patient

if TYPE_CHECKING:
    from data.sizes import Sizes
    from training.bill import Bill
    from training.run import Execution, Run

DONE, FAILED, REFUSED = 0, 1, 2
_HERE = Path(__file__).parent


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
                case Check():
                    return check(command)
                case Train():
                    return train(command, stop)
                case All():
                    return train_all(command, stop)
                case Report():
                    return report(command)
                case Pack():
                    return pack(command)
                case Merge():
                    return merge(command)
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


def _parse(arguments: Sequence[str]) -> Command:
    """The command, with the asked preset's values as defaults. Wrong requests become one-sentence ValueErrors."""

    def defaults(given: command_line.Given) -> dict[str, Command]:
        name = given.get("--preset", ["food101"])[-1]
        config = get_preset(name).config
        return {
            word: kind(preset=name, config=config) if issubclass(kind, Training) else kind()
            for word, kind in COMMANDS.items()
        }

    command: Command
    command, given = command_line.parse(COMMANDS, arguments, defaults, description=__doc__)
    if isinstance(command, Train | All):
        before, after = get_preset(command.preset).config.recipe, command.config.recipe
        own = {name: getattr(command.config.classic, name)
               for name in ("epochs", "step_epochs", "batch_size", "micro_batches")
               if f"--classic.{name.replace('_', '-')}" in given}  # fmt: skip
        try:
            classic = replace(follow(command.config.classic, before, after), **own)
        except ValueError as error:
            raise ValueError(str(error).replace("--", "--classic.")) from None
        command = replace(command, config=replace(command.config, classic=classic))
    return command


def steps(command: Steps) -> int:
    """Print the roadmap, counted."""
    regime = get_regime(command.regime, command.resolution)
    from ablations import table

    rows = list(table.count_steps(_roadmap(command), regime, command.resolution))
    print({"table": table.as_text, "csv": table.as_csv, "json": table.as_json}[command.format](rows), end="")
    return DONE


def check(command: Check) -> int:
    """Try every row of a roadmap in every regime."""
    roadmap, config = get_roadmap(command.roadmap), get_preset(command.preset).config
    for regime in REGIMES.values():
        roadmap.check(regime, config)
    regime = get_regime(config.regime)
    for step in roadmap.rows(regime):
        changes = roadmap.difference(step, regime, config)
        said = ", ".join(f"{name} {old} to {new}" for name, (old, new) in changes.items()) or "changes nothing here"
        print(f"{step.name}: {said if step.after else step.sentence}")
    print(f"{command.roadmap} is sound (regime {regime.name}, preset {command.preset})")
    return DONE


def train(command: Train, stop: StopRequest) -> int:
    """Train one step."""
    regime = get_regime(command.config.regime, command.config.resolution)
    roadmap = _roadmap(command)
    step = roadmap.step(command.step, regime)
    if command.overwrite not in (None, step.name):
        raise ValueError(f"--overwrite names {command.overwrite!r} and the step is {step.name!r}: name the same step")
    path = design(roadmap, regime, Request())
    overwrite = {step.name} if command.overwrite else set[str]()
    return _train(command, path, [path.row(step.name)], [command.seed], overwrite, stop)


def train_all(command: All, stop: StopRequest) -> int:
    """Train every row of a design, then write the report."""
    from training.request import check_choice

    seeds = command.seeds or (tuple(range(LOOKS[-1])) if command.until_resolved else (0,))
    check_choice(["any"], seeds)
    most = None if command.until_resolved or command.runs_at_most is None else command.runs_at_most // len(seeds)
    request = Request(command.design, command.base, command.factors, command.fraction, most)
    made = design(_roadmap(command), get_regime(command.config.regime, command.config.resolution), request)
    chosen = [made.find(asked) for asked in command.steps] or list(made.rows)
    overwrite = set(command.overwrite)
    if strange := overwrite - {row.name for row in chosen}:
        raise ValueError(
            f"--overwrite names {', '.join(sorted(strange))}: give names of the steps that are to be trained"
        )
    folder = _study_folder(command.study or command.preset, command.runs)
    judging = planned(
        folder, made, [row.name for row in chosen], seeds,
        until_resolved=command.until_resolved, margin=command.margin, runs_at_most=command.runs_at_most,
    )  # fmt: skip
    if command.until_resolved:
        code = _train_until_resolved(command, folder, made, judging, overwrite, stop)
    else:
        code = _train(command, made, chosen, seeds, overwrite, stop, judging)
    if code in (DONE, FAILED) and not command.dry_run:
        try:
            print("report:", _write_report(folder, made.roadmap.name), flush=True)
        except ValueError as nothing_to_report:
            if code == DONE:
                raise
            _tell(f"runner.py: {nothing_to_report}")
    return code


def _train_until_resolved(
    command: All, folder: Path, made: Design, judging: Plan, overwrite: Collection[str], stop: StopRequest
) -> int:
    """Train what the plan's rule asks for, look at the results, and so on until it asks for nothing more."""
    from report.until import missing

    asked: Mapping[str, tuple[int, ...]] = {}
    while more := missing(folder, judging):
        if more == asked:
            raise ValueError(
                f"the runs of {first_few(sorted(more))} are finished and yet cannot be reported: `runner.py report` "
                "says why; make them again with --overwrite"
            )
        asked = more
        for seeds in dict.fromkeys(more.values()):
            rows = [row for row in made.rows if more.get(row.name) == seeds]
            code = _train(command, made, rows, seeds, {row.name for row in rows} & set(overwrite), stop, judging)
            if code != DONE or command.dry_run:
                return code
        overwrite = ()  # a later look adds to what was made again
    return DONE


def report(command: Report) -> int:
    """Write the report of a study."""
    if command.source and command.study:
        raise ValueError(f"both {command.source} and --study {command.study} were given: give one of them")
    source = command.source or _source(command.study or command.preset, command.runs)
    print("report:", _write_report(source, command.roadmap, command.mixed_code))
    return DONE


def pack(command: Pack) -> int:
    """Write a study into one file."""
    from report import pack

    study = _source(command.study, command.runs)
    out = command.out or study.with_name(f"{study.name}.pack")
    pack.pack(study, out)
    print(f"pack: {out} ({readable_bytes(out.stat().st_size)})")
    return DONE


def merge(command: Merge) -> int:
    """Put parts of a study together."""
    from report import pack

    if len(command.studies) < 2:
        raise ValueError("one study cannot be merged: give two or more packs or studies' folders")
    pack.merge(command.studies, command.out)
    print(f"pack: {command.out} ({readable_bytes(command.out.stat().st_size)})")
    return DONE


def show(command: Show) -> int:
    """Draw one step."""
    regime = get_regime(command.regime, command.resolution)
    roadmap = _roadmap(command)
    step = roadmap.step(command.step, regime)
    from ablations import diagram

    print(diagram.show(roadmap, regime, step, command.resolution), end="")
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


def _write_report(folder: Path, roadmap: str | None, mixed_code: bool = False) -> str:
    if not folder.is_file() and not (folder / "study.json").exists():
        raise ValueError(f"{folder} holds no study: train a step first, or name another with --study or --preset")
    from report.page import write

    return str(write(folder, roadmap, mixed_code=mixed_code, tell=lambda odd: _tell(f"report: {odd}")))


def _roadmap(command: Training | Steps | Show) -> Roadmap:
    return get_roadmap(command.roadmap, command.network)


def _tell(complaint: object) -> None:
    print(one_line(complaint), file=sys.stderr)


def _source(study: str, runs: Path) -> Path:
    """The study's folder or pack that `study` names: a path, or the name of one in `runs`."""
    path = Path(study)
    return path if path.is_file() or (path / "study.json").exists() else _study_folder(study, runs)


def _study_folder(name: str, runs: Path) -> Path:
    from training.study import check_name

    check_name(name)
    return runs / name


@dataclass(frozen=True)
class _Plan:
    """What training comes to, when all of a request that can be refused has been looked at."""

    runs: "Sequence[Run]"
    overwrite: Collection[str]
    execution: "Execution"
    found: Located
    data_dir: Path
    cache: Path
    short_side: int
    sizes: "Sizes"


def _train(
    command: Train | All, made: Design, chosen: Sequence[Row], seeds: Sequence[int], overwrite: Collection[str],
    stop: StopRequest, judging: Plan | None = None,
) -> int:  # fmt: skip
    """Train the chosen rows with each seed. Everything that can be refused is refused before anything is written."""
    plan = _plan(command, made, chosen, seeds, overwrite)
    bill = _forecast(command, plan)
    if isinstance(command, All) and command.dry_run:
        return DONE
    return _carry_out(command, made, plan, bill, stop, judging)


def _plan(
    command: Train | All, made: Design, chosen: Sequence[Row], seeds: Sequence[int], overwrite: Collection[str]
) -> _Plan:
    """Which runs are asked for, and how they are to be made. Writes nothing; what needs torch comes last."""
    from training.request import check_choice, check_machine
    from training.study import find_study

    config, folder = command.config, _study_folder(command.study or command.preset, command.runs)
    regime = get_regime(config.regime, config.resolution)
    made.roadmap.check(regime, config)
    check_choice([row.name for row in chosen], seeds)
    check_machine(command.device, command.workers, command.checkpoint_minutes)
    found, data_dir, cache = _check_places(command)
    if command.init_weights:
        from ablations.fitting import check_file
        from training.initial_weights import describe

        check_file(command.init_weights, regime, {row.name: made.variant(row, regime, config) for row in chosen})
        config = replace(config, init_weights=describe(command.init_weights))
    find_study(folder, config)

    if command.deterministic:  # before CUDA is used for the first time: cuBLAS then adds in one order
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from data.sizes import sizes
    from training.device import find_device, find_precision, find_workers
    from training.run import Execution, Run, share, short_side

    device = find_device(command.device)
    config = replace(config, precision=find_precision(config.precision, device))
    study = find_study(folder, config)
    side = short_side(config.resolution, config.recipe.augmentation.crop_scale)
    pictures = sizes(found, cache, side)
    variants = [(row, made.variant(row, regime, config, pictures.classes)) for row in chosen]
    runs = [
        Run(study, row.name, row.number, seed, variant.architecture, variant.recipe, command.init_weights)
        for seed in seeds for row, variant in variants
    ]  # fmt: skip
    for run in runs:
        run.check_records(overwrite)
    execution = Execution(
        device, find_workers(command.workers, device), trial=command.trial,
        checkpoint_minutes=command.checkpoint_minutes, deterministic=command.deterministic,
    )  # fmt: skip
    return _Plan(share(runs, overwrite), overwrite, execution, found, data_dir, cache, side, pictures)


def _check_places(command: Train | All) -> tuple[Located, Path, Path]:
    """The data set, and the folders of data sets and of decoded pictures. Raises ValueError where one is unusable."""
    import data
    from data.files import require_folder

    require_folder(command.runs, "the runs folder", may_be_missing=True, writable=True)
    data_dir = command.data_dir or _HERE / "datasets"
    if command.data_dir:
        require_folder(data_dir, "the data folder")
    found = data.check(command.config.dataset, data_dir, create_root=command.data_dir is None)
    cache = command.cache_dir or data_dir / "cache"
    require_folder(cache, "the folder of decoded pictures (--cache-dir)", may_be_missing=command.cache_dir is None)
    return found, data_dir, cache


def _forecast(command: Train | All, plan: _Plan) -> "Bill":
    """What the plan costs, printed for a whole study. Raises OSError where the disks have no room for it."""
    import data
    from training.bill import Bill

    if plan.sizes.cache and plan.cache.exists():
        data.require_writable(plan.cache, "the folder of decoded pictures (--cache-dir)")
    bill = Bill(plan.runs, plan.sizes, plan.execution, plan.overwrite)
    if isinstance(command, All):
        print(bill, flush=True)
    bill.require_disk(plan.data_dir, plan.cache, command.runs)
    return bill


def _carry_out(
    command: Train | All, made: Design, plan: _Plan, bill: "Bill", stop: StopRequest, judging: Plan | None
) -> int:
    """Fetch and decode the pictures, make the study, train its runs."""
    from training import series, speed
    from training.run import open_stores
    from training.study import note_design, note_plan, open_study

    study = plan.runs[0].study
    dataset = plan.found.load()
    stores = open_stores(dataset, plan.cache, plan.short_side, command.skip_unreadable)
    dataset = dataset.without(stores.skipped)
    if dataset.skipped:
        _tell(f"left out: {left_out(dataset.skipped)}")
    study = open_study(study.folder, study.config, dataset.summary, dataset.fingerprint)
    note_design(study.folder, made.record)
    if judging is not None:
        note_plan(study.folder, judging)
    speed.remember(study.folder, bill.device_name, bill.speeds)
    runs = [replace(run, study=study) for run in plan.runs]
    told = bill.finished if isinstance(command, All) else None
    return series.carry_out(runs, stores, plan.execution, stop, plan.overwrite, told)


if __name__ == "__main__":
    sys.stdout, sys.stderr = cast(TextIO, Patient(sys.stdout)), cast(TextIO, Patient(sys.stderr))
    sys.exit(main())
