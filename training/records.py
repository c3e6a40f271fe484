"""What a run leaves in its folder: config, environment, metrics, TensorBoard events, weights, result."""

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from data.files import write_atomically
from models.complexity import architecture_complexity
from training.device import code_version, device_name, environment
from training.evaluation import Evaluation
from training.run import Execution, Layout, Run, Stores
from training.study import write_json

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

METRICS, WEIGHTS, RESULT = "metrics.jsonl", "model.safetensors", "result.json"
ABOUT = "about"
"""The entry of the weights' metadata: JSON that says what they are."""


def begin(run: Run, device: torch.device, layout: Layout) -> None:
    """Write what is known before the first update: config.json and environment.json."""
    config = {
        "study": run.study.name,
        "study_hash": run.study.hash,
        "step": run.step,
        "number": run.number,
        "seed": run.seed,
        "architecture": asdict(run.architecture),
        "recipe": asdict(run.recipe),
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    write_json(run.folder / "config.json", config)
    write_json(run.folder / "environment.json", {**environment(device), "layout": asdict(layout)})


def clear(folder: Path) -> None:
    """Remove a run, so that it can be made again. The lock, held by the caller, stays."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def open_board(run: Run, update: int) -> "SummaryWriter":
    """TensorBoard events of the run; those from `update` on that an interrupted process wrote are hidden."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tensorboard imports what setuptools and numpy call deprecated
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(run.folder), purge_step=update)


def log(board: "SummaryWriter", metrics: Mapping[str, Any]) -> None:
    """An epoch's metrics to TensorBoard, against optimizer updates."""
    for name in ("lr", "train_loss", "validation_loss", "validation_top1", "images_per_second"):
        board.add_scalar(name.replace("_", "/", 1), metrics[name], metrics["update"])
    for phase, seconds in metrics["seconds"].items():
        board.add_scalar(f"seconds/{phase}", seconds, metrics["update"])


def append_metrics(path: Path, length: int, metrics: Mapping[str, Any]) -> int:
    """Put a line after the first `length` bytes of metrics.jsonl, drop what follows, return the new length.

    What follows was written by a process that died before the checkpoint that counts it.
    """
    with open(path, "r+b" if path.exists() else "w+b") as file:
        file.truncate(length)
        file.seek(length)
        file.write((json.dumps(metrics) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def save_weights(run: Run, model: nn.Module, classes: tuple[str, ...], epoch: int) -> None:
    """model.safetensors, which also says what the weights are and how pictures are to be prepared for them."""
    augmentation = run.augmentation()
    about = {
        "study_hash": run.study.hash,
        "step": run.step,
        "seed": run.seed,
        "epoch": epoch,
        "architecture": asdict(run.architecture),
        "layer_scale": run.recipe.layer_scale,
        "classes": classes,
        "preprocessing": {
            "resolution": augmentation.resolution,
            "mean": augmentation.mean,
            "std": augmentation.std,
        },
    }
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    # One entry: safetensors writes several in random order, and equal runs should give equal files.
    write_atomically(run.folder / WEIGHTS, to_safetensors(tensors, {ABOUT: json.dumps(about)}))


def finish(
    run: Run, stores: Stores, execution: Execution, test: Evaluation, selected_epoch: int, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Write predictions.csv, then result.json, whose presence says that the run is finished."""
    write_atomically(run.folder / "predictions.csv", test.as_csv(stores.test.ids).encode(errors="surrogateescape"))
    scaled = run.recipe.layer_scale is not None
    size = architecture_complexity(run.architecture, run.study.config.resolution, layer_scale=scaled)
    training = sum(seconds[phase] for phase in ("data", "forward", "backward", "optimizer"))
    pictures = run.recipe.epochs * (len(stores.train) // run.recipe.batch_size) * run.recipe.batch_size
    result = {
        "step": run.step,
        "number": run.number,
        "seed": run.seed,
        "study": run.study.name,
        "study_hash": run.study.hash,
        "top1": test.top1,
        "top5": test.top5,
        "loss": test.loss,
        "test_images": len(test.labels),
        "selected_epoch": selected_epoch,
        "epochs": run.recipe.epochs,
        "params": size.params,
        "gflops_fvcore": size.flops / 1e9,
        "gflops_paper_convention": size.flops_paper_convention / 1e9,
        "activations": size.activations,
        "images_per_second": pictures / training,
        "seconds": {**seconds, "total": sum(seconds.values())},
        "device": device_name(execution.device),
        "code_version": code_version(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    write_json(run.folder / RESULT, result)
    return result
