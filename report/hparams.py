"""All runs of a study side by side in TensorBoard's HParams view: what varies between them, and
what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from report import costs
from report.collect import RunRecord
from report.event_log import EventLog
from report.tables import Summary
from utils.text import flat

FOLDER = "tensorboard"


def write(summary: Summary, folder: Path) -> None:
    """A folder below `folder` for each finished run, of the same name as its own, with one file of
    events.

    Times in them are those when the runs were finished, so the same study gives the same bytes.
    """
    from tensorboard.plugins.hparams import summary_v2 as hp

    runs = summary.study.all_finished
    chosen = choices(runs)
    known = {f"cost/{cost.name}": cost.title for cost in costs.COSTS}
    metrics = {"test/top1": "top-1 (%)", "test/top5": "top-5 (%)", **known}
    names = list(dict.fromkeys(name for own in chosen.values() for name in own))
    folder.mkdir()
    columns = [hp.HParam(name) for name in names]
    outcomes = [hp.Metric(tag, display_name=title) for tag, title in metrics.items()]
    for run in runs:
        assert run.result is not None
        at = 0.0
        with contextlib.suppress(KeyError, TypeError, ValueError):
            at = datetime.fromisoformat(run.result["finished"]).timestamp()
        place = folder / run.step / f"seed-{run.seed}"
        place.mkdir(parents=True)
        board = EventLog(place, at=at)
        board.add(_ordered(hp.hparams_config_pb(columns, outcomes, at)))
        board.add(_ordered(hp.hparams_pb(chosen[run.name], run.name, at)))
        values = {f"cost/{cost.name}": cost.of(run.result) for cost in costs.COSTS}
        values |= {"test/top1": run.result["top1"], "test/top5": run.result["top5"]}
        board.add_scalars({tag: value for tag, value in values.items() if value is not None}, 0)


def choices(runs: Sequence[RunRecord]) -> dict[str, dict[str, Any]]:
    """For each run by its name its row, its seed, and the fields of network and recipe that differ
    between runs."""
    fields = {
        run.name: flat({part: run.identity.get(part) or {} for part in ("architecture", "recipe")})
        for run in runs
    }
    names = dict.fromkeys(name for own in fields.values() for name in own)
    varied = [name for name in names if len({_text(own.get(name)) for own in fields.values()}) > 1]
    plain = {
        name
        for name in varied
        if all(type(own.get(name)) in (int, float) for own in fields.values())
    }
    return {
        run.name: {
            "row": run.step,
            "seed": run.seed,
            **{
                name: fields[run.name][name] if name in plain else _text(fields[run.name].get(name))
                for name in varied
            },
        }
        for run in runs
    }


def _text(value: object) -> str:
    return (
        " ".join(map(_text, value))
        if isinstance(value, list)
        else "none"
        if value is None
        else str(value)
    )


def _ordered(made: Any) -> Any:
    """The same summary with the bytes of its maps in a fixed order."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    for value in made.value:
        content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
        value.metadata.plugin_data.content = content.SerializeToString(deterministic=True)
    return made
