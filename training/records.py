"""The files of a run: config, environment, metrics, TensorBoard events, weights, result."""

import hashlib
import json
import os
import statistics
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from data.augmentation import MEAN, STD
from models import parts
from models.complexity import architecture_complexity
from training.checkpoint import Damaged, State, keep_previous, previous
from training.device import (
    autocast,
    code_version,
    device_name,
    environment,
    peak_memory,
    wait_for,
)
from training.evaluation import Evaluation
from training.execution import Execution, Stores
from training.monitor import update_seconds
from training.spec import ABOUT, CONFIG, ENVIRONMENT, METRICS, RESULT, WEIGHTS, RunSpec, collapse
from training.update import TrainState
from utils.files import write_atomically, write_json

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_LARGE_BATCH = 64
"""Images of a large batch in the inference profile."""
_TIMING_SECONDS = 0.05
"""Time for the calls of one batch size in the inference profile; at least one counts."""


def begin(run: RunSpec, stores: Stores, execution: Execution) -> None:
    """Write what is known before the first update: config.json and environment.json."""
    write_config(run)
    machine = environment(execution.device, execution.processes.count)
    about = {**machine, "options": asdict(execution.options), "skipped": stores.skipped}
    write_json(run.folder / ENVIRONMENT, about)


def write_config(run: RunSpec) -> None:
    """Write config.json: what the run is."""
    run.folder.mkdir(parents=True, exist_ok=True)
    study = {"study": run.study, "study_hash": run.study_hash}
    step = {"step": run.step, "number": run.number}
    write_json(run.folder / CONFIG, {**study, **step, **run.identity})


def open_events(run: RunSpec, metrics: str) -> "SummaryWriter":
    """Begin the run's TensorBoard events with the epochs in `metrics`, the text of metrics.jsonl.

    Events of an interrupted process are replaced, so that no epoch is missing or shown twice.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard imports deprecated parts of setuptools
        from torch.utils.tensorboard import SummaryWriter
    for path in run.folder.glob("events.out.tfevents.*"):
        path.unlink()
    events = SummaryWriter(str(run.folder))
    for line in metrics.splitlines():
        log(events, json.loads(line))
    return events


def log(events: "SummaryWriter", metrics: Mapping[str, Any]) -> None:
    """Write an epoch's metrics to TensorBoard, against optimizer updates. Raises OSError."""
    names = ("lr", "train_loss", "validation_loss", "validation_top1", "images_per_second")
    values = {name.replace("_", "/", 1): metrics[name] for name in names}
    values |= {f"seconds/{phase}": value for phase, value in metrics["seconds"].items()}
    for tag, value in values.items():
        if value is not None:
            events.add_scalar(tag, value, metrics["update"])
    events.flush()


def restore(run: RunSpec, state: State) -> None:
    """Put the best epoch's weights and the metrics where they were at `state`. Raises Damaged."""
    if state.best_epoch:
        load_weights(run, state.weights_sha256)
    write_atomically(run.folder / METRICS, state.metrics.encode())


def save_weights(run: RunSpec, model: nn.Module, classes: tuple[str, ...], epoch: int) -> str:
    """Write model.safetensors, with a description of the network and its images. Returns sha256."""
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
    if custom := parts.records(run.architecture):
        about["custom_parts"] = custom
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    # One entry: safetensors writes several in random order, and equal runs give equal files.
    content = to_safetensors(tensors, {ABOUT: json.dumps(about)})
    keep_previous(run.folder / WEIGHTS)
    write_atomically(run.folder / WEIGHTS, content)
    return hashlib.sha256(content).hexdigest()


def load_weights(run: RunSpec, sha256: str) -> dict[str, Tensor]:
    """Load the weights that `save_weights` wrote, or those before, whichever has this checksum.

    Where a process died before the checkpoint that counts an epoch, the weights before are right.

    Raises:
        Damaged: no weights have this checksum.
    """
    path = run.folder / WEIGHTS
    for place in (path, previous(path)):
        if place.is_file() and hashlib.sha256(content := place.read_bytes()).hexdigest() == sha256:
            if place != path:
                os.replace(place, path)
            return from_safetensors(content)
    fault = "damaged: the checksum does not match the checkpoint" if path.exists() else "missing"
    raise Damaged(f"{path}, the weights of the best epoch, is {fault}")


def finish(
    run: RunSpec,
    stores: Stores,
    execution: Execution,
    test: Evaluation,
    best_epoch: int,
    seconds: Mapping[str, float],
    costs: Mapping[str, float],
) -> dict[str, Any]:
    """Write predictions.csv, then result.json, whose presence says that the run is finished."""
    previous(run.folder / WEIGHTS).unlink(missing_ok=True)
    write_atomically(run.folder / "predictions.csv", test.as_csv(stores.test.ids))
    scaled = run.recipe.layer_scale is not None
    size = architecture_complexity(run.architecture, run.resolution, layer_scale=scaled)
    images = run.recipe.images_seen(len(stores.train))
    why = collapse(test.labels.tolist(), test.top[:, 0].tolist(), len(stores.classes))
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
        **({"collapsed": why} if why else {}),
        "selected_epoch": best_epoch,
        "weights_sha256": hashlib.sha256((run.folder / WEIGHTS).read_bytes()).hexdigest(),
        "epochs": run.recipe.epochs,
        "params": size.params,
        "gflops_fvcore": size.flops / 1e9,
        "gflops_paper_convention": size.flops_paper_convention / 1e9,
        "activations": size.activations,
        **costs,
        "images_per_second": images / update_seconds(seconds),
        "seconds": {**seconds, "total": sum(seconds.values())},
        "device": device_name(execution.device, execution.processes.count),
        "code_version": code_version(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    write_json(run.folder / RESULT, result)
    return result


def inference_profile(train_state: TrainState, resolution: int) -> dict[str, float]:
    """Measure what the trained network costs, for result.json. Changes batch norm's statistics.

    `inference_ms_1`, `inference_ms_64`: median milliseconds of a batch of that size on the device,
    in the run's precision and compute options, but not compiled. `peak_memory_mb`: on a GPU the
    most that tensors took; elsewhere a count of weights, gradients, moments and the activations
    that a part of the batch keeps for its backward pass.
    """
    peak = peak_memory(train_state.device) or _training_bytes(train_state, resolution)
    profile = {
        f"inference_ms_{count}": round(_inference_ms(train_state, resolution, count), 4)
        for count in (1, _LARGE_BATCH)
    }
    return {**profile, "peak_memory_mb": round(peak / 1e6, 2)}


def _training_bytes(train_state: TrainState, resolution: int) -> int:
    """Bytes that training needs, with activations as autograd keeps them of a pair of images."""
    model, recipe, device = train_state.model.train(), train_state.recipe, train_state.device
    weights = {p.untyped_storage().data_ptr(): p.nbytes for p in model.parameters()}
    kept: dict[int, Tensor] = {}  # held until counted, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    images = torch.rand(2, 3, resolution, resolution, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved)
    with hooks, autocast(train_state.precision, device):
        model(images).float().logsumexp(1).mean()
    pair = sum(kept[at].untyped_storage().nbytes() for at in kept.keys() - weights.keys())
    copies = (4 if recipe.optimizer == "adamw" else 3) + (recipe.ema is not None)
    rows = recipe.batch_size // recipe.micro_batches
    return sum(weights.values()) * copies + rows * (pair // 2)


@torch.inference_mode()
def _inference_ms(train_state: TrainState, resolution: int, count: int) -> float:
    """Median milliseconds of the network for a batch of `count` images."""
    model = train_state.eval_model.eval()
    images = torch.zeros(count, 3, resolution, resolution, device=train_state.device)
    images = images.contiguous(memory_format=train_state.options.memory_format)

    def call() -> float:
        started = time.perf_counter()
        with autocast(train_state.precision, train_state.device):
            model(images)
        wait_for(train_state.device)
        return time.perf_counter() - started

    call()  # the first one allocates and chooses kernels
    times = [call()]
    while sum(times) < _TIMING_SECONDS:
        times.append(call())
    return 1000 * statistics.median(times)
