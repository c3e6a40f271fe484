"""What the commands train and all do: plan what is asked for, forecast what it costs, carry it out.

Everything that can be refused is refused by the plan and the forecast, before anything is written.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import command_line
from ablations import get_regime
from ablations.designs import Design, Variant
from commands import LAUNCHING, All, Train
from data.datasets import Located
from studies.plan import Plan
from studies.run_locks import LAUNCH, other_versions, refuse_other_code
from studies.status import note_requested
from studies.study import find_study, note_design, note_plan, open_study
from training.interrupt import DONE, STOPPED, StopRequest
from utils.text import first_few, left_out, listed, one_line

if TYPE_CHECKING:
    from data.sizes import Sizes
    from studies.cost_estimate import CostEstimate
    from studies.run import Run
    from training.execution import Execution
    from training.recipe import StudyConfig

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Task:
    """What a request to train comes to, when all of it that can be refused has been looked at."""

    command: Train | All
    design: Design
    judging: Plan | None
    """How the study is to be judged, where a whole design is asked for."""
    runs: "Sequence[Run]"
    overwrite: Collection[str]
    """Steps whose runs are to be made again."""
    execution: "Execution"
    found: Located
    """The data set."""
    data_dir: Path
    cache: Path
    """The folder of decoded images."""
    short_side: int
    sizes: "Sizes"


def train_variants(
    command: Train | All,
    design: Design,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    overwrite: Collection[str],
    stop: StopRequest,
    judging: Plan | None = None,
) -> int:
    """Train these variants of a design with each seed. Returns the exit code."""
    task = plan(command, design, variants, seeds, overwrite, judging)
    bill = None if isinstance(command, All) and command.worker else forecast(task)
    if isinstance(command, All) and command.dry_run:
        return DONE
    return run_all(task, bill, stop)


def train_until_resolved(
    command: All, design: Design, judging: Plan, overwrite: Collection[str], stop: StopRequest
) -> int:
    """Train what the plan's rule asks for, look at the results, and so on until it asks for nothing
    more."""
    from report.until import missing

    folder = command.folder
    asked: Mapping[str, tuple[int, ...]] = {}
    while more := missing(folder, judging, design, mixed_code=command.mixed_code):
        if not command.mixed_code and (others := _of_other_code(folder)):
            raise ValueError(
                f"{others} are not judged together: use that version, or add --mixed-code"
            )
        if more == asked:
            raise ValueError(
                f"the runs of {first_few(sorted(more))} are finished and yet cannot be reported: "
                "`runner.py report` "
                "says why; make them again with --overwrite"
            )
        asked = more
        for seeds in dict.fromkeys(more.values()):
            variants = [variant for variant in design.variants if more.get(variant.name) == seeds]
            code = train_variants(
                command,
                design,
                variants,
                seeds,
                {variant.name for variant in variants} & set(overwrite),
                stop,
                judging,
            )
            if code != DONE or command.dry_run:
                return code
        overwrite = ()  # a later look adds to what was made again
    if not asked:
        print(
            f"{folder}: no run to train: each comparison is resolved, given up or may have no "
            "more seeds"
        )
    return DONE


def _of_other_code(folder: Path) -> str:
    """The beginning of a sentence on a study's finished runs that were made by other versions of
    this code, if any."""
    from training.environment import code_version

    code = code_version()
    others = other_versions(folder, code)
    made_by = (
        f"finished runs in {folder} were made by version {listed(others)} of this code, and "
        f"this is {code}: they"
    )
    return made_by if others else ""


def plan(
    command: Train | All,
    design: Design,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    overwrite: Collection[str],
    judging: Plan | None,
) -> Task:
    """Which runs are asked for, and how they are to be made. Writes nothing; what needs torch comes
    last."""
    from studies.request import check_choice, check_machine

    config, folder = command.config, command.folder
    regime = get_regime(config.regime, config.resolution)
    design.check(variants, regime, config)
    check_choice([variant.name for variant in variants], seeds)
    check_machine(command.device, command.workers, command.checkpoint_minutes)
    found, data_dir, cache = _check_places(command)
    if command.init_weights:
        from ablations.fitting import check_file

        check_file(
            command.init_weights,
            regime,
            {variant.name: design.setup(variant, regime, config) for variant in variants},
        )
    config = _with_weights(command)
    find_study(folder, config)

    from data.sizes import sizes
    from studies import jobs
    from studies.run import Run, share
    from training import processes, torchrun
    from training.device import before_cuda, find_device, find_precision, find_workers
    from training.environment import code_version
    from training.execution import Execution
    from training.spec import short_side

    before_cuda(command.deterministic)
    place = torchrun.place()
    device = find_device(command.device, place)
    config = replace(config, precision=find_precision(config.precision, device))
    study = find_study(folder, config)
    refuse_other_code(folder, code_version())
    side = short_side(config.resolution, config.recipe.augmentation.crop_scale)
    images = sizes(found, cache, side)
    setups = [
        (variant, design.setup(variant, regime, config, images.classes)) for variant in variants
    ]
    runs = [
        Run(
            study,
            variant.name,
            variant.number,
            seed,
            setup.architecture,
            setup.recipe,
            command.init_weights,
        )
        for seed in seeds
        for variant, setup in setups
    ]
    for run in runs:
        run.check_records(overwrite)
        run.check_parts(place.count)
    execution = Execution(
        device,
        find_workers(command.workers, device, jobs.beside() * place.local_count),
        trial=command.trial,
        checkpoint_minutes=command.checkpoint_minutes,
        deterministic=command.deterministic,
        processes=processes.here(),
    )
    shared = share(runs, overwrite)
    return Task(
        command, design, judging, shared, overwrite, execution, found, data_dir, cache, side, images
    )


def _with_weights(command: Train | All) -> "StudyConfig":
    """The study's config, which says of a file of initial weights what is in it."""
    if not command.init_weights:
        return command.config
    from training.initial_weights import describe

    return replace(command.config, init_weights=describe(command.init_weights))


def _check_places(command: Train | All) -> tuple[Located, Path, Path]:
    """The data set, and the folders of data sets and of decoded images. Raises ValueError where one
    is unusable."""
    import data
    from utils.files import require_folder

    require_folder(command.runs, "the runs folder", may_be_missing=True, writable=True)
    data_dir = command.data_dir or _HERE / "datasets"
    if command.data_dir:
        require_folder(data_dir, "the data folder")
    found = data.check(command.config.dataset, data_dir, create_root=command.data_dir is None)
    cache = command.cache_dir or data_dir / "cache"
    require_folder(
        cache,
        "the folder of decoded images (--cache-dir)",
        may_be_missing=command.cache_dir is None,
    )
    return found, data_dir, cache


def forecast(task: Task) -> "CostEstimate":
    """What the task costs, printed for a whole study. Raises OSError where the disks have no room
    for it."""
    import data
    from studies.cost_estimate import CostEstimate

    if task.sizes.cache and task.cache.exists():
        data.require_writable(task.cache, "the folder of decoded images (--cache-dir)")
    bill = CostEstimate(task.runs, task.sizes, task.execution, task.overwrite)
    if isinstance(task.command, All):
        print(bill.expectation, bill, sep="\n", flush=True)
        if (
            min(bill.done) < 1
            and not task.command.mixed_code
            and (others := _of_other_code(task.command.folder))
        ):
            kept = (
                "are reported together with --mixed-code only, else those of the version that "
                "made most"
            )
            print(one_line(f"{others} {kept}"), file=sys.stderr)
    bill.require_disk(task.data_dir, task.cache, task.command.runs)
    return bill


def run_all(task: Task, bill: "CostEstimate | None", stop: StopRequest) -> int:
    """Fetch and decode the images, make the study, train its runs. Returns the exit code."""
    from studies import jobs, run_queue, speed
    from training import torchrun
    from training.execution import open_stores

    study = task.runs[0].study
    dataset = task.found.load()
    trainers = jobs.beside() * torchrun.place().local_count
    stores = open_stores(
        dataset, task.cache, task.short_side, task.command.skip_unreadable, trainers
    )
    dataset = dataset.without(stores.skipped)
    if dataset.skipped:
        print(one_line(f"left out: {left_out(dataset.skipped)}"), file=sys.stderr)
    study = open_study(study.folder, study.config, dataset.summary, dataset.fingerprint)
    note_design(study.folder, task.design.record)
    if task.judging is not None:
        note_plan(study.folder, task.judging)
    if bill is not None:
        speed.remember(study.folder, bill.device_name, bill.speeds)
    runs = [replace(run, study=study) for run in task.runs]
    note_requested(study.folder, [(run.step, run.seed) for run in runs if run.made_as is None])
    others: run_queue.Others = "refuse" if isinstance(task.command, Train) else "wait"
    if isinstance(task.command, All) and task.command.worker and not task.command.until_resolved:
        others = "leave"  # the next look of --until-resolved needs the others' results
    told = bill.finished if bill and isinstance(task.command, All) else None
    code = run_queue.run_all(runs, stores, task.execution, stop, task.overwrite, told, others)
    return code


def train_beside(command: All, arguments: Sequence[str], stop: StopRequest) -> int:
    """Have as many workers as were asked for train what `arguments` ask for, as far as they can.
    Returns the exit code.

    Raises:
        ValueError: there are more of them than GPUs or cores.
    """
    import torch

    from studies import jobs
    from training.device import find_device

    device = find_device(command.device)
    if command.overwrite or ":" in command.device:
        what = "--overwrite" if command.overwrite else f"--device {command.device}"
        raise ValueError(
            f"--jobs and {what} were given: {what} is for one process, give one of them"
        )
    environments = jobs.shares(
        command.jobs, torch.cuda.device_count() if device.type == "cuda" else 0
    )
    program = [
        sys.executable,
        str(_HERE / "runner.py"),
        *command_line.without(arguments, LAUNCHING),
    ]
    if refused := subprocess.run([*program, "--dry-run"], check=False).returncode:
        return refused
    os.environ[LAUNCH] = secrets.token_hex(4)
    codes = jobs.run([*program, "--worker"], environments, stop)
    return STOPPED if stop or STOPPED in codes else DONE


def submit(command: All, arguments: Sequence[str]) -> int:
    """Submit the workers to Slurm that train what `arguments` ask for. Returns the exit code.

    Raises:
        ValueError: there is no Slurm here, or it refuses; nothing is left behind.
    """
    from studies import slurm
    from training.environment import code_version

    folder = command.folder
    if command.overwrite:
        raise ValueError(
            "--launcher slurm and --overwrite were given: --overwrite is for one process, give "
            "one of them"
        )
    if command.jobs < 1:
        raise ValueError(f"--jobs is {command.jobs}: give how many jobs may run at once, 1 or more")
    options = slurm.options(
        folder.name, command.time_limit, command.partition, command.gpus, command.sbatch
    )
    if command.gpus and command.gpus > 1:
        raise ValueError(
            f"--gpus is {command.gpus}: a job trains on one GPU, give --gpus 1 and more --jobs"
        )
    find_study(folder, _with_weights(command))
    refuse_other_code(folder, code_version())
    words = command_line.without(arguments, LAUNCHING)
    if command.data_dir is None:
        words += ["--data-dir", str(_HERE / "datasets")]
    roadmap = Path(command.roadmap) if Path(command.roadmap).is_file() else None
    launch = slurm.submit(
        folder,
        options,
        command.jobs,
        words,
        code_version(),
        roadmap,
        command.data_dir or _HERE / "datasets",
    )
    print(
        f"submitted: job {launch.workers}, {command.jobs} at once, and job {launch.closing}, "
        "which trains what these "
        f"leave and writes the report; `scancel {launch.workers} {launch.closing}` cancels both\n"
        f"{launch.folder}: the script, the code as it is now, and what the jobs say"
    )
    return DONE
