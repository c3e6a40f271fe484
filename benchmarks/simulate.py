"""The statistics tested as a product: thousands of studies of known truth, judged as a study is.

    python -m benchmarks.simulate     writes benchmarks/results/statistics.json and the tables of
    docs/statistics.md python -m benchmarks.simulate --only design     only the scenarios with this
    in their name; others stay as they are python -m benchmarks.simulate --studies 20 --out
    /tmp/small.json      a minute's look, no page

Every study follows from its scenario's name and its number, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from report.contrast import holm
from report.effects import EffectJudgement, judge_effects
from report.variance import Measured, VarianceComponents
from scipy import stats
from tabulate import tabulate

from ablations.designs import DesignSpec
from benchmarks.design_worlds import NOTHING, SEVERAL, DesignWorld
from benchmarks.worlds import World
from report.judgement import Judgement
from report.sequential import judge, next_seeds
from studies.plan import Family, Images, Plan

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks/results/statistics.json", ROOT / "docs/statistics.md"
_BLOCK = 25
"""Studies that a process judges at a time."""
NONE = (0.0,) * 16
SOME = (2.0, 0.5, 0.0, -1.0, 1.0, 0.0, -0.5, 0.3, 0.0, 0.5, 0.0, 0.0, -0.3, 1.0, 0.3, 0.0)
LOOKS = (2, 3, 4, 5, 6, 8, 10)
_QUESTIONS: tuple[Images, ...] = ("new", "these")


@dataclass(frozen=True)
class Scenario:
    """A world in which studies are drawn, and the plans by which each is judged, by name; designs
    have no looks."""

    name: str
    world: World | DesignWorld
    looks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def scenarios() -> Iterator[Scenario]:
    """Studies of 16 steps, 10,000 images, three seeds and a seed deviation of 0.3, and what differs
    from that."""
    usual = World(NONE, seeds=3)
    varied: dict[str, dict[str, Any]] = {
        **{f"{count} seeds": {"seeds": count} for count in (1, 2, 3, 5, 10)},
        "deviation 0.1": {"deviation": 0.1},
        "deviation 0.6": {"deviation": 0.6},
        "5, 3 and 2 seeds in turn": {"seeds": 5, "in_turn": (5, 3, 2)},
        "1,000 images": {"images": 1000},
        "25,250 images": {"images": 25_250},
        "same seeds correlate 0.5": {"correlation": 0.5},
        "steps' deviations differ (x 1.3)": {"unequal": 0.25},
        "steps' deviations differ (x 1.6)": {"unequal": 0.5},
    }
    for effects, word in ((NONE, "no effect"), (SOME, "effects")):
        for name, changes in varied.items():
            world = replace(usual, effects=effects, **changes)
            yield Scenario(f"{word}, {name}", world, {"fixed": (world.seeds,)})
    for count in (2, 3, 5):
        yield Scenario(
            f"one step without effect, {count} seeds",
            replace(usual, effects=(0.0,), seeds=count),
            {"fixed": (count,)},
        )
    for effects, word in ((NONE, "no effect"), (SOME, "effects")):
        for deviation in (0.1, 0.3):
            world = replace(usual, effects=effects, seeds=10, deviation=deviation)
            plans = {"5 seeds": (5,), "10 seeds": (10,), "until resolved": LOOKS}
            yield Scenario(f"{word}, deviation {deviation:g}, up to 10 seeds", world, plans)
    for name, request in designs().items():
        for worth, word in ((NOTHING, "no effect"), (SEVERAL, "effects")):
            for count in (2, 3, 5):
                yield Scenario(
                    f"design {name}, {word}, {count} seeds", DesignWorld(request, worth, count)
                )


def designs() -> dict[str, DesignSpec]:
    """Of the paper's roadmap; three of the factors have to come in their order, the others whenever
    they like."""
    base = "training-recipe"
    chain = ("resnext", "inverted-bottleneck", "large-kernels")
    factors = ("stage-ratio", "layer-norm", "gelu")
    seven = ("stage-ratio", "patchify-stem", *chain, "gelu", "layer-norm")
    return {
        "leave-one-out": DesignSpec("leave-one-out"),
        "one-at-a-time": DesignSpec("one-at-a-time"),
        "factorial of 3": DesignSpec("factorial", base, factors),
        "half factorial of 4": DesignSpec(
            "factorial", base, (*factors, "separate-downsampling"), fraction=2
        ),
        "orders of 4, all": DesignSpec("orders", base, ("macro-design", *chain)),
        "orders of 7, 24 of 64 networks": DesignSpec("orders", base, seven, variants_at_most=24),
        "orders of 7, 40 of 64 networks": DesignSpec("orders", base, seven, variants_at_most=40),
    }


Outcomes = dict[str, list[dict[str, float]]]
"""By the way of judging, what came out of each study."""


def simulate(scenario: Scenario, studies: int) -> list[dict[str, Any]]:
    """One record for each way of judging, of what came out over so many studies."""
    return summary(scenario, outcomes(scenario, range(studies)))


def outcomes(scenario: Scenario, studies: Iterable[int]) -> Outcomes:
    """What comes out of these studies, by number."""
    seen: Outcomes = {}
    for study in studies:
        # By the scenario's name and the study's number: adding others changes none.
        rng = np.random.default_rng((zlib.crc32(scenario.name.encode()), study))
        world = scenario.world
        found = (
            _of_design(world, rng)
            if isinstance(world, DesignWorld)
            else _of_steps(world, scenario.looks, rng)
        )
        for way, record in found.items():
            seen.setdefault(way, []).append(record)
    return seen


def _of_steps(
    world: World, plans: Mapping[str, tuple[int, ...]], rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    drawn, levels = world.draw(rng)
    every, here, effects = Measured.of(drawn), np.diff(levels), np.array(world.effects)
    found = {}
    for name, looks in plans.items():
        plan = plan_of(world, looks)
        runs = trained(every, plan)
        judged = judge(runs, plan)
        for question in _QUESTIONS:
            record = _outcome(judged.families["steps"], question, effects, here)
            found[f"{name}, {question} images"] = record | {"runs": len(runs.row)}
        if len(looks) == 1 and looks[0] > 0:
            found[f"{name}, the method before"] = before(runs, effects) | {"runs": len(runs.row)}
    return found


def _of_design(world: DesignWorld, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    design, drawn, here = world.draw(rng)
    runs, plan = Measured.of(drawn), Plan((), tuple(range(world.seeds)), (world.seeds,))
    judged = judge_effects(
        VarianceComponents(runs), design.effects, margin=plan.margin, level=plan.level
    )
    effects = world.effects(world.levels)
    found = {
        f"design, {question} images": _outcome(judged, question, effects, here)
        | {
            "runs": len(runs.row),
            "from_orders": float(np.mean([one.shares.orders for one in judged if one.shares])),
        }
        for question in _QUESTIONS
    }
    for one, truth in zip(judged, effects, strict=True):
        if answer := one.new_images:
            found["design, new images"][f"covered, {one.effect.name}"] = float(
                answer.low <= truth <= answer.high
            )
    return found


def summary(scenario: Scenario, seen: Outcomes) -> list[dict[str, Any]]:
    """One record for each way of judging: means over the studies."""
    return [
        {"scenario": scenario.name, "judged": way, "studies": len(records), **_mean(records)}
        for way, records in seen.items()
    ]


def plan_of(world: World, looks: Sequence[int], **how: Any) -> Plan:
    """A family of each row against the one before."""
    pairs = tuple((f"row-{i}", f"row-{i - 1}") for i in range(1, len(world.effects) + 1))
    return Plan((Family("steps", pairs),), tuple(range(world.seeds)), tuple(looks), **how)


def trained(every: Measured, plan: Plan) -> Measured:
    """Of all runs that could be, those that the plan has made: all of its seeds, or as its rule
    asks for them."""
    if not plan.sequential:
        return every.of_seeds(plan.schedule(0))
    kept = np.zeros(len(every.row), dtype=bool)
    while more := next_seeds(every.some(kept) if kept.any() else None, plan):
        for row, seeds in more.items():
            kept |= (every.row == every.rows.index(row)) & np.isin(every.seed, seeds)
    return every.some(kept)


def _outcome(
    found: Sequence[Judgement | EffectJudgement],
    question: Images,
    effects: np.ndarray,
    here: np.ndarray,
) -> dict[str, float]:
    """What is right and wrong in the answers to one question; the truth of "these" is that on the
    drawn images."""
    truth = here if question == "these" else effects
    answers = [one.answer_to(question) for one in found]
    if any(answer is None for answer in answers):  # one seed: nothing is claimed of other seeds
        nothing = np.full((len(found), 2), np.nan)
        none = np.zeros(len(found), dtype=bool)
        return _scores(nothing, np.zeros(len(found)), none, effects, truth) | {"covered": np.nan}
    bounds = np.array([(answer.low, answer.high) for answer in answers if answer])
    verdicts = [answer.verdict for answer in answers if answer]
    signs = np.array([{"gain": 1, "loss": -1}.get(verdict, 0) for verdict in verdicts])
    return _scores(
        bounds,
        signs,
        np.array([verdict == "no difference" for verdict in verdicts]),
        effects,
        truth,
    )


def _scores(
    bounds: np.ndarray, signs: np.ndarray, none: np.ndarray, effects: np.ndarray, truth: np.ndarray
) -> dict[str, float]:
    # Of these images a true difference is never exactly 0; what is said of a step without effect is
    # then not wrong, but it is counted, for it would not be said again.
    wrong = (signs != 0) & (signs != np.sign(effects))
    return {
        "covered": float(((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean()),
        "half_width": float(np.diff(bounds, axis=1).mean() / 2),
        "any_false": float(wrong.any()),
        "any_false_no_difference": float((none & (np.abs(truth) >= 0.3)).any()),
        "found": float((signs[effects != 0] == np.sign(effects[effects != 0])).mean())
        if effects.any()
        else np.nan,
        "no_difference": float(none.mean()),
    }


def before(runs: Measured, effects: np.ndarray) -> dict[str, float]:
    """Until November 2026: a bootstrap over images and seeds (here its limit of many draws), Holm,
    Student.

    The bootstrap over images holds the chance of single images, and so does the spread between
    seeds; a row's deviation is the pooled one or its own, whichever is larger; one seed got a
    verdict "for this seed".
    """
    noise = VarianceComponents(runs)
    spread = np.array(
        [
            runs.accuracy[runs.row == row].var(ddof=1) if n > 1 else 0.0
            for row, n in enumerate(noise.counts)
        ]
    )
    freedom = int((noise.counts - 1).sum())
    pooled = float((spread * (noise.counts - 1)).sum() / freedom) if freedom else 0.0
    seeds = np.maximum(pooled, spread) / noise.counts
    points, halves, p = [], [], []
    for row in range(1, len(noise.counts)):
        weights = np.zeros(len(noise.counts))
        weights[[row, row - 1]] = 1, -1
        between, images = float(seeds[row] + seeds[row - 1]), noise.these_runs(weights).images
        error = (between + images) ** 0.5
        known = [(between, freedom)] if between else []
        df = error**4 / sum(part**2 / count for part, count in [*known, (images, runs.images - 1)])
        points.append(noise.points(weights))
        halves.append(stats.t.isf(0.025, df) * error)
        p.append(2 * stats.t.sf(abs(points[-1]) / error, df))
    signs = np.where(holm(p) < 0.05, np.sign(points), 0)
    bounds = np.stack([np.array(points) - halves, np.array(points) + halves], axis=1)
    return _scores(bounds, signs, np.zeros(len(points), dtype=bool), effects, effects)


def _mean(records: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    found = {key: float(np.mean([record[key] for record in records])) for key in records[0]}
    return {key: None if np.isnan(value) else round(value, 4) for key, value in found.items()}


def tables(records: Sequence[Mapping[str, Any]]) -> str:
    """The tables of docs/statistics.md, in percent and points."""
    fixed: dict[str, dict[str, Mapping[str, Any]]] = {}
    several: list[Mapping[str, Any]] = []
    of_designs: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        if record["judged"].startswith("fixed"):
            fixed.setdefault(record["scenario"], {})[record["judged"].removeprefix("fixed, ")] = (
                record
            )
        elif record["judged"].startswith("design"):
            of_designs.setdefault(record["scenario"], {})[
                record["judged"].removeprefix("design, ")
            ] = record
        elif "these" not in record["judged"]:
            several.append(record)
    ways = ("these images", "new images", "the method before")
    head = ["studies"]
    head += [
        f"{what}: {way}"
        for what in ("coverage", "half-width", "false verdict")
        for way in ("these", "new", "before")
    ]
    head += ["found: these", "new", "before"]
    rows = []
    for name, by_way in fixed.items():
        cells = [
            [_percent(by_way[way]["covered"]) for way in ways],
            [_points(by_way[way]["half_width"]) for way in ways],
        ]
        cells += [[_percent(by_way[way][key]) for way in ways] for key in ("any_false", "found")]
        rows.append([name, *(cell for group in cells for cell in group)])
    first = tabulate(rows, head, tablefmt="pipe", disable_numparse=True)
    head = [
        "studies",
        "judged",
        "runs",
        "false gain or loss",
        "false no difference",
        "found",
        "coverage",
    ]
    rows = [
        [
            record["scenario"],
            record["judged"].removesuffix(", new images"),
            f"{record['runs']:.0f}",
            _percent(record["any_false"]),
            _percent(record["any_false_no_difference"]),
            _percent(record["found"]),
            _percent(record["covered"]),
        ]
        for record in several
        if "before" not in record["judged"]
    ]
    second = tabulate(rows, head, tablefmt="pipe", disable_numparse=True)
    head = [
        "studies",
        "runs",
        "coverage: these",
        "new",
        "least covered effect: new",
        "half-width: these",
        "new",
    ]
    head += ["false verdict: these", "new", "found: these", "new", "variance from orders"]
    rows = []
    for name, by_way in of_designs.items():
        new, both = by_way["new images"], [by_way[way] for way in ways[:2]]
        rows.append(
            [
                name.removeprefix("design "),
                f"{new['runs']:.0f}",
                *(_percent(record["covered"]) for record in both),
                _percent(min(value for key, value in new.items() if key.startswith("covered, "))),
                *(_points(record["half_width"]) for record in both),
                *(_percent(record[key]) for key in ("any_false", "found") for record in both),
                _percent(new["from_orders"] or None),
            ]
        )
    third = tabulate(rows, head, tablefmt="pipe", disable_numparse=True)
    return f"{first}\n\n{second}\n\n{third}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def write_tables(records: Sequence[Mapping[str, Any]], page: Path) -> None:
    """Put the tables between the two marks of the page."""
    text = page.read_text(encoding="utf-8")
    marked = re.compile(r"(<!-- benchmarks.simulate -->\n).*(<!-- end -->)", re.DOTALL)
    page.write_text(
        marked.sub(lambda match: f"{match[1]}\n{tables(records)}\n\n{match[2]}", text),
        encoding="utf-8",
    )


def main() -> None:
    """Simulate everything, or a little of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=400, help="of each scenario")
    parser.add_argument(
        "--only", default="", help="scenarios with this in their name; others keep their records"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, help="a JSON file instead of the one in benchmarks/results and the page"
    )
    options = parser.parse_args()
    asked = [one for one in scenarios() if options.only in one.name]
    blocks = [
        (one, range(at, min(at + _BLOCK, options.studies)))
        for one in asked
        for at in range(0, options.studies, _BLOCK)
    ]
    seen: dict[str, Outcomes] = {one.name: {} for one in asked}
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for (one, studies), found in zip(blocks, pool.imap(_outcomes, blocks), strict=True):
            print(f"{one.name}: {studies.stop} studies", flush=True)
            for way, more in found.items():
                seen[one.name].setdefault(way, []).extend(more)
    records = {one.name: summary(one, seen[one.name]) for one in asked}
    if options.out is None:
        for record in json.loads(RESULT.read_text(encoding="utf-8")) if options.only else []:
            if record["scenario"] not in seen:
                records.setdefault(record["scenario"], []).append(record)
    kept = [record for one in scenarios() for record in records.get(one.name, [])]
    (options.out or RESULT).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if options.out is None:
        write_tables(kept, PAGE)


def _outcomes(asked: tuple[Scenario, range]) -> Outcomes:
    return outcomes(*asked)


if __name__ == "__main__":
    main()
