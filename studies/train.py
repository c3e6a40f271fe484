"""Train the rows of a design: plan the runs, estimate their cost, open the images, run the queue.

Everything that can be refused is refused by the plan and the estimate, before anything is written.
"""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ablations import get_regime
from ablations.designs import Design, Variant
from ablations.fitting import check_file
from ablations.presets import get_preset
from data import datasets
from data.datasets import Located
from data.processes import cores
from data.sizes import Sizes, sizes
from studies import launch, run_queue
from studies.cost_estimate import CostEstimate
from studies.options import TrainOptions
from studies.plan import Plan, note_plan
from studies.run import Run, deduplicate
from studies.run_queue import other_versions, refuse_other_code
from studies.status import note_requested
from studies.study import find_study, note_design, open_study
from training import processes
from training.device import (
    before_device,
    code_version,
    device_name,
    find_device,
    find_precision,
    find_workers,
    notes,
)
from training.execution import Execution, open_stores
from training.interrupt import DONE, StopRequest
from training.recipe import StudyConfig
from training.spec import rank_info, short_side
from training.train import record_initial_weights, require_batch_norm
from utils.files import require_folder, require_writable
from utils.text import duration, first_few, left_out, listed, one_line, printable

_WEEK = 7 * 24 * 3600
_DATASETS = Path(__file__).parents[1] / "datasets"
_SMALL, _WORTH_SECONDS, _MOST_JOBS = 64, 60, 4
"""Largest side of images, least time and largest number of processes for runs side by side that
nobody requested."""
Missing = Callable[[], Mapping[str, tuple[int, ...]]]
"""The seeds that each row still needs, by the results so far; empty when all is resolved."""


@dataclass(frozen=True)
class Request:
    """The variants of a design that are to be trained with each seed."""

    options: TrainOptions
    design: Design
    variants: Sequence[Variant]
    seeds: Sequence[int]
    overwrite: Collection[str] = ()
    """Steps whose runs are discarded and trained from scratch."""
    plan: Plan | None = None
    """The plan of the study, where a whole design is requested."""
    others: run_queue.Others = "wait"
    """What to do about runs that other processes train."""
    estimate: bool = True
    """Whether the cost is estimated and printed first."""
    dry_run: bool = False
    mixed_code: bool = False
    """Whether results of different versions of the code are reported together."""
    jobs: int | None = 1
    """How many processes share the runs; None for what is fast here."""
    arguments: Sequence[str] = ()
    """The command line, for processes that share the runs."""


@dataclass(frozen=True)
class _Task:
    """A request that has been checked, with all that its runs need."""

    request: Request
    runs: Sequence[Run]
    execution: Execution
    dataset: Located
    data_dir: Path
    cache: Path
    """Folder of the decoded images."""
    sizes: Sizes


def train(request: Request, stop: StopRequest) -> int:
    """Train what is requested, and return the exit code."""
    task = _plan(request)
    estimate = _estimate(task) if request.estimate else None
    if request.dry_run:
        return DONE
    if estimate and estimate.jobs > 1:
        code = launch.run_workers(request.arguments, request.options.device, estimate, stop)
        if code != DONE or not estimate.left:
            return code
    return _run(task, estimate, stop)


def train_until_resolved(request: Request, missing: Missing, stop: StopRequest) -> int:
    """Train the seeds that `missing` names, look at the results, and repeat until it names none.

    Raises:
        ValueError: results of several versions of the code would be needed, or finished runs cannot
            be reported.
    """
    folder, before = request.options.folder, dict[str, tuple[int, ...]]()
    while more := dict(missing()):
        if not request.mixed_code and (others := other_code(folder)):
            raise ValueError(
                f"{others} are not evaluated together: use that version, or add --mixed-code"
            )
        if more == before:
            raise ValueError(
                f"the runs of {first_few(sorted(more))} are finished and yet cannot be reported: "
                "`runner.py report` says why; train them again with --overwrite"
            )
        before = more
        for seeds in dict.fromkeys(more.values()):
            variants = [each for each in request.design.variants if more.get(each.name) == seeds]
            overwrite = {each.name for each in variants} & set(request.overwrite)
            part = replace(request, variants=variants, seeds=seeds, overwrite=overwrite)
            code = train(part, stop)
            if code != DONE or request.dry_run:
                return code
        request = replace(request, overwrite=())  # later rounds add to the runs of the first
    if not before:
        print(f"{folder}: no run to train: each comparison is resolved, given up or at its limit")
    return DONE


def other_code(folder: Path) -> str:
    """The beginning of a message about finished runs of other versions of the code, if any."""
    code = code_version()
    if not (others := other_versions(folder, code)):
        return ""
    return (
        f"finished runs in {folder} were trained by version {listed(others)} of this code, and "
        f"this is {code}: they"
    )


def check_choice(steps: Sequence[str], seeds: Sequence[int]) -> None:
    """Raise ValueError unless there are steps and possible seeds, none of them twice."""
    for seed in seeds:
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed is {seed}: give a whole number from 0 to {2**31 - 1}")
    for what, values in (("step", list(steps)), ("seed", [str(seed) for seed in seeds])):
        if not values:
            raise ValueError(f"no {what} was given: give at least one")
        if twice := next((value for value in values if values.count(value) > 1), None):
            raise ValueError(f"{what} {twice} was given twice: give each {what} once")


def _plan(request: Request) -> _Task:
    """The runs of a request, and how they are executed. Writes nothing."""
    options, design, variants = request.options, request.design, request.variants
    config = options.config
    regime = get_regime(config.regime, config.resolution)
    design.check(variants, regime, config)
    check_choice([variant.name for variant in variants], request.seeds)
    options.check()
    dataset, data_dir, cache = _check_folders(options)
    if options.execution.init_weights:
        setups = {each.name: design.setup(each, regime, config) for each in variants}
        check_file(options.execution.init_weights, regime, setups, options.execution.init_key)
    config = with_init_weights(options)
    find_study(options.folder, config)

    before_device(options.execution.deterministic)
    rank = rank_info()
    device = find_device(options.device, rank)
    if request.jobs not in (None, 1):
        launch.environments(request.jobs, options.device)  # refuses what is impossible
    config = replace(config, precision=find_precision(config.precision, device))
    study = find_study(options.folder, config)
    refuse_other_code(options.folder, code_version())
    images = sizes(dataset, cache, _short_side(config))
    runs = []
    for variant in variants:
        setup = design.setup(variant, regime, config, images.classes)
        network, recipe = setup.architecture, setup.recipe
        for seed in request.seeds:
            name, number = variant.name, variant.number
            runs.append(
                Run(study, name, number, seed, network, recipe, options.execution.init_weights)
            )
    runs.sort(key=lambda run: request.seeds.index(run.seed))
    for run in runs:
        run.check_records(request.overwrite)
        run.check_processes(rank.count)
    for run in {run.step: run for run in runs}.values():
        require_batch_norm(run.architecture, run.recipe, config.resolution)
    about = dataset.dataset.notes if dataset.dataset and launch.workers_here() == 1 else ()
    for line in (*about, *notes(device, config.precision)):
        print(f"runner.py: {printable(line)}", file=sys.stderr)
    execution = Execution(
        device,
        find_workers(options.execution.workers, device, launch.workers_here() * rank.local_count),
        trial=options.execution.trial,
        checkpoint_minutes=options.execution.checkpoint_minutes,
        deterministic=options.execution.deterministic,
        processes=processes.here(),
        silent=launch.workers_here() > 1,
    )
    runs = deduplicate(runs, request.overwrite)
    return _Task(request, runs, execution, dataset, data_dir, cache, images)


def _short_side(config: StudyConfig) -> int:
    return short_side(config.resolution, config.recipe.augmentation.crop_scale)


def with_init_weights(options: TrainOptions) -> StudyConfig:
    """The config of the study, with a record of the file of initial weights if there is one."""
    file, key = options.execution.init_weights, options.execution.init_key
    if not file:
        return options.config
    return replace(options.config, init_weights=record_initial_weights(file, key))


def data_folder(options: TrainOptions) -> Path:
    """The folder of data sets."""
    return options.execution.data_dir or _DATASETS


def _check_folders(options: TrainOptions) -> tuple[Located, Path, Path]:
    """The data set, and the folders of data sets and of decoded images. Raises ValueError where one
    cannot be used."""
    require_folder(options.runs, "the runs folder", may_be_missing=True, writable=True)
    data_dir = data_folder(options)
    if options.execution.data_dir:
        require_folder(data_dir, "the data folder")
    dataset = datasets.check(
        options.config.dataset, data_dir, create_root=options.execution.data_dir is None
    )
    cache = options.execution.cache_dir or data_dir / "cache"
    what = "the folder of decoded images (--cache-dir)"
    require_folder(cache, what, may_be_missing=options.execution.cache_dir is None)
    return dataset, data_dir, cache


def _estimate(task: _Task) -> CostEstimate:
    """The cost of the task, which is printed.

    Raises:
        ValueError: it would take too long.
        OSError: the disks are too small.
    """
    request = task.request
    if task.sizes.cache and task.cache.exists():
        require_writable(task.cache, "the folder of decoded images (--cache-dir)")
    jobs, threads = _jobs(task), torch.get_num_threads()
    if jobs > 1 and task.execution.device.type == "cpu":
        torch.set_num_threads(cores() // jobs)
    estimate = CostEstimate(task.runs, task.sizes, task.execution, request.overwrite, jobs)
    if request.jobs is None and jobs > 1 and estimate.seconds_left() * jobs < _WORTH_SECONDS:
        torch.set_num_threads(threads)
        estimate.jobs, estimate.device_name = 1, device_name(task.execution.device)
    refused = _too_slow(task, estimate)
    if refused and not request.dry_run:
        raise ValueError(refused)
    print(estimate.expectation)
    recipe, usual = request.options.config.recipe, get_preset(request.options.preset).recipe
    if recipe.warmup_epochs < usual.warmup_epochs:
        print(
            f"the warm-up takes {recipe.warmup_epochs} of {recipe.epochs} epochs, where the preset "
            f"has {usual.warmup_epochs} of {usual.epochs} (--warmup-epochs)"
        )
    if request.dry_run or request.others != "refuse":
        print(estimate)
    if refused:
        print(f"without --dry-run this is refused: {refused}")
    sys.stdout.flush()
    if request.others != "refuse":
        others = "" if request.mixed_code else other_code(request.options.folder)
        if others and min(estimate.done) < 1:
            rest = "are reported together with --mixed-code only, else those of the commonest one"
            print(one_line(f"{others} {rest}"), file=sys.stderr)
    estimate.require_disk(task.data_dir, task.cache, request.options.runs)
    return estimate


def _too_slow(task: _Task, estimate: CostEstimate) -> str:
    """Why the task is refused, which would take a CPU more than a week; empty where it is not."""
    seconds, insists = estimate.seconds_left(), task.request.options.execution.allow_slow
    if task.execution.device.type != "cpu" or insists or seconds <= _WEEK:
        return ""
    return (
        f"this would take about {duration(seconds)} on this CPU: use a GPU, or --preset "
        "fashion-mnist or --preset pocket, which are for CPUs, or add --allow-slow to begin anyway"
    )


def _jobs(task: _Task) -> int:
    """How many processes train: those requested, or what is fast if there is work for a minute.

    On a CPU small networks keep one core busy, so several runs at once are faster
    (docs/decisions.md#jobs).
    """
    request, execution = task.request, task.execution
    if request.jobs is not None:
        return request.jobs
    small = task.runs[0].study.config.resolution <= _SMALL and execution.device.type == "cpu"
    if not small or execution.processes.count > 1 or request.overwrite:
        return 1
    left = sum(run.state().startswith("to ") for run in task.runs)
    return max(1, min(cores(), left, _MOST_JOBS))


def _run(task: _Task, estimate: CostEstimate | None, stop: StopRequest) -> int:
    """Fetch and decode the images, create the study, train its runs."""
    request, study = task.request, task.runs[0].study
    dataset = task.dataset.load()
    skip = request.options.execution.skip_unreadable
    stores = open_stores(dataset, task.cache, _short_side(study.config), skip)
    dataset = dataset.without(stores.skipped)
    if dataset.skipped:
        print(one_line(f"left out: {left_out(dataset.skipped)}"), file=sys.stderr)
    if copies := stores.copies():
        print(one_line(copies), file=sys.stderr)
        dataset = replace(dataset, notes=(*dataset.notes, copies))
    fingerprint = dataset.fingerprint(stores.contents)
    study = open_study(study.folder, study.config, dataset.summary, fingerprint)
    note_design(study.folder, request.design.record)
    if request.plan is not None:
        note_plan(study.folder, request.plan)
    runs = [replace(run, study=study) for run in task.runs]
    note_requested(study.folder, [(run.step, run.seed) for run in runs if run.alias_of is None])
    shown = estimate if request.others != "refuse" else None
    return run_queue.run_all(
        runs,
        stores,
        task.execution,
        stop,
        request.overwrite,
        shown,
        request.others,
    )
