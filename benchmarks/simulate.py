"""Test the statistics as a product: thousands of studies of known truth, judged as a study is.

    python -m benchmarks.simulate
    python -m benchmarks.simulate --only design --studies 20 --out /tmp/small.json

The first writes benchmarks/results/statistics.json, odd_worlds.csv next to it, and the tables in
docs/statistics. With --only, scenarios with other names keep their records. Every study follows
from its scenario's name and its number, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ablations.designs import DesignSpec
from benchmarks.worlds import NOTHING, SEVERAL, DesignWorld, World, measurements
from report.judgement import QUESTIONS, Judgement, judge_effects
from report.sequential import judge, next_seeds
from report.statistics import Measurements, VarianceComponents
from studies.plan import ANALYSES, Family, Plan

ROOT = Path(__file__).parents[1]
RESULT, TABLES = ROOT / "benchmarks/results/statistics.json", ROOT / "docs/statistics"
_BLOCK = 25
"""Studies that a process judges at a time."""
FIXED = {"fixed": (3,)}
NONE = (0.0,) * 16
SOME = (2.0, 0.5, 0.0, -1.0, 1.0, 0.0, -0.5, 0.3, 0.0, 0.5, 0.0, 0.0, -0.3, 1.0, 0.3, 0.0)


@dataclass(frozen=True)
class Scenario:
    """A world in which studies are drawn, and the analyses by which each is judged."""

    name: str
    world: World | DesignWorld
    plans: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Name to analyses; empty for a design."""


def scenarios() -> Iterator[Scenario]:
    """Studies of 16 steps, 10,000 images, three seeds and a deviation of 0.3, and variations."""
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
    truths = {"no effect": NONE, "effects": SOME}
    for word, effects in truths.items():
        for name, changes in varied.items():
            world = replace(usual, effects=effects, **changes)
            yield Scenario(f"{word}, {name}", world, {"fixed": (world.seeds,)})
    for word, effects in truths.items():
        for name, changes in odd_worlds().items():
            yield Scenario(
                f"odd: {word}, {name}", replace(usual, effects=effects, **changes), FIXED
            )
    for count in (2, 3, 5):
        world = replace(usual, effects=(0.0,), seeds=count)
        yield Scenario(f"one step without effect, {count} seeds", world, {"fixed": (count,)})
    for word, effects in truths.items():
        for deviation in (0.1, 0.3):
            world = replace(usual, effects=effects, seeds=10, deviation=deviation)
            plans = {"5 seeds": (5,), "10 seeds": (10,), "until resolved": ANALYSES}
            yield Scenario(f"{word}, deviation {deviation:g}, up to 10 seeds", world, plans)
    for name, spec in designs().items():
        for worth, word in ((NOTHING, "no effect"), (SEVERAL, "effects")):
            for count in (2, 3, 5):
                scenario = f"design {name}, {word}, {count} seeds"
                yield Scenario(scenario, DesignWorld(spec, worth, count))


def odd_worlds() -> dict[str, dict[str, Any]]:
    """Worlds that break what the statistics assume: that variants share one normal spread."""
    row = {"apart": (4, 5)}
    unequal = tuple(3 ** (place / 16 - 0.5) for place in range(17))
    return {
        "one run at chance": {"at_chance": 5, **row},
        "one row of eight times the spread": {"spreads": (1,) * 5 + (8,) + (1,) * 11, **row},
        "spreads unequal by three": {"spreads": unequal, "apart": (15,)},
        "t with three degrees of freedom": {"heavy_tails": True},
    }


def designs() -> dict[str, DesignSpec]:
    """Designs of the paper's roadmap. Three of the factors must come in their order."""
    base = "training-recipe"
    chain = ("resnext", "inverted-bottleneck", "large-kernels")
    factors = ("stage-ratio", "layer-norm", "gelu")
    four = (*factors, "separate-downsampling")
    seven = ("stage-ratio", "patchify-stem", *chain, "gelu", "layer-norm")
    return {
        "leave-one-out": DesignSpec("leave-one-out"),
        "one-at-a-time": DesignSpec("one-at-a-time"),
        "factorial of 3": DesignSpec("factorial", base, factors),
        "half factorial of 4": DesignSpec("factorial", base, four, fraction=2),
        "orders of 4, all": DesignSpec("orders", base, ("macro-design", *chain)),
        "orders of 7, 24 of 64 networks": DesignSpec("orders", base, seven, variants_at_most=24),
        "orders of 7, 40 of 64 networks": DesignSpec("orders", base, seven, variants_at_most=40),
    }


Outcome = dict[str, Any]
"""How one study was judged in one way, and what was right and wrong."""


def outcomes(scenario: Scenario, studies: Iterable[int]) -> list[Outcome]:
    """The outcomes of these studies, by number."""
    seen: list[Outcome] = []
    for study in studies:
        # By the scenario's name and the study's number: adding others changes none.
        rng = np.random.default_rng((zlib.crc32(scenario.name.encode()), study))
        if isinstance(scenario.world, DesignWorld):
            seen += _design_outcomes(scenario.world, rng)
        else:
            seen += _step_outcomes(scenario.world, scenario.plans, rng)
    return seen


def _step_outcomes(
    world: World, plans: Mapping[str, tuple[int, ...]], rng: np.random.Generator
) -> Iterator[Outcome]:
    correct, levels = world.draw(rng)
    every, here, effects = measurements(correct), np.diff(levels), np.array(world.effects)
    for name, analyses in plans.items():
        plan = plan_for(world, analyses)
        runs = trained(every, plan)
        judged = judge(runs, plan)
        for question in QUESTIONS:
            truth = here if question == "fixed" else effects
            apart = np.isin(np.arange(len(judged)), world.apart)
            own = [one for one, off in zip(judged, apart, strict=True) if not off]
            scores = _scores(own, question, effects[~apart], truth[~apart])
            if apart.any():
                odd = [one for one, off in zip(judged, apart, strict=True) if off]
                scored = _scores(odd, question, effects[apart], truth[apart])
                scores |= {f"{key}_apart": scored[key] for key in ("covered", "half_width")}
            yield {"plan": name, "question": question, "runs": len(runs.seed), **scores}


def _design_outcomes(world: DesignWorld, rng: np.random.Generator) -> Iterator[Outcome]:
    design, correct, here = world.draw(rng)
    runs, plan = measurements(correct), Plan((), ())
    judged = judge_effects(
        VarianceComponents(runs), design.effects, margin=plan.margin, level=plan.level
    )
    effects = world.effects(world.levels)
    parts = [one.estimate.uncertainty["new"] for one in judged]
    shares = [part.orders / (part.variance or 1.0) for part in parts]
    for question in QUESTIONS:
        truth = here if question == "fixed" else effects
        scores = _scores(judged, question, effects, truth)
        if question == "new":
            for one, value in zip(judged, truth, strict=True):
                answer = one.answers["new"]
                covered = float(answer.low <= value <= answer.high)
                scores[f"covered, {one.effect.name}"] = covered
        common = {"runs": len(runs.seed), "from_orders": float(np.mean(shares))}
        yield {"plan": "design", "question": question, **common, **scores}


def plan_for(world: World, analyses: Sequence[int], **options: Any) -> Plan:
    """One family: each variant against the one before."""
    count = len(world.effects)
    pairs = tuple((f"variant-{i}", f"variant-{i - 1}") for i in range(1, count + 1))
    return Plan((Family("steps", pairs, tuple(analyses)),), tuple(range(world.seeds)), **options)


def trained(every: Measurements, plan: Plan) -> Measurements:
    """The runs that the plan trains out of all that could be: all its seeds, or by its rule."""
    if not plan.sequential:
        return every.with_seeds(plan.seeds[: plan.analyses[0]])
    kept = np.zeros(len(every.seed), dtype=bool)
    while more := next_seeds(every.select(kept) if kept.any() else None, plan):
        for name, seeds in more.items():
            kept |= (every.variant == every.variants.index(name)) & np.isin(every.seed, seeds)
    return every.select(kept)


def _scores(
    judged: Sequence[Judgement], question: str, effects: np.ndarray, truth: np.ndarray
) -> dict[str, float]:
    """Rate the answers to one question; the truth of "fixed" is that on the drawn images.

    On a fixed test set a difference is never exactly 0. A verdict on a step without effect is then
    not wrong, but it is counted, because it would not be repeated on other images.
    """
    answers = [one.answers[question] for one in judged]
    one_seed = any(one.answer_to(question) is None for one in judged)
    low, high = (np.array([getattr(one, end) for one in answers]) for end in ("low", "high"))
    signs = np.array([{"gain": 1, "loss": -1}.get(one.verdict, 0) for one in answers])
    none = np.array([one.verdict == "no difference" for one in answers])
    real = effects != 0
    found = (signs[real] == np.sign(effects[real])).mean() if real.any() else np.nan
    wrong = (signs != 0) & (signs != np.sign(effects))
    return {
        "covered": np.nan if one_seed else float(((low <= truth) & (truth <= high)).mean()),
        "half_width": float((high - low).mean() / 2),
        "any_false": float(wrong.any()),
        "any_false_no_difference": float((none & (np.abs(truth) >= 0.3)).any()),
        "found": float(found),
        "no_difference": float(none.mean()),
    }


def summary(scenario: Scenario, seen: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One record for each plan and question: means over the studies."""
    table = pd.DataFrame(seen)
    records = []
    for (plan, question), own in table.groupby(["plan", "question"], sort=False):
        means = own.drop(columns=["plan", "question"]).dropna(axis=1, how="all").mean().round(4)
        key = {"scenario": scenario.name, "plan": plan, "question": question}
        records.append({**key, "studies": len(own), **means.to_dict()})
    return records


def tables(records: Sequence[Mapping[str, Any]]) -> dict[str, pd.DataFrame]:
    """File name to table, in percent and points: fixed plans, odd worlds, interim analyses and
    designs."""
    table = pd.DataFrame(records)
    effects = [name for name in table if name.startswith("covered, ")]
    table["least_covered_effect"] = table[effects].min(axis=1)
    percent = ["covered", "any_false", "any_false_no_difference", "found", "from_orders"]
    percent += ["least_covered_effect", "covered_apart"]
    table[percent] = (100 * table[percent]).round(1)
    widths = ["half_width", "half_width_apart"]
    table[widths] = table[widths].round(2)
    table["runs"] = table["runs"].round()
    stopping = table["scenario"].str.contains("up to 10 seeds")
    columns = {
        "steps": ["covered", "half_width", "any_false", "found"],
        "stopping": ["runs", "any_false", "any_false_no_difference", "found", "covered"],
        "designs": ["runs", "covered", "least_covered_effect", "half_width", "any_false", "found"],
    }
    columns["designs"].append("from_orders")
    columns["odd_worlds"] = ["covered", "half_width", "any_false", "any_false_no_difference"]
    columns["odd_worlds"] += ["found", "covered_apart", "half_width_apart"]
    odd = table["scenario"].str.startswith("odd: ")
    chosen = {
        "steps": table[(table["plan"] == "fixed") & ~odd],
        "odd_worlds": table[odd],
        "stopping": table[stopping & (table["question"] == "new")],
        "designs": table[table["plan"] == "design"],
    }
    return {
        name: own[["scenario", "plan", "question", *columns[name]]] for name, own in chosen.items()
    }


def main() -> None:
    """Simulate everything, or a part of it."""
    parser = argparse.ArgumentParser(description="Test the statistics on simulated studies.")
    parser.add_argument("--studies", type=int, default=400, help="of each scenario")
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a JSON file instead of the committed ones")
    options = parser.parse_args()
    chosen = [one for one in scenarios() if options.only in one.name]
    blocks = [
        (one, range(start, min(start + _BLOCK, options.studies)))
        for one in chosen
        for start in range(0, options.studies, _BLOCK)
    ]
    seen: dict[str, list[Outcome]] = {one.name: [] for one in chosen}
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for (one, studies), block in zip(blocks, pool.imap(_outcomes, blocks), strict=True):
            print(f"{one.name}: {studies.stop} studies", flush=True)
            seen[one.name] += block
    new = {one.name: summary(one, seen[one.name]) for one in chosen}
    if options.out is None and options.only:
        for record in json.loads(RESULT.read_text(encoding="utf-8")):
            if record["scenario"] not in seen:
                new.setdefault(record["scenario"], []).append(record)
    records = [record for one in scenarios() for record in new.get(one.name, [])]
    (options.out or RESULT).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    if options.out is None:
        for name, table in tables(records).items():
            table.to_csv(
                (RESULT.parent if name == "odd_worlds" else TABLES) / f"{name}.csv", index=False
            )


def _outcomes(block: tuple[Scenario, range]) -> list[Outcome]:
    return outcomes(*block)


if __name__ == "__main__":
    main()
