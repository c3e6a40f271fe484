"""Verdicts for anybody's results: a table of variant, seed and value, judged as a study is."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from tabulate import tabulate

from ablations.designs import Effect
from report.judgement import Judgement, analyse
from report.numbers import NOTHING, interval, signed
from report.plots import forest
from report.statistics import MOST_SEEDS, Measurements, VarianceComponents
from studies.options import JudgeOptions
from utils.markdown import plain, table
from utils.text import did_you_mean, first_few, plural

Result = dict[str, Any]
Format = Literal["text", "markdown", "json", "csv"]
PLOTS = (".png", ".svg", ".pdf")
_RIGHT = {"1": 1, "true": 1, "1.0": 1, "0": 0, "false": 0, "0.0": 0}


def judge(frame: pd.DataFrame, items: pd.DataFrame | None, settings: JudgeOptions) -> Result:
    """Judge a table and make the record that `--format json` prints (see `report.judge`)."""
    names, runs = _read_runs(frame)
    first, pairs = _pairs(names, settings)
    _check(runs, settings)
    sign, level = -1 if settings.lower_is_better else 1, settings.level
    known = runs[np.isfinite(runs["value"])]
    variants = list(dict.fromkeys(known["variant"]))
    measured = Measurements(
        tuple(variants),
        np.array([variants.index(name) for name in known["variant"]], dtype=np.int64),
        known["seed"].to_numpy(),
        np.arange(len(known)),
        sign * known["value"].to_numpy(),
        resolution=10.0 ** runs.attrs["exponent"],
    )
    if items is not None:
        measured = _with_items(measured, items, sign)
    components = VarianceComponents(measured, {"yes": True, "no": False}.get(settings.pair))
    if settings.pair == "yes" and not components.pool.seed_df:
        raise ValueError("--pair yes needs variants that share two seeds or more: give auto or no")
    lost = runs["value"].isna().groupby(runs["variant"]).sum()
    margin = settings.margin or 0.0
    family = [Judgement(Effect(a, "", {a: 1.0, b: -1.0}), margin, "fixed") for a, b in pairs]
    ready = []
    for one in family:
        there = set(one.pair) <= set(measured.variants)
        if there and (settings.failed == "drop" or not lost[list(one.pair)].any()):
            ready.append(one)
        else:
            one.unjudged = "failed runs"
    analyse(family, ready, components, level)
    for one in ready:
        one.conclude(level, level, level / len(family))

    pool = components.pool
    result = {
        "metric": "lower is better" if settings.lower_is_better else "higher is better",
        "baseline": first,
        "against": settings.against,
        "level": level,
        "margin": settings.margin,
        "family": len(pairs),
        "question": "new seeds, this test set",
        "failed": settings.failed,
        "resolution": measured.resolution,
        "spread": {
            "pooled_sd": math.sqrt(pool.variance) if pool.df else None,
            "freedom": pool.df,
            "paired": pool.paired,
            "same_seed_correlation": pool.correlation,
        },
        "variants": [_variant(name, known, int(lost[name]), components) for name in names],
        "comparisons": [_comparison(one, known, lost, components, sign) for one in family],
    }
    gap = settings.margin if settings.find is None else settings.find
    if gap is not None and pool.df and not components.no_spread:
        usual = components.usual_pair()
        seeds = usual.seeds_needed("fixed", gap, level / len(pairs))
        power = usual.with_seeds("fixed", seeds).power(gap, level / len(pairs)) if seeds else None
        result["seeds_needed"] = {"gap": gap, "seeds": seeds, "power": power}
    return result


def _pairs(names: list[str], settings: JudgeOptions) -> tuple[str, list[tuple[str, str]]]:
    """The baseline, and the comparisons: (variant, the one that it is compared with)."""
    first = names[0] if settings.baseline is None else settings.baseline
    if settings.baseline is not None and settings.against == "previous":
        raise ValueError(f"--baseline {first} and --against previous were given: give one of them")
    if first not in names:
        hint = did_you_mean(first, names, before="; ")
        raise ValueError(f"the baseline {first!r} is none of {first_few(names, 8)}{hint}")
    if settings.against == "previous":
        return first, list(zip(names[1:], names[:-1], strict=True))
    return first, [(name, first) for name in names if name != first]


def _read_runs(frame: pd.DataFrame) -> tuple[list[str], pd.DataFrame]:
    """The variants in order, and the runs: whole seeds, float values that are NaN if failed."""
    _require_columns(frame, "the table", "variant", "seed", "value")
    rows, exponents = [], [0]
    for variant, seed, value in frame[["variant", "seed", "value"]].itertuples(index=False):
        number = _number(value)
        if number is not None:
            exponents.append(int(number.as_tuple().exponent))
        rows.append((str(variant).strip(), _seed(seed), math.nan if number is None else number))
    runs = pd.DataFrame(rows, columns=["variant", "seed", "value"]).astype({"value": float})
    runs.attrs["exponent"] = min(exponents)
    if len(twice := runs[runs.duplicated(["variant", "seed"])]):
        variant, seed, _ = twice.iloc[0]
        raise ValueError(f"variant {variant!r} has seed {seed} twice: give each run once")
    names = list(dict.fromkeys(runs["variant"]))
    if len(names) < 2:
        raise ValueError(f"the table has {plural(len(names), 'variant')}: give two or more")
    return names, runs


def _require_columns(frame: pd.DataFrame, what: str, *needed: str) -> None:
    if missing := [name for name in needed if name not in frame]:
        raise ValueError(
            f"{what} has no column {missing[0]!r}: it needs {', '.join(needed)}, and has "
            f"{first_few(map(str, frame.columns), 6)}"
        )


def _number(value: object) -> Decimal | None:
    """A finite number as it is printed; None for a failed run."""
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if math.isfinite(number) and math.isfinite(float(number)) else None


def _seed(value: object) -> int:
    number = _number(value)
    if number is None or number != int(number):
        raise ValueError(f"a seed is {str(value)!r}: give whole numbers")
    return int(number)


def _check(runs: pd.DataFrame, settings: JudgeOptions) -> None:
    margin, level = settings.margin, settings.level
    if not 0 < level < 0.5:
        raise ValueError(f"--level is {level:g}: give more than 0 and less than 0.5, such as 0.05")
    for option, value in (("--margin", margin), ("--find", settings.find)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{option} is {value:g}: give more than 0, in the unit of value")
    spread = float(runs["value"].max() - runs["value"].min())
    if margin is not None and margin > spread:
        raise ValueError(
            f"--margin {margin:g} is wider than the range of all values, {spread:g}: everything "
            "would be equal; give it in the unit of value"
        )


def _with_items(runs: Measurements, items: pd.DataFrame, sign: int) -> Measurements:
    """Add the covariance over items, in the unit of the values: shares, or percent."""
    _require_columns(items, "the table of items", "variant", "seed", "item", "correct")
    right = items["correct"].astype(str).str.strip().str.lower().map(_RIGHT)
    if right.isna().any():
        wrong = items["correct"][right.isna()].iloc[0]
        raise ValueError(f"the table of items has {str(wrong)!r} as correct: give 1 or 0")
    keys = [items["variant"].astype(str).str.strip(), items["seed"].map(_seed), items["item"]]
    if pd.concat(keys, axis=1).duplicated().any():
        raise ValueError("the table of items has an item of a run twice: give each once")
    answers = pd.Series(right.to_numpy(), index=pd.MultiIndex.from_arrays(keys)).unstack()
    wanted = [(runs.variants[i], seed) for i, seed in zip(runs.variant, runs.seed, strict=True)]
    correct = answers.reindex(wanted)
    if correct.isna().any(axis=None):
        name, seed = wanted[int(correct.isna().any(axis=1).to_numpy().argmax())]
        raise ValueError(f"the table of items lacks items of variant {name!r}, seed {seed}")
    names, seeds = [name for name, _ in wanted], [seed for _, seed in wanted]
    found = Measurements.from_predictions(names, seeds, correct.to_numpy())
    share = (found.accuracy if sign > 0 else 100 - found.accuracy) / 100
    for scale in (1.0, 100.0):
        if np.abs(sign * runs.accuracy - scale * share).max() <= max(runs.resolution, 1e-9):
            covariance = found.covariance * (scale / 100) ** 2
            return replace(runs, covariance=covariance, images=found.images, scale=scale)
    what = "right" if sign > 0 else "wrong"
    raise ValueError(f"the values are not the shares, or percent, of items that are {what}")


def _variant(
    name: str, known: pd.DataFrame, failed: int, components: VarianceComponents
) -> dict[str, Any]:
    values = known["value"][known["variant"] == name]
    return {
        "variant": name,
        "n": len(values),
        "failed": failed,
        "mean": float(values.mean()) if len(values) else None,
        "sd": float(values.std()) if len(values) > 1 else None,
        "odd_runs": list(components.pool.odd_runs.get(name, ())),
    }


def _comparison(
    one: Judgement,
    known: pd.DataFrame,
    lost: pd.Series[int],
    components: VarianceComponents,
    sign: int,
) -> dict[str, Any]:
    """A comparison's record; one without a verdict has the difference only."""
    values = [known["value"][known["variant"] == name] for name in one.pair]
    seeds = [set(known["seed"][own.index]) for own in values]
    shared = len(seeds[0] & seeds[1])
    difference = float(values[0].mean() - values[1].mean()) if all(map(len, values)) else None
    record = {
        "variant": one.pair[0],
        "baseline": one.pair[1],
        "n": [len(own) for own in values],
        "shared_seeds": shared,
        "failed": [int(lost[name]) for name in one.pair],
        "difference": difference,
        "improvement": None if difference is None else sign * difference,
        "verdict": one.verdict,
    }
    answer = one.answer if one.estimated else None
    if answer is None:
        return record
    low, high = sorted((sign * answer.low, sign * answer.high))
    names = ("standard_error", "p", "p_alone", "p_holm", "p_alone_holm", "rests_on_pooling")
    record |= {name: getattr(answer, name) for name in (*names, "detectable")}
    record |= {
        "freedom": one.estimate.uncertainty["fixed"].df,
        "low": low,
        "high": high,
        "p_margin": answer.p_margin if one.margin else None,
        "alone": "paired t" if components.pool.paired and shared > 1 else "Welch t",
        "smallest_p": one.smallest_p,
    }
    if one.margin:
        record["p_margin_holm"] = answer.p_margin_holm
    if new := one.answer_to("new"):
        ends = sorted((sign * new.low, sign * new.high))
        record |= {"new_items_low": ends[0], "new_items_high": ends[1]}
    return record


def read(source: str) -> pd.DataFrame:
    """A CSV file, or standard input for "-", as text. Raises ValueError if it is none."""
    try:
        file: Any = sys.stdin.buffer if source == "-" else Path(source)
        table = pd.read_csv(
            file, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig"
        )
    except OSError as error:
        raise ValueError(f"{source} cannot be read ({error.strerror})") from None
    except ValueError as error:  # not UTF-8, no columns, rows of unequal length
        raise ValueError(f"{source} is no CSV table: {' '.join(str(error).split())}") from None
    return table.rename(columns=str.strip)


def render(result: Result, style: Format) -> str:
    """The verdicts as text, Markdown, JSON or CSV."""
    if style == "json":
        return json.dumps(result, indent=1, allow_nan=False) + "\n"
    if style == "csv":
        flat = pd.DataFrame(result["comparisons"])
        for column in ("n", "failed"):
            ends = pd.DataFrame(flat.pop(column).tolist())
            flat[column], flat[f"{column}_baseline"] = ends[0], ends[1]
        return str(flat.to_csv(index=False, lineterminator="\n", float_format="%.10g"))
    return _text(result, markdown=style == "markdown")


def _text(result: Result, *, markdown: bool) -> str:
    spread, least = result["spread"], result["resolution"]
    finest = -math.floor(math.log10(max(spread["pooled_sd"] or 10 * least, least))) + 1
    digits = min(max(finest, 0), 9)
    known = {one["variant"]: one for one in result["variants"]}
    confidence = f"{100 * (1 - result['level']):g} %"
    headers = ["variant", "against", "n", "mean", "difference", f"{confidence} interval"]
    items = any("new_items_low" in one for one in result["comparisons"])
    headers += ["new items too", "p (Holm)", "verdict"] if items else ["p (Holm)", "verdict"]
    rows = [_cells(one, known[one["variant"]], digits, items) for one in result["comparisons"]]
    lines = [
        f"{result['question']}; {result['metric']}; "
        f"{plural(result['family'], 'comparison')} in one family, level {result['level']:g}"
    ]
    if spread["pooled_sd"] is not None:
        paired = "paired" if spread["paired"] else "not paired"
        lines.append(
            f"spread between seeds {spread['pooled_sd']:.{digits}f} "
            f"({spread['freedom']:.0f} degrees of freedom), seeds {paired}"
        )
    if result["failed"] == "drop" and (count := sum(one["failed"] for one in known.values())):
        lines.append(f"{plural(count, 'failed run')} left out (--failed drop)")
    for one in known.values():
        if one["odd_runs"]:
            seeds = ", ".join(map(str, one["odd_runs"]))
            lines.append(f"{one['variant']}, seed {seeds}: far out; it keeps a spread of its own")
    if needed := result.get("seeds_needed"):
        count = needed["seeds"] or f"more than {MOST_SEEDS:,}"
        lines.append(f"seeds needed to find a difference of {needed['gap']:g}: {count}")
    if markdown:
        body = table(headers, [(*map(plain, row[:2]), *row[2:]) for row in rows], "ll")
        return f"{body}\n\n" + "".join(f"- {plain(line)}\n" for line in lines)
    body = tabulate(rows, headers, tablefmt="plain", disable_numparse=True)
    return "\n".join([*lines, "", *(line.rstrip() for line in body.splitlines())]) + "\n"


def _cells(one: Result, variant: Result, digits: int, items: bool) -> tuple[str, ...]:
    mean = NOTHING if variant["mean"] is None else f"{variant['mean']:.{digits}f}"
    gap = NOTHING if one["difference"] is None else signed(one["difference"], digits)
    bounds = new = p = NOTHING
    verdict = one["verdict"]
    if "low" in one:
        bounds = interval(one["low"], one["high"], digits)
        p = "<0.001" if one["p_holm"] < 0.001 else f"{one['p_holm']:.3f}"
        verdict += " (rests on the pooled spread)" if one["rests_on_pooling"] else ""
    if "new_items_low" in one:
        new = interval(one["new_items_low"], one["new_items_high"], digits)
    cells = (one["variant"], one["baseline"], str(variant["n"]), mean, gap, bounds)
    return (*cells, new, p, verdict) if items else (*cells, p, verdict)


def plot(result: Result, path: Path) -> None:
    """Draw the differences with their intervals into a file. Raises ValueError if it cannot be."""
    if path.suffix not in PLOTS or not path.parent.is_dir():
        raise ValueError(f"{path} cannot be drawn: give a file in a folder, {', '.join(PLOTS)}")
    shown = [one for one in result["comparisons"] if one["difference"] is not None]
    rows = [
        {
            "name": f"{one['variant']} − {one['baseline']}",
            "points": one["difference"],
            "low": one.get("low", math.nan),
            "high": one.get("high", math.nan),
            "decided": one["verdict"] in ("gain", "loss"),
            "note": f"{one['verdict']}, n = {one['n'][0]}, {one['n'][1]}",
        }
        for one in shown
    ]
    label = f"difference ({result['metric']}); filled: a gain or a loss"
    figure, axes = forest(pd.DataFrame(rows), result["margin"], label)
    axes.set_title(result["question"])
    figure.savefig(path)
