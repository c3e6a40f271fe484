"""What a run leaves in its folder: config, environment, metrics, TensorBoard events, weights,
result."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import nn

from data.augmentation import MEAN, STD
from models.complexity import architecture_complexity
from training.checkpoint import Damaged, keep_previous, previous
from training.clock import of_updates
from training.environment import code_version, device_name, environment
from training.evaluation import Evaluation
from training.event_log import EventLog
from training.execution import Execution, Stores
from training.spec import ABOUT, CONFIG, ENVIRONMENT, RESULT, WEIGHTS, RunSpec
from utils.files import write_atomically, write_json


def begin(run: RunSpec, stores: Stores, execution: Execution) -> None:
    """Write what is known before the first update: config.json and environment.json."""
    write_config(run)
    machine = environment(execution.device, execution.processes.count)
    about = {**machine, "layout": asdict(execution.layout), "skipped": stores.skipped}
    write_json(run.folder / ENVIRONMENT, about)


def write_config(run: RunSpec) -> None:
    """config.json, which says what the run is: all that is in the folder of a run that another row
    has made."""
    config = {
        "study": run.study,
        "study_hash": run.study_hash,
        "step": run.step,
        "number": run.number,
        **run.identity,
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / CONFIG, config)


def log(board: EventLog, metrics: Mapping[str, Any]) -> None:
    """An epoch's metrics to TensorBoard, against optimizer updates."""
    names = ("lr", "train_loss", "validation_loss", "validation_top1", "images_per_second")
    values = {
        name.replace("_", "/", 1): metrics[name] for name in names if metrics[name] is not None
    }
    seconds = {f"seconds/{phase}": value for phase, value in metrics["seconds"].items()}
    board.add_scalars({**values, **seconds}, metrics["update"])


def save_weights(run: RunSpec, model: nn.Module, classes: tuple[str, ...], epoch: int) -> str:
    """model.safetensors, which also says what the weights are and how images are to be prepared for
    them; sha256."""
    about = {
        "study_hash": run.study_hash,
        "digest": run.digest,
        "step": run.step,
        "seed": run.seed,
        "epoch": epoch,
        "architecture": asdict(run.architecture),
        "layer_scale": run.recipe.layer_scale,
        "classes": classes,
        "preprocessing": {
            "resolution": run.resolution,
            "short_side": run.short_side,
            "mean": MEAN,
            "std": STD,
        },
    }
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    # One entry: safetensors writes several in random order, and equal runs should give equal files.
    content = to_safetensors(tensors, {ABOUT: json.dumps(about)})
    keep_previous(run.folder / WEIGHTS)
    write_atomically(run.folder / WEIGHTS, content)
    return hashlib.sha256(content).hexdigest()


def load_weights(run: RunSpec, digest: str) -> dict[str, torch.Tensor]:
    """The weights that `save_weights` wrote and that a checkpoint knows by their sha256 `digest`.

    They may be the ones before: those of the best epoch, when a process died before the checkpoint
        that counts it.

    Raises:
        checkpoint.Damaged: there are none with this checksum.
    """
    path = run.folder / WEIGHTS
    for place in (path, previous(path)):
        if place.is_file() and hashlib.sha256(content := place.read_bytes()).hexdigest() == digest:
            if place != path:
                os.replace(place, path)
            return from_safetensors(content)
    what = (
        "is damaged: its checksum is not what the checkpoint says"
        if path.exists()
        else "is missing"
    )
    raise Damaged(f"{path}, the weights of the best epoch, {what}")


def finish(
    run: RunSpec,
    stores: Stores,
    execution: Execution,
    test: Evaluation,
    selected_epoch: int,
    seconds: Mapping[str, float],
    costs: Mapping[str, float],
) -> dict[str, Any]:
    """Write predictions.csv, then result.json, whose presence says that the run is finished."""
    previous(run.folder / WEIGHTS).unlink(missing_ok=True)
    write_atomically(run.folder / "predictions.csv", test.as_csv(stores.test.ids))
    scaled = run.recipe.layer_scale is not None
    size = architecture_complexity(run.architecture, run.resolution, layer_scale=scaled)
    images = run.recipe.images_seen(len(stores.train))
    result = {
        "step": run.step,
        "number": run.number,
        "seed": run.seed,
        "study": run.study,
        "study_hash": run.study_hash,
        "digest": run.digest,
        "variant_digest": run.identity["variant_digest"],
        "top1": test.top1,
        "top5": test.top5,
        "loss": test.loss,
        "test_images": len(test.labels),
        "selected_epoch": selected_epoch,
        "weights_sha256": hashlib.sha256((run.folder / WEIGHTS).read_bytes()).hexdigest(),
        "epochs": run.recipe.epochs,
        "params": size.params,
        "gflops_fvcore": size.flops / 1e9,
        "gflops_paper_convention": size.flops_paper_convention / 1e9,
        "activations": size.activations,
        **costs,
        "images_per_second": images / of_updates(seconds),
        "seconds": {**seconds, "total": sum(seconds.values())},
        "device": device_name(execution.device, execution.processes.count),
        "code_version": code_version(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    write_json(run.folder / RESULT, result)
    return result
