"""Collect a study's folder: which runs may be reported together, which may not, and what is
missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ablations
from ablations import designs
from report.checks import Listing, OddRun, RunRecord, read_object, read_run
from studies.identity import difference
from studies.index import Index, run_folders
from studies.plan import Noted, noted
from utils.text import first_few

if TYPE_CHECKING:
    from ablations import Roadmap, Step
    from ablations.designs import Design


@dataclass(frozen=True)
class LeftOut:
    """A run that is not reported, and the reason as the end of a sentence about it."""

    name: str
    reason: str


@dataclass(frozen=True)
class DatasetRecord:
    """What study.json says about the images; sizes in images."""

    name: str
    description: str
    synthetic: bool
    classes: tuple[str, ...]
    train: int
    validation: int
    test: int
    skipped: Mapping[str, tuple[str, ...]]
    """Names of the images that were left out because they cannot be read, by split; the sizes are
    without them."""


@dataclass(frozen=True)
class StudyRecord:
    """All that a report is made of. `runs` hold together: one config, one test set, one network a
    step."""

    name: str
    hash: str
    config: Mapping[str, Any]
    dataset: DatasetRecord
    regime: str
    roadmap: Roadmap
    first_roadmap: str
    """Name of the first that the study was asked for."""
    steps: tuple[Step, ...]
    """Of the roadmap that is walked step by step."""
    designs: tuple[Design, ...]
    """What else was asked for."""
    sweeps: tuple[Design, ...]
    """Designs whose rows were trained with several values of a field of the recipe."""
    runs: tuple[RunRecord, ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    plans: tuple[Noted, ...] = ()
    """The plan that was written first, and what became of it."""

    @property
    def oddities(self) -> tuple[str, ...]:
        """A sentence for each run that is left out, and for each thing that the others do not
        share."""
        return (
            *(f"{run.name} is left out: {run.reason}." for run in self.left_out),
            *self.warnings,
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that any run of the study has."""
        return tuple(sorted({run.seed for run in self.runs}))

    @property
    def all_finished(self) -> tuple[RunRecord, ...]:
        return tuple(run for run in self.runs if run.result is not None)

    def finished(self, step: str) -> tuple[RunRecord, ...]:
        return tuple(run for run in self.all_finished if run.step == step)

    def unfinished(self, step: str) -> tuple[RunRecord, ...]:
        return tuple(run for run in self.runs if run.step == step and run.result is None)


def read(study_dir: Path, asked: str | None = None, *, mixed_code: bool = False) -> StudyRecord:
    """Read everything that a report on a roadmap of the study needs, the first that it was asked
    for if none is named.

    With `mixed_code` runs of every version of the code.

    Raises:
        ValueError: the folder is not a study's, holds no run at all, or was not asked for the
            roadmap.
    """
    name, study_hash, config, dataset, plans = _read_description(study_dir)
    regime = ablations.REGIMES[config["regime"]]
    noted = _read_designs(study_dir, regime)
    known = _roadmaps(noted)
    if asked is not None and asked not in known:
        raise ValueError(
            f"{study_dir} was not asked for the roadmap {asked!r}: choose {', '.join(known)}"
        )
    roadmap = known[asked or next(iter(known))]
    rows, its = roadmap.steps_in(regime), [design for design in noted if design.roadmap == roadmap]
    others = {row.name for design in noted for row in design.variants}
    names = [step.name for step in rows] + [row.name for design in its for row in design.variants]
    order = {row: number for number, row in enumerate(dict.fromkeys(names))}
    runs: list[RunRecord] = []
    left_out: list[LeftOut] = []
    listing: Listing | None = None
    folders, index = _run_folders(study_dir, order), Index(study_dir)
    if not folders:
        raise ValueError(f"{study_dir} holds no run yet; train a step of the study first")
    for folder, step, seed in folders:
        if step not in order and step in others:
            continue
        try:
            if step not in order:
                raise OddRun(f"{step!r} is not a step of the regime {config['regime']!r}")
            home = index.home(folder)
            run = read_run(
                home,
                step=home.parent.name,
                seed=seed,
                study_hash=study_hash,
                classes=len(dataset.classes),
                test_images=dataset.test,
                listing=listing,
            )
            listing = run.predictions.listing if run.predictions else listing
            runs.append(run if home == folder else replace(run, step=step, made_as=run.step))
        except OddRun as odd:
            left_out.append(LeftOut(f"{step}/{folder.name}", str(odd)))
    runs = _agreeing(
        runs,
        left_out,
        _images,
        lambda *_: "its test images or their labels differ from other runs'",
    )
    if not mixed_code:
        runs = _agreeing(runs, left_out, _code, _other_code)
    for step_name in order:
        mine = [run for run in runs if run.step == step_name]
        kept = _agreeing(mine, left_out, _variant, _other_variant)
        kept = _agreeing(
            kept,
            left_out,
            _network,
            lambda *_: "its network differs from other runs' of the same step",
        )
        runs = [run for run in runs if run.step != step_name or run in kept]
    runs.sort(key=lambda run: (order[run.step], run.seed))
    warnings = tuple(_mixtures(runs))
    return StudyRecord(
        name=name,
        hash=study_hash,
        config=config,
        dataset=dataset,
        regime=config["regime"],
        roadmap=roadmap,
        first_roadmap=next(iter(known)),
        steps=rows,
        designs=tuple(
            design
            for design in its
            if design.spec.kind != "cumulative" and design.spec.sweep is None
        ),
        sweeps=tuple(design for design in its if design.spec.sweep is not None),
        runs=tuple(runs),
        left_out=tuple(sorted(left_out, key=lambda run: run.name)),
        warnings=warnings,
        plans=plans,
    )


def roadmaps(study_dir: Path) -> Collection[str]:
    """The roadmaps that a study was asked for, the first one first; none of a study that is not yet
    there."""
    if not (study_dir / "study.json").exists():
        return ()
    regime = ablations.REGIMES[_read_description(study_dir)[2]["regime"]]
    return _roadmaps(_read_designs(study_dir, regime)).keys()


def _roadmaps(noted: Iterable[Design]) -> dict[str, ablations.Roadmap]:
    return {design.roadmap.name: design.roadmap for design in noted} or {
        ablations.PAPER.name: ablations.PAPER
    }


def _read_designs(study_dir: Path, regime: ablations.Regime) -> list[Design]:
    """Raises ValueError where study.json states one that cannot be made."""
    noted = read_object(study_dir / "study.json").get("designs", [])
    try:
        if not isinstance(noted, list):
            raise ValueError(f"its designs are {noted!r}")
        return [designs.recorded(record, regime) for record in noted]
    except ValueError as error:
        raise ValueError(f"{study_dir / 'study.json'} is damaged: {error}") from None


def _read_description(
    study_dir: Path,
) -> tuple[str, str, dict[str, Any], DatasetRecord, tuple[Noted, ...]]:
    path = study_dir / "study.json"
    if not path.is_file():
        raise ValueError(f"{study_dir} is not a study's folder: it has no study.json")
    try:
        study = read_object(path)
        config, data = study["config"], study["dataset"]
        dataset = DatasetRecord(
            name=str(data["name"]),
            description=str(data["description"]),
            synthetic=bool(data["synthetic"]),
            classes=tuple(str(name) for name in data["classes"]),
            train=int(data["train"]),
            validation=int(data["validation"]),
            test=int(data["test"]),
            skipped={str(part): tuple(map(str, names)) for part, names in data["skipped"].items()},
        )
        regime = str(config["regime"])
        name, study_hash = str(study["name"]), str(study["hash"])
        if not isinstance(config["recipe"], dict) or dataset.test < 1:
            raise TypeError
    except OddRun as odd:
        raise ValueError(f"{study_dir} has no usable description: {odd}") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"{path} does not describe a study: a field is missing or wrong") from None
    if regime not in ablations.REGIMES:
        known = ", ".join(ablations.REGIMES)
        raise ValueError(f"{path} names the regime {regime!r}, which is none of {known}")
    try:
        plans = noted(study)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; restore it") from None
    return name, study_hash, {**config, "regime": regime}, dataset, plans


def _run_folders(study_dir: Path, order: Mapping[str, int]) -> list[tuple[Path, str, int]]:
    """(folder, step, seed) of everything that looks like a run, in report order."""
    files = ("config.json", "metrics.jsonl", "result.json")
    found = [
        folder
        for folder in run_folders(study_dir)
        if any((folder / name).exists() for name in files)
    ]
    named = [
        (folder, folder.parent.name, int(folder.name.removeprefix("seed-"))) for folder in found
    ]
    return sorted(named, key=lambda item: order.get(item[1], len(order)))


# What runs are grouped by: the same for all that may be reported together, None where a run is not
# asked.
def _images(run: RunRecord) -> object:
    return run.predictions and run.predictions.listing.digest


def _variant(run: RunRecord) -> object:
    return run.identity.get("variant_digest", "unknown")


def _network(run: RunRecord) -> object:
    return run.result and (
        run.result["params"],
        run.result["gflops_fvcore"],
        run.result["gflops_paper_convention"],
    )


def _code(run: RunRecord) -> object:
    return run.result and run.result.get("code_version", "unknown")


def _other_code(odd: RunRecord, kept: RunRecord) -> str:
    return (
        f"its code version is {_code(odd)}, other runs' is {_code(kept)}; make it again with "
        f"--overwrite {odd.step}, "
        "or report all versions together with --mixed-code"
    )


def _other_variant(odd: RunRecord, kept: RunRecord) -> str:
    found = difference({**kept.identity, "seed": 0}, {**odd.identity, "seed": 0})
    return (
        f"it is not what {kept.name} is: {first_few(found)}; make it again with --overwrite "
        f"{odd.step}"
    )


def _agreeing(
    runs: list[RunRecord],
    left_out: list[LeftOut],
    key: Callable[[RunRecord], object],
    reason: Callable[[RunRecord, RunRecord], str],
) -> list[RunRecord]:
    """Keep the runs that share the commonest value of `key`; the others are left out by name.

    `reason` gets one that is left out and one that is kept. Runs without a value stay. Of two
    values that are equally common, the one met first in report order is kept.
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
    """One sentence for each thing outside the config that the reported runs do not share."""
    finished = [run for run in runs if run.result is not None]
    for what, key, of_result in (
        ("code versions", "code_version", True),
        ("devices", "device", True),
        ("versions of torch", "torch", False),
        ("versions of torchvision", "torchvision", False),
    ):
        names: dict[str, list[str]] = {}
        for run in finished:
            record = (run.result or {}) if of_result else run.environment
            names.setdefault(str(record.get(key, "unknown")), []).append(run.name)
        if len(names) > 1:
            listed = "; ".join(
                f"{value}: {_shorten(members)}" for value, members in sorted(names.items())
            )
            yield f"These runs were made with {len(names)} different {what} ({listed})."


def _shorten(names: list[str], limit: int = 6) -> str:
    if len(names) <= limit:
        return ", ".join(names)
    return f"{', '.join(names[:limit])} and {len(names) - limit} more"
