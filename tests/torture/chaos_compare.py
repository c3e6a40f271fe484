"""What `tests.torture.chaos` looks at: what a run was doing when it was killed, and whether two
runs are the same."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import checkpoint

NOT_COMPARED = {
    "metrics.jsonl": ["seconds", "images_per_second"],
    "result.json": [
        "seconds",
        "images_per_second",
        "inference_ms_1",
        "inference_ms_64",
        "finished",
    ],
    "checkpoint.pt": ["state.seconds", "state.metrics (must be metrics.jsonl)"],
    "events": ["seconds/*", "images/per_second", "wall time"],
    "speeds.json": [
        "all of it, and whether it is there: speeds, kept where there was time to measure them"
    ],
}
"""Fields that are not compared, because they are times or follow from times."""


def phase(data: Path, run: Path, started: float, every_update: bool) -> str:
    """What a process that was started at `started` (seconds since 1970) did last, by the files it
    left.

    Where there is a checkpoint of `every_update`, the last one tells whether an epoch's evaluation
    had begun.
    """
    state, lines = _state(run / "checkpoint.pt"), run / "metrics.jsonl"
    begun = (run / "environment.json").exists() and (
        run / "environment.json"
    ).stat().st_mtime > started
    if any(data.glob("*.part")):
        return "drawing of images"
    if any(data.glob("cache/*.part")):
        return "cache build"
    if not begun:
        return "start or cache build" if not run.exists() else "start of a later process"
    written_now = [
        name
        for name in ("checkpoint.pt", "model.safetensors", "predictions.csv", "result.json")
        if (run / f"{name}.part").exists() and (run / f"{name}.part").stat().st_mtime > started
    ]
    if written_now:
        return f"write of {written_now[-1]}"
    if (run / "result.json").exists():
        return "after result.json"
    if (run / "predictions.csv").exists():
        return "between predictions.csv and result.json"
    if state is None:
        return "before the first checkpoint"
    if len(state["metrics"]) < (lines.stat().st_size if lines.exists() else 0):
        return "between metrics and checkpoint"
    recipe = json.loads((run / "config.json").read_bytes())["recipe"]
    images = json.loads((run.parents[1] / "study.json").read_bytes())["dataset"]["train"]
    if state["epoch"] == recipe["epochs"]:
        return "test evaluation"
    if state["batch"] == images // recipe["batch_size"]:
        return "evaluation"
    return "mid-epoch" if every_update else "mid-epoch or evaluation"


def _state(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    state: dict[str, Any] = checkpoint.load(path, torch.device("cpu"))["state"]
    return state


def differences(whole: Path, killed: Path) -> list[str]:
    """What differs between two folders of `tests.torture.chaos`, each with data and runs; empty if
    nothing does."""
    found = []
    names = [
        {name for name in _names(root) if not name.endswith("/speeds.json")}
        for root in (whole, killed)
    ]
    found += [f"{name} is missing" for name in sorted(names[0] - names[1])]
    found += [f"{name} is left over" for name in sorted(names[1] - names[0])]
    for name in sorted(names[0] & names[1]):
        ours, theirs = (content(root / name) for root in (whole, killed))
        if ours != theirs:
            found.append(f"{name} differs{_where(ours, theirs)}")
    for run in (path.parent for path in killed.glob("runs/*/*/*/result.json")):
        twin = whole / run.relative_to(killed)
        if not (run / "checkpoint.pt").exists() or not (twin / "result.json").exists():
            continue
        if (_state(run / "checkpoint.pt") or {}).get("metrics") != (
            run / "metrics.jsonl"
        ).read_text():
            found.append("metrics.jsonl is not what the checkpoint says")
        if (points := _events(run)) != (wanted := _events(twin)):
            odd = [p for p in points if points.count(p) != wanted.count(p)] + [
                p for p in wanted if p not in points
            ]
            found.append(f"TensorBoard shows other points: {odd[:3]}")
    return found


def _names(root: Path) -> Iterator[str]:
    """Of all files but the log, TensorBoard's events and the images themselves."""
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if (
            path.is_file()
            and not path.name.startswith("events.")
            and name != "log.txt"
            and "/images/" not in name
        ):
            yield name


def content(path: Path) -> Any:
    """What of a file must be equal."""
    timeless = {field for field in NOT_COMPARED.get(path.name, ()) if "." not in field}
    if path.name == "metrics.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [
            {key: value for key, value in line.items() if key not in timeless} for line in lines
        ]
    if path.name == "result.json":
        return {
            key: value for key, value in json.loads(path.read_text()).items() if key not in timeless
        }
    if path.name == "checkpoint.pt":
        state = checkpoint.load(path, torch.device("cpu"))
        for name in ("seconds", "metrics"):
            del state["state"][name]
        return dict(_flat(state, ""))
    if path.name == "checkpoint.pt.previous":  # of some moment of the last epoch
        return checkpoint.load(path, torch.device("cpu"))["digest"]
    return path.read_bytes()


def _flat(value: Any, name: str) -> Iterator[tuple[str, object]]:
    """Every leaf of a checkpoint by its path; tensors as dtype, shape, strides and bytes."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(part, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for key, part in enumerate(value):
            yield from _flat(part, f"{name}/{key}")
    elif isinstance(value, Tensor):
        raw = value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        yield name, (str(value.dtype), tuple(value.shape), raw)
    else:
        yield name, value


def _where(ours: Any, theirs: Any) -> str:
    if isinstance(ours, list) and len(ours) != len(theirs):
        return f": {len(ours)} and {len(theirs)} lines"
    if isinstance(ours, list):
        ours, theirs = ({str(i): part for i, part in enumerate(each)} for each in (ours, theirs))
    if isinstance(ours, dict):
        odd = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
        return f" in {', '.join(odd[:3])} and {max(len(odd) - 3, 0)} more"
    return ""


def _events(run: Path) -> list[tuple[str, int, float]]:
    """(tag, update, value) as TensorBoard shows them, times left out."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    board = EventAccumulator(str(run), {SCALARS: 0})
    board.Reload()
    tags = [
        tag
        for tag in board.Tags()[SCALARS]
        if not tag.startswith("seconds/") and tag != "images/per_second"
    ]
    return sorted((tag, event.step, event.value) for tag in tags for event in board.Scalars(tag))
