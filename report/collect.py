"""Collect a study's folder: which runs may be reported together, which may not, and why.

A run is reported if its study's hash is this one, it was tested on the same images as the others,
it had all its epochs, and its top-1 is that of its predictions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

import ablations
from ablations import designs
from report.statistics import Measurements
from studies.identity import difference
from studies.plan import Plan, plans_of
from studies.run import Index, run_folders
from studies.study import read_study
from training.spec import LIKELY_CAUSES, collapse
from utils.files import read_bytes
from utils.text import first_few

if TYPE_CHECKING:
    from ablations import Roadmap, Step
    from ablations.designs import Design

SECONDS = ("forward", "backward", "optimizer", "evaluation", "data", "other")
METRICS = ("epoch", "lr", "train_loss", "validation_loss", "validation_top1")
RESULTS: tuple[str, ...] = ("top1", "top5", "loss", "params", "gflops_fvcore")
RESULTS += ("gflops_paper_convention", "images_per_second")
RESULTS += ("test_images", "epochs", "selected_epoch")
MEASURED = ("activations", "inference_ms_1", "inference_ms_64", "peak_memory_mb")
"""Measured in newer runs only."""


class OddRun(ValueError):
    """A run that must not be reported; the message ends a sentence about it."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """A run's predictions for the n test images, in the order of their names."""

    label: np.ndarray
    """(n,) int16."""
    top1: np.ndarray
    """(n,) int16: the best class."""
    p_top1: np.ndarray
    """(n,) float32: its probability."""
    digest: str
    """Of names and labels: only runs with the same digest are comparable."""

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool."""
        correct: np.ndarray = self.label == self.top1
        return correct


@dataclass(frozen=True, eq=False)
class RunRecord:
    """A run that passed the checks; what an unfinished one lacks is None."""

    step: str
    seed: int
    identity: Mapping[str, Any] = field(default_factory=dict)
    """The content of config.json (`studies.identity`)."""
    metrics: tuple[Mapping[str, Any], ...] = ()
    result: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)
    predictions: Predictions | None = None
    collapsed: str = ""
    """Why the run counts as collapsed; empty if it learned something, or is unfinished."""
    alias_of: str | None = None
    """The step under whose name the run was trained, where another variant shares it."""

    @property
    def name(self) -> str:
        """The run's folder below the study's."""
        return f"{self.step}/seed-{self.seed}"


class LeftOut(NamedTuple):
    """A run that is not reported, and the reason as the end of a sentence about it."""

    name: str
    reason: str


@dataclass(frozen=True)
class DatasetRecord:
    """The data set as study.json describes it; sizes in images."""

    name: str
    description: str
    synthetic: bool
    classes: list[str]
    train: int
    validation: int
    test: int
    skipped: Mapping[str, Sequence[str]]
    """Unreadable images that were left out, by split; the sizes are without them."""
    notes: Sequence[str] = ()
    """How the images were found: files left out, splits of other names, copies."""


@dataclass(frozen=True)
class StudyRecord:
    """Everything that a report is made of: runs of one config, one test set, one network a step."""

    name: str
    hash: str
    config: Mapping[str, Any]
    dataset: DatasetRecord
    regime: str
    roadmap: Roadmap
    first_roadmap: str
    """Name of the first roadmap that was requested."""
    steps: tuple[Step, ...]
    """Those steps of the roadmap that have a run or are in the plan."""
    path_requested: bool
    """Whether the steps were requested one after the other, not only other designs."""
    designs: tuple[Design, ...]
    """The other designs that were requested."""
    sweeps: tuple[Design, ...]
    """Designs whose variants were trained with several values of a field of the recipe."""
    runs: tuple[RunRecord, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    plans: tuple[Plan, ...] = ()
    """The first plan and each later one."""

    @property
    def oddities(self) -> tuple[str, ...]:
        """A sentence for each run left out and for each thing that the others do not share."""
        left_out = (f"{run.name} is left out: {run.reason}." for run in self.left_out)
        collapsed = (
            f"{run.name} collapsed ({run.collapsed}); likely causes: {LIKELY_CAUSES}."
            for run in self.runs
            if run.collapsed
        )
        return (*left_out, *collapsed, *self.warnings)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed of any run."""
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of all steps and of the designs' variants, whether they have runs or not."""
        rows = (row.name for design in self.designs for row in design.variants)
        return tuple(dict.fromkeys([*(step.name for step in self.steps), *rows]))

    def finished_by_variant(self) -> dict[str, tuple[RunRecord, ...]]:
        """The finished runs of each variant that has any."""
        return {name: runs for name in self.variants if (runs := self.finished(name))}

    @property
    def all_finished(self) -> tuple[RunRecord, ...]:
        return tuple(run for run in self.runs if run.result is not None)

    def finished(self, step: str) -> tuple[RunRecord, ...]:
        return tuple(run for run in self.all_finished if run.step == step)

    def unfinished(self, step: str) -> tuple[RunRecord, ...]:
        return tuple(run for run in self.runs if run.step == step and run.result is None)


def measure(
    runs: Mapping[str, Sequence[RunRecord]], images: np.ndarray | None = None
) -> Measurements:
    """The finished runs of variants as a table for statistics.

    `images` selects some of the test images, bool (n,).
    """
    every = [(variant, run) for variant, own in runs.items() for run in own]
    correct = np.stack([run.predictions.correct for _, run in every if run.predictions])
    return Measurements.from_predictions(
        [variant for variant, _ in every],
        [run.seed for _, run in every],
        correct if images is None else correct[:, images],
        [run.identity.get("digest", (variant, run.name)) for variant, run in every],
        [bool(run.collapsed) for _, run in every],
    )


def read(
    study_dir: Path, roadmap_name: str | None = None, *, mixed_code: bool = False
) -> StudyRecord:
    """Read everything that a report on a roadmap of the study needs; by default on its first.

    With `mixed_code`, keep runs of every version of the code.

    Raises:
        ValueError: the folder is not a study's, holds no run, or has no such roadmap.
    """
    study = _read_study(study_dir)
    config = study["config"]
    regime = ablations.get_regime(config["regime"])
    recorded, known = study["designs"], study["roadmaps"]
    if roadmap_name is not None and roadmap_name not in known:
        roadmap_name = Path(roadmap_name).stem  # the file that `all` was given
    if roadmap_name is not None and roadmap_name not in known:
        raise ValueError(f"{study_dir} has no roadmap {roadmap_name!r}: choose {', '.join(known)}")
    roadmap = known[roadmap_name or next(iter(known))]
    steps = roadmap.steps_in(regime)
    own = [design for design in recorded if design.roadmap == roadmap]
    names = [step.name for step in steps] + [row.name for design in own for row in design.variants]
    others = {row.name for design in recorded for row in design.variants} - set(names)
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    runs, left_out = _read_runs(study_dir, study, order, others)
    runs = _agreeing(runs, left_out, _test_set, lambda *_: "its test images or labels differ")
    if not mixed_code:
        runs = _agreeing(runs, left_out, _code, _other_code)
    by_step = [[run for run in runs if run.step == name] for name in order]
    in_plan = {
        name for plan in study["plans"] for family in plan.families for name in family.variants
    }
    begun = {run.step for run in runs} | {run.name.rpartition("/")[0] for run in left_out}
    kept = [run for own in by_step for run in _agreeing(own, left_out, _variant, _other_variant)]
    return StudyRecord(
        name=study["name"],
        hash=study["hash"],
        config=config,
        dataset=study["dataset"],
        regime=config["regime"],
        roadmap=roadmap,
        first_roadmap=next(iter(known)),
        steps=tuple(step for step in steps if step.name in in_plan | begun),
        path_requested=not own or any(one.spec.kind == "cumulative" for one in own),
        designs=tuple(
            one for one in own if one.spec.kind != "cumulative" and one.spec.sweep is None
        ),
        sweeps=tuple(one for one in own if one.spec.sweep is not None),
        runs=tuple(sorted(kept, key=lambda run: (order[run.step], run.seed))),
        left_out=tuple(sorted(left_out, key=lambda run: run.name)),
        warnings=tuple(_mixtures(kept)),
        plans=study["plans"],
    )


def roadmaps(study_dir: Path) -> Collection[str]:
    """The study's roadmaps in the order of their requests; empty if there is no study yet."""
    if not (study_dir / "study.json").exists():
        return ()
    return tuple(_read_study(study_dir)["roadmaps"])


def _read_study(study_dir: Path) -> dict[str, Any]:
    """The content of study.json, with its data set, plans, designs and roadmaps read.

    Raises:
        ValueError: it is missing or damaged.
    """
    path = study_dir / "study.json"
    if not path.exists():
        raise ValueError(f"{study_dir} is not a study's folder: it has no study.json")
    study = read_study(study_dir)
    try:
        regime = ablations.get_regime(study["config"]["regime"])
        study["dataset"] = DatasetRecord(**study["dataset"])
        study["plans"] = plans_of(study)
        recorded = [designs.recorded(record, regime) for record in study.get("designs", [])]
        config = study["config"]
        if not (config["recipe"] and config["resolution"] and study["name"] and study["hash"]):
            raise KeyError
    except (KeyError, TypeError):
        raise ValueError(f"{path} does not describe a study: a field is missing or wrong") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    known = {design.roadmap.name: design.roadmap for design in recorded}
    paper = {ablations.PAPER.name: ablations.PAPER}
    return {**study, "designs": recorded, "roadmaps": known or paper}


def _read_runs(
    study_dir: Path,
    study: Mapping[str, Any],
    order: Mapping[str, int],
    others: Collection[str],
) -> tuple[list[RunRecord], list[LeftOut]]:
    """The runs of the steps in `order`, and those left out; `others` belong to other roadmaps."""
    runs: list[RunRecord] = []
    left_out: list[LeftOut] = []
    files = ("config.json", "metrics.jsonl", "result.json")
    begun = run_folders(study_dir)
    folders = [run for run in begun if any((run / name).exists() for name in files)]
    if not folders:
        raise ValueError(f"{study_dir} holds no run yet; train a step of the study first")
    index = Index(study_dir)
    for folder in sorted(folders, key=lambda run: order.get(run.parent.name, len(order))):
        step, seed = folder.parent.name, int(folder.name.removeprefix("seed-"))
        if step in others:
            continue
        try:
            if step not in order:
                raise OddRun(f"{step!r} is not a step of the study's regime")
            home = index.result_dir(folder)
            run = _read_run(home, step, seed, study)
            runs.append(run if home == folder else replace(run, alias_of=home.parent.name))
        except OddRun as odd:
            left_out.append(LeftOut(f"{step}/{folder.name}", str(odd)))
    return runs, left_out


def _read_run(folder: Path, step: str, seed: int, study: Mapping[str, Any]) -> RunRecord:
    """Read and check the run in a folder.

    Raises:
        OddRun: it belongs to another study, is damaged, or contradicts itself.
    """
    dataset, study_hash = study["dataset"], study["hash"]
    config = _read_object(folder / "config.json")
    if config.get("study_hash") != study_hash:
        raise OddRun(
            f"it was made by another config (hash {config.get('study_hash')!r}, not {study_hash!r})"
        )
    # Nothing is computed from the environment: a missing one costs the run only its provenance.
    environment = folder / "environment.json"
    known = _read_object(environment) if environment.exists() else {}
    finished = (folder / "result.json").exists()
    metrics = _read_metrics(folder / "metrics.jsonl", finished=finished)
    if not finished:
        return RunRecord(step, seed, config, metrics, None, known)

    result = _read_object(folder / "result.json")
    measured = [key for key in MEASURED if result.get(key) is not None]
    _require_numbers(result, [*RESULTS, *measured], "result.json")
    _require_numbers(result.get("seconds"), (*SECONDS, "total"), "result.json")
    epochs = config.get("recipe", {}).get("epochs", result["epochs"])
    if not len(metrics) == result["epochs"] == epochs:
        raise OddRun(
            f"metrics.jsonl has {len(metrics)} epochs, result.json {result['epochs']:g} and its "
            f"recipe {epochs}"
        )
    predictions = _read_predictions(folder / "predictions.csv", len(dataset.classes))
    count = len(predictions.label)
    if not count == result["test_images"] == dataset.test:
        raise OddRun(
            f"predictions.csv has {count} images, result.json {result['test_images']:g} and the "
            f"study {dataset.test}"
        )
    top1 = 100 * float(predictions.correct.mean())
    if abs(top1 - result["top1"]) >= 50 / count:  # half an image
        raise OddRun(
            f"result.json has {result['top1']:.4f} % top-1, but predictions.csv gives {top1:.4f} %"
        )
    labels, best = predictions.label.tolist(), predictions.top1.tolist()
    collapsed = collapse(labels, best, len(dataset.classes))
    return RunRecord(step, seed, config, metrics, result, known, predictions, collapsed)


def _read_object(path: Path) -> dict[str, Any]:
    return _parse(_read_text(path), path.name)


def _read_text(path: Path) -> str:
    try:
        return read_bytes(path).decode()
    except (OSError, UnicodeDecodeError):
        why = "cannot be read" if path.exists() else "is missing"
        raise OddRun(f"{path.name} {why}") from None


def _not_finite(constant: str) -> None:
    raise ValueError(f"{constant} is not a finite number")


def _parse(text: str, name: str) -> dict[str, Any]:
    """The object in a JSON text; OddRun for anything else, including NaN and infinity."""
    try:
        value = json.loads(text, parse_constant=_not_finite)
    except (ValueError, RecursionError) as error:
        raise OddRun(f"{name} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise OddRun(f"{name} is damaged: it is not a JSON object")
    return value


def _require_numbers(record: object, keys: Iterable[str], name: str) -> None:
    for key in keys:
        value = record.get(key) if isinstance(record, dict) else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise OddRun(f"{name} has no number {key!r}")


def _read_metrics(path: Path, *, finished: bool) -> tuple[Mapping[str, Any], ...]:
    """One record an epoch. In an unfinished run, a line that is being written does not count."""
    if not path.exists() and not finished:
        return ()
    text = _read_text(path)
    if not finished:
        text = text[: text.rfind("\n") + 1]
    records = []
    for number, line in enumerate(filter(str.strip, text.splitlines()), start=1):
        name = f"{path.name} (epoch {number})"
        record = _parse(line, name)
        _require_numbers(record, METRICS, name)
        _require_numbers(record.get("seconds"), SECONDS, name)
        if record["epoch"] != number:
            raise OddRun(f"{path.name} has epoch {record['epoch']} as number {number}")
        records.append(record)
    return tuple(records)


def _read_predictions(path: Path, classes: int) -> Predictions:
    try:
        read_bytes(path)  # a pipe or a device is no file
        table = pd.read_csv(path, dtype={"image": str}, na_filter=False).sort_values("image")
        label, top1 = (table[name].to_numpy(dtype=np.int16) for name in ("label", "top1"))
        p_top1 = table["p_top1"].to_numpy(dtype=np.float32)
        images = "\n".join(table["image"])
    except KeyError as error:
        raise OddRun(f"{path.name} has no column {error}") from None
    except (OSError, ValueError) as error:
        raise OddRun(f"{path.name} is damaged: {error}") from None
    if not np.isin(np.concatenate([label, top1]), np.arange(classes)).all():
        raise OddRun(f"{path.name} has a label that is not one of the {classes} classes")
    digest = hashlib.sha256(images.encode() + label.tobytes()).hexdigest()
    return Predictions(label, top1, p_top1, digest)


# Keys by which runs are compared; None where a run has none.
def _test_set(run: RunRecord) -> object:
    return run.predictions and run.predictions.digest


def _variant(run: RunRecord) -> object:
    return run.identity.get("variant_digest", "unknown")


def _code(run: RunRecord) -> object:
    return run.result and run.result.get("code_version", "unknown")


def _other_code(odd: RunRecord, kept: RunRecord) -> str:
    return (
        f"its code version is {_code(odd)}, other runs' is {_code(kept)}; train it again with "
        f"--overwrite {odd.step}, or report all versions together with --mixed-code"
    )


def _other_variant(odd: RunRecord, kept: RunRecord) -> str:
    changes = difference({**kept.identity, "seed": 0}, {**odd.identity, "seed": 0})
    return (
        f"it is not what {kept.name} is: {first_few(changes)}; train it again with --overwrite "
        f"{odd.step}"
    )


def _agreeing(
    runs: list[RunRecord],
    left_out: list[LeftOut],
    key: Callable[[RunRecord], object],
    reason: Callable[[RunRecord, RunRecord], str],
) -> list[RunRecord]:
    """Keep the runs that share the commonest value of `key`, the first of equally common ones.

    `reason` gets a run that is left out and one that is kept. Runs without a value stay.
    """
    values = [value for run in runs if (value := key(run)) is not None]
    if len(set(values)) <= 1:
        return runs
    commonest = max(dict.fromkeys(values), key=values.count)
    kept = next(run for run in runs if key(run) == commonest)
    odd = [run for run in runs if key(run) not in (None, commonest)]
    left_out.extend(LeftOut(run.name, reason(run, kept)) for run in odd)
    return [run for run in runs if run not in odd]


def _mixtures(runs: Iterable[RunRecord]) -> Iterable[str]:
    """A sentence for each thing outside the config that the finished runs do not share."""
    finished = [run for run in runs if run.result is not None]
    for what, key in (
        ("code versions", "code_version"),
        ("devices", "device"),
        ("versions of torch", "torch"),
        ("versions of torchvision", "torchvision"),
    ):
        names: dict[str, list[str]] = {}
        for run in finished:
            record = {**run.environment, **(run.result or {})}
            names.setdefault(str(record.get(key, "unknown")), []).append(run.name)
        if len(names) > 1:
            values = "; ".join(f"{value}: {first_few(own)}" for value, own in sorted(names.items()))
            yield f"These runs were made with {len(names)} different {what} ({values})."
