"""TensorBoard's own reader of hyperparameters finds all runs of a study in its report."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from report.page import write
from tests.report.conftest import StudyFolder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, list_session_groups
    from tensorboard.plugins.hparams.backend_context import Context

Make = Callable[..., StudyFolder]


def view(folder: Path) -> dict[str, dict[str, Any]]:
    """What the view shows: each run's hyperparameters and metrics."""
    events = EventMultiplexer().AddRunsFromDirectory(str(folder))
    events.Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(events, str(folder))))
    metrics = ("test/top1", "cost/gflops", "cost/peak_memory_mb")
    columns = [api_pb2.ColParams(metric={"tag": tag, "group": ""}) for tag in metrics]
    status = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    request = api_pb2.ListSessionGroupsRequest(
        col_params=columns,
        slice_size=100,
        allowed_statuses=[api_pb2.Status.Value(one) for one in status],
    )
    answer = list_session_groups.Handler(RequestContext(), context, "", request).run()
    return {
        group.name: {
            **{
                name: value.string_value or value.number_value
                for name, value in group.hparams.items()
            },
            **{value.name.tag: value.value for value in group.metric_values},
        }
        for group in answer.session_groups
    }


def test_every_run_is_there_with_what_differs_between_them_and_what_came_of_it(
    make_study: Make,
) -> None:
    study = make_study(test=400)
    for seed in (0, 1):
        study.add("gelu", 200 + seed, seed=seed)
        study.edit(
            "config.json", "gelu", seed, architecture={"activation": "gelu", "depths": [3, 3, 9, 3]}
        )
        study.add("kernel-7", 240 + seed, seed=seed)
        study.edit(
            "config.json",
            "kernel-7",
            seed,
            architecture={"activation": "relu", "depths": [3, 3, 9, 3]},
        )
    study.edit("result.json", "gelu", peak_memory_mb=90.0)
    study.add("layer-norm", 0, finished=False)
    write(study.root)
    seen = view(study.root / "report" / "tensorboard")
    assert seen.keys() == {"gelu/seed-0", "gelu/seed-1", "kernel-7/seed-0", "kernel-7/seed-1"}
    assert (
        seen["kernel-7/seed-1"].items()
        >= {"step": "kernel-7", "seed": 1.0, "activation": "relu"}.items()
    )
    assert seen["kernel-7/seed-1"]["test/top1"] == 60.25
    assert seen["gelu/seed-0"]["cost/peak_memory_mb"] == 90.0
    assert math.isnan(seen["gelu/seed-1"]["cost/peak_memory_mb"]), "it was not measured"
    assert "depths" not in seen["gelu/seed-0"], "it is the same in all of them"


def test_a_run_that_is_gone_from_the_study_is_gone_from_the_view(make_study: Make) -> None:
    study = make_study(test=400)
    study.add("gelu", 200)
    study.add("kernel-7", 240)
    write(study.root)
    study.edit("config.json", "gelu", study_hash="feedbeeffeed")
    write(study.root)
    assert view(study.root / "report" / "tensorboard").keys() == {"kernel-7/seed-0"}
