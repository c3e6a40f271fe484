"""The command line: steps, show, check, train, all, status, report, pack, unpack, merge, predict,
export.

`python runner.py --help` lists them, `python runner.py COMMAND --help` explains each one.

Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 75 stopped on request and resumable.
"""

import errno
import gc
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO, cast

import command_line
from ablations import REGIMES, Roadmap, get_regime, get_roadmap
from ablations.designs import DesignSpec, build_design
from ablations.presets import get_preset
from ablations.sweep import Sweep
from commands import (
    COMMANDS,
    LAUNCHING,
    All,
    Check,
    Command,
    Export,
    Merge,
    Pack,
    Predict,
    Report,
    Show,
    Status,
    Steps,
    Train,
    Training,
    Unpack,
)
from studies.plan import ANALYSES, planned
from studies.study import study_folder
from training import torchrun
from training.interrupt import DONE, FAILED, REFUSED, STOPPED, StopRequest, stop_on_signals
from training.recipe import follow
from training.torchrun import RankInfo
from utils.streams import Patient
from utils.text import one_line, readable_bytes

GARBAGE = (700, 10, 200)
"""Python's thresholds for looking for garbage. A full search, of which importing torch causes five,
looks at 300,000 objects that stay: done as rarely as this, commands that train start a second
sooner (docs/decisions.md#garbage)."""


SPINS = "10000"
"""Of GOMP_SPINCOUNT: torch's CPU threads wait for each other by spinning, and spinning long makes a
run 20 times slower as soon as another program wants a core (docs/decisions.md#spin). Read when
torch is imported, so it is set before."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    place = torchrun.rank_info()
    try:
        with stop_on_signals(alone=place.count == 1) as stop:
            if arguments[:1] == ["--from-make"]:
                arguments = command_line.from_make(COMMANDS, arguments[1:], os.environ)
                if place.rank == 0:
                    print(f"runner.py {shlex.join(arguments)}", file=sys.stderr, flush=True)
            command = _parse(arguments)
            if place.count > 1:
                return share(command, arguments, stop, place)
            return run_all(command, arguments, stop)
    except _FAILURES as failure:
        code, said = _answer(failure)
        if place.rank == 0:
            _tell(f"runner.py: {said}")
        return code


_FAILURES = (ValueError, OSError, KeyboardInterrupt)
"""What ends a command in a sentence."""


def _answer(failure: BaseException) -> tuple[int, str]:
    """The exit code for one of these, and what to say of it."""
    if isinstance(failure, KeyboardInterrupt):
        return STOPPED, "stopped; the same command begins again, with what is done already"
    if not isinstance(failure, OSError):
        return REFUSED, str(failure)
    what = failure.filename or "a file"
    said = (
        f"{what} could not be read or written ({failure.strerror})"
        if failure.strerror
        else str(failure)
    )
    return REFUSED if failure.errno == errno.ENAMETOOLONG else FAILED, said


def run_all(command: Command, arguments: Sequence[str], stop: StopRequest) -> int:
    """Carry out a command, which these words gave, and return its exit code."""
    match command:
        case Steps():
            return steps(command)
        case Check():
            return check(command)
        case Train():
            return train(command, stop)
        case All():
            return train_all(command, arguments, stop)
        case Status():
            return status(command)
        case Report():
            return report(command)
        case Pack():
            return pack(command)
        case Unpack():
            return unpack(command)
        case Merge():
            return merge(command)
        case Show():
            return show(command)
        case Predict():
            return predict(command)
        case Export():
            return export(command)


def share(command: Command, arguments: Sequence[str], stop: StopRequest, place: RankInfo) -> int:
    """Carry out a command that torchrun has started several times: the first process does, the
    others help it train."""
    if not isinstance(command, Train | All):
        return run_all(command, arguments, stop) if place.rank == 0 else DONE
    if isinstance(command, All) and (command.jobs != 1 or command.launcher != "local"):
        raise ValueError(
            "--jobs and --launcher start processes of their own: give them without torchrun (GPUS)"
        )
    from training.helper import dismiss, help_with_runs
    from training.processes import joined

    with joined(place) as processes:
        try:
            if place.rank > 0:
                return help_with_runs(place, processes, stop, prepare=lambda: _roadmap(command))
            code = run_all(command, arguments, stop)
            dismiss(processes)
            return code
        except (
            _FAILURES
        ) as failure:  # said before the others learn of it: torchrun ends all soon after the first
            code, said = _answer(failure)
            _tell(
                "runner.py: "
                f"{f'process {place.rank} of {place.count}: ' if place.rank else ''}{said}"
            )
            raise SystemExit(code) from failure


def _parse(arguments: Sequence[str]) -> Command:
    """The command, with the asked preset's values as defaults. Wrong requests become one-sentence
    ValueErrors."""

    def defaults(given: command_line.Given) -> dict[str, Command]:
        name = given.get("--preset", ["food101"])[-1]
        config = get_preset(name)
        return {
            word: kind(preset=name, config=config) if issubclass(kind, Training) else kind()
            for word, kind in COMMANDS.items()
        }

    command: Command
    command, given = command_line.parse(COMMANDS, arguments, defaults, description=__doc__)
    if isinstance(command, Train | All):
        before, after = get_preset(command.preset).recipe, command.config.recipe
        own = {
            name: getattr(command.config.classic, name)
            for name in ("epochs", "step_epochs", "batch_size", "micro_batches")
            if f"--classic.{name.replace('_', '-')}" in given
        }
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
    print(
        {"table": table.as_text, "csv": table.as_csv, "json": table.as_json}[command.format](rows),
        end="",
    )
    return DONE


def check(command: Check) -> int:
    """Try every row of a roadmap in every regime."""
    roadmap, config = get_roadmap(command.roadmap), get_preset(command.preset)
    for regime in REGIMES.values():
        roadmap.check(regime, config)
    regime = get_regime(config.regime)
    for step in roadmap.steps_in(regime):
        changes = roadmap.difference(step, regime, config)
        said = (
            ", ".join(f"{name} {old} to {new}" for name, (old, new) in changes.items())
            or "changes nothing here"
        )
        print(f"{step.name}: {said if step.after else step.description}")
    print(f"{command.roadmap} is sound (regime {regime.name}, preset {command.preset})")
    return DONE


def train(command: Train, stop: StopRequest) -> int:
    """Train one step."""
    regime = get_regime(command.config.regime, command.config.resolution)
    roadmap = _roadmap(command)
    step = roadmap.step(command.step, regime)
    if command.overwrite not in (None, step.name):
        raise ValueError(
            f"--overwrite names {command.overwrite!r} and the step is {step.name!r}: name the "
            "same step"
        )
    path = build_design(roadmap, regime, DesignSpec())
    overwrite = {step.name} if command.overwrite else set[str]()
    command.check()
    from studies.train import Request
    from studies.train import train as train_request

    variant = path.variant(step.name)
    request = Request(command, path, [variant], [command.seed], overwrite, others="refuse")
    return train_request(request, stop)


def train_all(command: All, arguments: Sequence[str], stop: StopRequest) -> int:
    """Train every row of a design, then write the report; or have other processes do so, which
    `arguments` start."""
    command.check()
    from studies import launch
    from studies.train import Request, check_choice, train_until_resolved
    from studies.train import train as train_request

    seeds = command.seeds or (tuple(range(ANALYSES[-1])) if command.until_resolved else (0,))
    check_choice(["any"], seeds)
    sweep = None if command.sweep is None else Sweep.parse(command.sweep)
    if sweep and (command.until_resolved or command.margin is not None):
        raise ValueError(
            "--until-resolved and --margin belong to a study's plan, which a --sweep leaves as it "
            "is"
        )
    most = (
        None
        if command.until_resolved or command.runs_at_most is None
        else command.runs_at_most // len(seeds)
    )
    spec = DesignSpec(command.design, command.base, command.factors, command.fraction, most, sweep)
    design = build_design(
        _roadmap(command), get_regime(command.config.regime, command.config.resolution), spec
    )
    asked = [design.find(row) for row in command.steps]
    chosen = [each for row in asked for each in (row, *design.settings(row))] or list(
        design.variants
    )
    overwrite = set(command.overwrite)
    if strange := overwrite - {row.name for row in chosen}:
        raise ValueError(
            f"--overwrite names {', '.join(sorted(strange))}: give names of the steps that are to "
            "be trained"
        )
    folder = command.folder
    judging = (
        None
        if sweep
        else planned(
            folder,
            design,
            command.config,
            [row.name for row in chosen],
            seeds,
            until_resolved=command.until_resolved,
            margin=command.margin,
            runs_at_most=command.runs_at_most,
        )
    )
    if command.worker:
        launch.end_with_parent()
    slurms = {
        "--time-limit": command.time_limit,
        "--partition": command.partition,
        "--gpus": command.gpus,
        "--sbatch": command.sbatch,
    }
    if command.launcher != "slurm" and (given := [name for name, value in slurms.items() if value]):
        raise ValueError(
            f"{given[0]} was given, which Slurm is told: add --launcher slurm, or leave it out"
        )
    if command.launcher == "slurm" and not command.dry_run:
        return _start_workers(command, arguments, stop)
    if (
        command.jobs != 1
        and not command.dry_run
        and (code := _start_workers(command, arguments, stop)) != DONE
    ):
        return code
    request = Request(
        command,
        design,
        chosen,
        seeds,
        overwrite,
        judging,
        # Workers of --until-resolved wait: the next round needs the others' results.
        others="leave" if command.worker and not command.until_resolved else "wait",
        estimate=not command.worker,
        dry_run=command.dry_run,
        mixed_code=command.mixed_code,
    )
    if judging and command.until_resolved:
        from report.sequential import missing_seeds

        code = train_until_resolved(
            request,
            lambda: missing_seeds(folder, judging, design, mixed_code=command.mixed_code),
            stop,
        )
    else:
        code = train_request(request, stop)
    if code not in (DONE, FAILED) or command.dry_run or command.worker:
        return code
    try:
        print("report:", _write_report(folder, design.roadmap.name, command.mixed_code), flush=True)
    except ValueError as nothing_to_report:
        if code == DONE:
            raise
        _tell(f"runner.py: {nothing_to_report}")
    return code


def _start_workers(command: All, arguments: Sequence[str], stop: StopRequest) -> int:
    """Have local processes or Slurm jobs train what `arguments` request. Returns the exit code."""
    from studies import launch
    from studies.run_locks import refuse_other_code
    from studies.study import find_study
    from studies.train import data_folder, with_init_weights
    from training.device import code_version

    if command.overwrite:
        raise ValueError(
            "--overwrite was given with --jobs or --launcher slurm: it is for one process"
        )
    words = command_line.without(arguments, LAUNCHING)
    if command.launcher == "local":
        return launch.run_workers(words, command.jobs, command.device, stop)
    if command.gpus and command.gpus > 1:
        raise ValueError(
            f"--gpus is {command.gpus}: a job trains on one GPU, give --gpus 1 and more --jobs"
        )
    folder = command.folder
    given = {
        "job-name": folder.name,
        "time": command.time_limit,
        "partition": command.partition,
        "gpus": command.gpus,
    }
    options = launch.slurm_options(given, command.sbatch)
    find_study(folder, with_init_weights(command))
    refuse_other_code(folder, code_version())
    if command.data_dir is None:
        words += ["--data-dir", str(data_folder(command))]
    roadmap = Path(command.roadmap) if Path(command.roadmap).is_file() else None
    place, array, closing = launch.submit(
        folder, words, command.jobs, options, code_version(), roadmap, data_folder(command)
    )
    print(
        f"submitted: job {array}, {command.jobs} at once, and job {closing}, which trains what "
        f"these leave and writes the report; `scancel {array} {closing}` cancels both\n"
        f"{place}: the script, the code as it is now, and the logs"
    )
    return DONE


def status(command: Status) -> int:
    """Say how far a study is."""
    from studies import status

    folder = command.folder
    say = {"table": status.as_table, "json": status.as_json}[command.format]
    while True:
        now = status.read_status(folder)
        clear = "\x1b[H\x1b[2J" if command.watch and sys.stdout.isatty() else ""
        print(clear + say(now), end="", flush=True)
        if not command.watch or len(now.of("done") + now.of("failed")) == len(now.runs):
            return DONE
        try:
            time.sleep(2)
        except KeyboardInterrupt:
            return DONE


def report(command: Report) -> int:
    """Write the report of a study."""
    if command.source and command.study:
        raise ValueError(
            f"both {command.source} and --study {command.study} were given: give one of them"
        )
    source = command.source or _source(command.study or command.preset, command.runs)
    print("report:", _write_report(source, command.roadmap, command.mixed_code))
    return DONE


def pack(command: Pack) -> int:
    """Write a study into one file."""
    from studies import pack

    study = _source(command.study, command.runs)
    out = command.out or study.with_name(f"{study.name}.pack")
    pack.pack(study, out)
    print(f"pack: {out} ({readable_bytes(out.stat().st_size)})")
    return DONE


def unpack(command: Unpack) -> int:
    """Make a study's folder of a pack."""
    from studies import pack

    study = study_folder(command.study or command.pack.stem, command.runs)
    finished, left_out = pack.unpack(command.pack, study)
    rest = f"; {left_out} unfinished left out" if left_out else ""
    print(f"study: {study} ({finished} finished runs, without weights{rest})")
    return DONE


def merge(command: Merge) -> int:
    """Put parts of a study together."""
    from studies import pack

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
    """Ask trained networks about images."""
    from inference.output import answer
    from inference.predictor import best_run

    runs = command.runs or (best_run(Path("runs")),)
    text = answer(
        command.images, runs, top=command.top, as_json=command.json, plot_into=command.plot
    )
    if not command.runs:
        _tell(
            f"{runs[0]} was asked, the best of its study on validation images; --run names another"
        )
    print(text, end="")
    return DONE


def export(command: Export) -> int:
    """Write a run's network for use elsewhere."""
    from inference.export import write
    from inference.predictor import best_run

    run = command.run or best_run(Path("runs"))
    difference = write(
        run,
        command.format,
        command.out,
        fold_layer_scale=command.fold_layer_scale,
        images=command.images,
        license=command.license,
    )
    if not command.run:
        _tell(
            f"{run} was exported, the best of its study on validation images; --run names another"
        )
    print(f"export: {command.out} (largest difference of a logit {difference:.1e} of the largest)")
    return DONE


def _write_report(folder: Path, roadmap: str | None, mixed_code: bool = False) -> str:
    if not folder.is_file() and not (folder / "study.json").exists():
        raise ValueError(
            f"{folder} holds no study: train a step first, or name another with --study or --preset"
        )
    from report.page import write

    return str(
        write(folder, roadmap, mixed_code=mixed_code, tell=lambda odd: _tell(f"report: {odd}"))
    )


def _roadmap(command: Training | Steps | Show) -> Roadmap:
    return get_roadmap(command.roadmap, command.network)


def _tell(complaint: object) -> None:
    print(one_line(complaint), file=sys.stderr)


def _source(study: str, runs: Path) -> Path:
    """The study's folder or pack that `study` names: a path, or the name of one in `runs`."""
    path = Path(study)
    return path if path.is_file() or (path / "study.json").exists() else study_folder(study, runs)


if __name__ == "__main__":
    gc.set_threshold(*GARBAGE)
    sys.stdout, sys.stderr = cast(TextIO, Patient(sys.stdout)), cast(TextIO, Patient(sys.stderr))
    sys.exit(main())
