"""Verdicts for anybody's table of variant, seed and value."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import report
import runner
from report.results_table import read
from report.statistics import Measurements, VarianceComponents

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "judge_cases"
FAMILY = CASES / "case1_paired_family.csv"


def difference(expected: Any, found: Any, place: str = "") -> list[str]:
    """Where `found` lacks what is expected, to a relative 1e-6."""
    if isinstance(expected, dict):
        return [
            line
            for key, value in expected.items()
            for line in difference(value, found.get(key, "missing"), f"{place}.{key}")
        ]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return [line for i, pair in pairs for line in difference(*pair, f"{place}.{i}")]
    same = isinstance(expected, float) and found == pytest.approx(expected, rel=1e-6)
    return [] if same or expected == found else [f"{place}: {expected} expected, {found} found"]


@pytest.mark.parametrize("case", sorted(CASES.glob("case*.csv")), ids=lambda path: path.stem)
def test_the_worked_cases(case: Path) -> None:
    options = json.loads(case.with_suffix(".args.json").read_text())
    expected = json.loads(case.with_suffix(".expected.json").read_text())
    assert difference(expected, report.judge(read(str(case)), **options)) == []


def results(**variants: dict[int, float]) -> pd.DataFrame:
    """A table of runs, from variant to seed to value."""
    rows = [(name, seed, x) for name, own in variants.items() for seed, x in own.items()]
    return pd.DataFrame(rows, columns=["variant", "seed", "value"])


def fit(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hat = design @ np.linalg.pinv(design)
    return y - hat @ y, 1 - np.diag(hat)


def recompute(frame: pd.DataFrame) -> dict[str, Any]:
    """The rules once more, by least squares: the pool, and each variant against the first."""
    counts = frame.groupby("variant", sort=False)["value"].agg(["size", "mean", "var"])
    pool, odd = list(counts.index[counts["size"] > 1]), {}
    while True:
        own = frame[frame["variant"].isin(pool)]
        variants, seeds = (pd.get_dummies(own[key]).to_numpy(float) for key in ("variant", "seed"))
        y = own["value"].to_numpy()
        one, two = fit(variants, y), fit(np.hstack([variants, seeds]), y)
        df, df_two = round(one[1].sum()), round(two[1].sum())
        paired, shared, df_seeds = False, 0.0, df - df_two
        if df_two and df_seeds:
            within = two[0] @ two[0] / df_two
            between = (one[0] @ one[0] - two[0] @ two[0]) / df_seeds
            p = stats.f.sf(between / within, df_seeds, df_two)
            if paired := len(pool) >= 4 or min(p, 1 - p) < 0.005:
                shared, df = max(0.0, between - within) / (df / df_seeds), df_two
        residuals, free = two if paired else one
        deleted = (residuals @ residuals - residuals**2 / free) / (df - 1)
        far = 2 * stats.t.sf(np.abs(residuals) / np.sqrt(free * deleted), df - 1) * len(y)
        if far.min() >= 0.001:
            break
        name, seed, _ = own.iloc[int(far.argmin())]
        odd[name] = [seed]
        pool.remove(name)
    s2 = residuals @ residuals / df
    found, seed_sets = {}, frame.groupby("variant")["seed"].agg(set)
    base = counts.index[0]
    for name in counts.index[1:]:
        parts = []
        for each in (name, base):
            mine = (own["variant"] == each).to_numpy()
            ss, free_df = residuals[mine] @ residuals[mine], free[mine].sum()
            variance = max((6 * s2 + ss) / (6 + free_df), s2)
            n, var = counts.loc[each, ["size", "var"]]
            parts.append((variance / n, df) if each in pool else (var / n, n - 1))
        terms = [(sum(part for part, d in parts if d == df), df)]
        terms += [(part, d) for part, d in parts if d != df]
        weights = pd.Series(0.0, index=sorted(set(frame["seed"])))
        for each, sign in ((name, 1), (base, -1)):
            weights[list(seed_sets[each])] += sign / len(seed_sets[each])
        terms.append((shared * (weights**2).sum(), df_seeds))
        terms = [(part, d) for part, d in terms if part > 1e-12 * s2]
        variance = sum(part for part, _ in terms)
        freedom = variance**2 / sum(part**2 / d for part, d in terms)
        gap, error = counts.loc[name, "mean"] - counts.loc[base, "mean"], variance**0.5
        half = stats.t.isf(0.025, freedom) * error
        a, b = (frame[frame["variant"] == each].set_index("seed")["value"] for each in (name, base))
        both = a.index.intersection(b.index)
        alone = stats.ttest_rel(a[both], b[both]) if paired and len(both) > 1 else None
        found[name] = {
            "difference": float(gap),
            "standard_error": float(error),
            "freedom": float(freedom),
            "low": float(gap - half),
            "high": float(gap + half),
            "p": float(2 * stats.t.sf(abs(gap) / error, freedom)),
            "p_alone": float((alone or stats.ttest_ind(a, b, equal_var=False)).pvalue),
        }
    return {"odd": odd, "paired": paired, "sd": float(s2**0.5), "comparisons": found}


def drawn(seeds: list[list[int]], same: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    common = dict(enumerate(same * rng.standard_normal(30)))
    values = {
        f"v{i}": {s: 75 + 0.2 * i + common[s] + 0.3 * float(rng.standard_normal()) for s in own}
        for i, own in enumerate(seeds)
    }
    return results(**values)


TABLES = {
    "unpaired, other seeds": drawn([[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]),
    "two variants": drawn([[0, 1, 2, 3], [0, 1, 2, 3]]),
    "two variants, paired": drawn([[0, 1, 2, 3], [0, 1, 2, 3]], same=5.0),
    "partly shared seeds": drawn([[0, 1, 2], [1, 2, 3], [0, 1, 2, 3], [2, 3, 4], [0, 4]], same=1.0),
    "seven variants": drawn([[0, 1, 2]] * 7, same=0.5),
    "an odd run": drawn([[0, 1, 2]] * 6).replace({"value": {}}),
}
TABLES["an odd run"].loc[7, "value"] = 10.0


@pytest.mark.parametrize("name", TABLES)
def test_the_rules_recomputed_by_least_squares(name: str) -> None:
    frame = TABLES[name]
    found, expected = report.judge(frame), recompute(frame)
    odd = {one["variant"]: one["odd_runs"] for one in found["variants"] if one["odd_runs"]}
    assert odd == expected["odd"]
    assert bool(odd) == (name == "an odd run")
    assert found["spread"]["paired"] == expected["paired"]
    assert found["spread"]["pooled_sd"] == pytest.approx(expected["sd"])
    for one in found["comparisons"]:
        assert difference(expected["comparisons"][one["variant"]], one) == []


def test_a_run_far_out_leaves_the_intervals_of_others_alone() -> None:
    clean, odd = TABLES["an odd run"].copy(), TABLES["an odd run"]
    clean.loc[7, "value"] = 75.0
    widths = [
        {one["variant"]: one["high"] - one["low"] for one in report.judge(frame)["comparisons"]}
        for frame in (clean, odd)
    ]
    assert widths[1]["v2"] > 50
    assert widths[1]["v4"] == pytest.approx(widths[0]["v4"], rel=0.2)


def test_a_lower_value_can_be_an_improvement() -> None:
    frame = read(str(FAMILY))
    higher, lower = (report.judge(frame, lower_is_better=low) for low in (False, True))
    turned = {"gain": "loss", "loss": "gain"}
    for one, other in zip(higher["comparisons"], lower["comparisons"], strict=True):
        assert other["verdict"] == turned.get(one["verdict"], one["verdict"])
        assert other["improvement"] == -one["improvement"]
        same = ("difference", "low", "high", "p_holm")
        assert [other[key] for key in same] == pytest.approx([one[key] for key in same])


def test_each_variant_can_be_compared_with_the_one_before_or_with_any() -> None:
    frame = read(str(FAMILY))
    before = report.judge(frame, against="previous")["comparisons"]
    assert [(one["variant"], one["baseline"]) for one in before][1] == ("gelu", "wide")
    other = report.judge(frame, baseline="wide")["comparisons"]
    assert [one["variant"] for one in other] == ["base", "gelu", "no-bn", "swish"]


def test_failed_runs_are_judged_only_on_request() -> None:
    frame = read(str(CASES / "case4_failed.csv"))
    dropped = report.judge(frame, failed="drop")
    x, y, z = dropped["comparisons"]
    assert (x["verdict"], x["n"], z["verdict"]) == ("gain", [2, 3], "failed runs")
    assert x["p_holm"] < report.judge(frame)["comparisons"][1]["p_holm"] * 3
    assert y["p_holm"] == pytest.approx(2 * y["p"])


def test_seeds_needed_are_for_a_gap_that_the_user_names() -> None:
    frame = read(str(FAMILY))
    needed = report.judge(frame, find=0.2)["seeds_needed"]
    sd, n = 0.1010857721607424, needed["seeds"]
    df, shift = 4 * (n - 1), 0.2 / (sd * (2 / n) ** 0.5)
    bound = stats.t.isf(0.05 / 4 / 2, df)
    assert needed["power"] == pytest.approx(stats.nct.sf(bound, df, shift))
    assert needed["power"] >= 0.8
    assert "seeds_needed" not in report.judge(frame)


@pytest.mark.parametrize("scale", [1, 100])
def test_items_add_the_interval_for_new_items(scale: int) -> None:
    rng = np.random.default_rng(0)
    hard = rng.standard_normal(500)
    right = {
        (name, seed): hard + shift + rng.standard_normal(500) > 0
        for name, shift in (("a", 0.0), ("b", 0.5))
        for seed in range(3)
    }
    items = pd.DataFrame(
        [(*run, i, int(one)) for run, own in right.items() for i, one in enumerate(own)],
        columns=["variant", "seed", "item", "correct"],
    )
    frame = pd.DataFrame(
        [(*run, scale * own.mean()) for run, own in right.items()],
        columns=["variant", "seed", "value"],
    )
    (one,) = report.judge(frame, items=items)["comparisons"]
    correct = np.stack(list(right.values()))
    runs = Measurements.from_predictions([k[0] for k in right], [k[1] for k in right], correct)
    known = VarianceComponents(runs).estimate({"b": 1.0, "a": -1.0})
    half = scale / 100 * known.uncertainty["new"].half_width(0.025)
    ends = [one["new_items_low"], one["new_items_high"]]
    assert ends == pytest.approx([one["difference"] - half, one["difference"] + half])
    assert ends[0] < one["low"] < one["high"] < ends[1]
    with pytest.raises(ValueError, match="lacks items of variant 'b', seed 2"):
        report.judge(frame, items=items.iloc[:-1])
    with pytest.raises(ValueError, match="the values are not the shares, or percent"):
        report.judge(frame.assign(value=frame["value"] * 2), items=items)


BAD = {
    "a,b\n1,2\n": "no column 'variant': it needs variant, seed, value, and has a, b",
    "": "is no CSV table",
    "variant,seed,value\na,0,1\n": "1 variant: give two or more",
    "variant,seed,value\na,0,1\na,0,2\nb,0,1\n": "variant 'a' has seed 0 twice",
    "variant,seed,value\na,x,1\nb,0,1\n": "a seed is 'x': give whole numbers",
    "variant,seed,value\na,0,1\nb,0\nc,0,1,2\n": "is no CSV table",
}
GOOD = "variant,seed,value\na,0,1.0\na,1,1.1\nb,0,0.24\nb,1,0.2\n"
OPTIONS = {
    "--margin 5": "wider than the range of all values, 0.9",
    "--margin -1": "--margin is -1: give more than 0",
    "--find 0": "--find is 0: give more than 0",
    "--level 2": "--level is 2: give more than 0 and less than 0.5",
    "--baseline ab": "the baseline 'ab' is none of a, b",
    "--baseline b --against previous": "give one of them",
    "--items missing.csv": "missing.csv cannot be read (No such file or directory)",
    "--plot no/place.png": "no/place.png cannot be drawn",
}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [*((text, "", line) for text, line in BAD.items()), *((GOOD, *one) for one in OPTIONS.items())],
)
def test_bad_input_is_refused_in_one_line(text, options, message, tmp_path, capsys) -> None:
    file = tmp_path / "results.csv"
    file.write_text(text)
    assert runner.main(["judge", str(file), *options.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_the_command_reads_standard_input_draws_and_fails_on_a_loss(tmp_path) -> None:
    command = [sys.executable, "runner.py", "judge", "-", "--fail-on", "loss", "--format", "json"]
    plot = tmp_path / "forest.svg"
    options = {"cwd": ROOT, "capture_output": True, "text": True}
    done = subprocess.run([*command, "--plot", plot], check=False, input=GOOD, **options)
    assert done.returncode == 1
    assert json.loads(done.stdout)["comparisons"][0]["verdict"] == "loss"
    assert "<svg" in plot.read_text()
    code = "import sys, runner; runner.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    light = [sys.executable, "-c", code, "judge", str(FAMILY), "--margin", "0.5"]
    text = subprocess.run(light, check=True, **options).stdout
    assert "gelu       base       3    76.21   +0.07         [−0.12, +0.26]   0.400" in text


PAGE = (ROOT / "docs/judge.md").read_text()


@pytest.mark.parametrize(
    ("command", "output"), re.findall(r"```console\n\$ (.*)\n([^`]*)```", PAGE)
)
def test_the_page_shows_what_the_commands_print(command, output, monkeypatch, capsys) -> None:
    first, _, rest = command.rpartition(" | ")
    monkeypatch.chdir(ROOT)
    if first:
        table = subprocess.run(shlex.split(first), check=True, capture_output=True).stdout
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table)))
    assert runner.main(shlex.split(rest)[2:]) == 0
    assert capsys.readouterr().out == output


@pytest.mark.parametrize("style", ["text", "markdown", "csv"])
def test_every_format_states_verdicts_and_what_they_rest_on(style, capsys) -> None:
    assert runner.main(["judge", str(CASES / "case3_one_seed.csv"), "--format", style]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("one seed", "gain", "not resolved"))
    assert ("rests_on_pooling" if style == "csv" else "gain (rests on the pooled spread)") in out
