"""A trained run as a function of images; all of it comes from the run's folder."""

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ablations.fitting import explain
from data.augment import centre_crop, finish
from data.decode import UnreadableImage, read_image, resize, resized_shape
from models import Architecture, SwinArchitecture, weights
from models.builder import empty
from studies.run import Index
from training.spec import ABOUT, WEIGHTS
from utils.files import read_bytes


@dataclass(frozen=True)
class View:
    """The preprocessing of a run's evaluation: sides in pixels, mean and deviation of colours."""

    resolution: int
    short_side: int
    """Larger images are first reduced to this short side, as the run's image store did."""
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Predictor:
    """A run's network in eval mode, its classes, and its preprocessing."""

    model: nn.Module
    architecture: Architecture | SwinArchitecture
    layer_scale: float | None
    classes: tuple[str, ...]
    step: str
    seed: int
    view: View
    folder: Path
    """The folder with the weights, which another variant may share."""

    @property
    def title(self) -> str:
        return f"{self.step} seed {self.seed}"

    def prepare(self, images: Sequence[Path]) -> Tensor:
        """Read images as float32 (N, 3, R, R): reduced, short side to R / 0.875, centre crop.

        Raises:
            ValueError: a file is not an image.
        """
        side = self.view.resolution
        crops = torch.empty((len(images), side, side, 3), dtype=torch.uint8)
        for crop, path in zip(crops, images, strict=True):
            try:
                image = read_image(path)
            except UnreadableImage as error:
                raise ValueError(
                    f"{path} cannot be read: {error}; give images, or a folder of them"
                ) from None
            height, width, _ = image.shape
            image = resize(image, resized_shape(height, width, self.view.short_side))
            crop.copy_(centre_crop(torch.from_numpy(image.copy()), side).permute(1, 2, 0))
        return finish(crops, mean=self.view.mean, std=self.view.std)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """(N, 3, R, R) from `prepare` to (N, classes); rows sum to 1."""
        logits: Tensor = self.model(images)
        return logits.float().softmax(1)

    def predict(
        self, images: Sequence[Path], top: int = 5, batch_size: int = 64
    ) -> list[list[tuple[str, float]]]:
        """Return the `top` classes of each image with their probabilities, best first.

        Raises:
            ValueError: a file is not an image, or `top` is below 1.
        """
        if top < 1:
            raise ValueError(f"top is {top}: give at least 1")
        predictions = []
        for first in range(0, len(images), batch_size):
            batch = self.probabilities(self.prepare(images[first : first + batch_size]))
            values, indices = batch.topk(min(top, len(self.classes)))
            for row, labels in zip(values.tolist(), indices.tolist(), strict=True):
                names = [self.classes[label] for label in labels]
                predictions.append(list(zip(names, row, strict=True)))
        return predictions


def load(run: Path, *, fold_layer_scale: bool = False) -> Predictor:
    """Load the network that a run saved, e.g. runs/food101/depthwise/seed-0.

    Raises:
        ValueError: no run, no weights in it, or a damaged file.
    """
    example = "such as runs/food101/depthwise/seed-0"
    if not run.is_dir():
        raise ValueError(f"there is no run {run}: give a run's folder, {example}")
    path = run / WEIGHTS
    if not path.is_file():  # another variant may have trained it
        path = Index(run.parent.parent).result_dir(run) / WEIGHTS
    if not path.is_file():
        raise ValueError(
            f"{run} holds no weights ({WEIGHTS}): give a run with a finished epoch, {example}"
        )
    _check_digest(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no safetensors file ({error}): restore it") from None
    if ABOUT not in metadata:
        raise ValueError(f"{path} has no description of its network: give a run's own {WEIGHTS}")
    try:
        about = json.loads(metadata[ABOUT])
        architecture, view = _architecture(about["architecture"]), _view(about["preprocessing"])
        classes, layer_scale = tuple(map(str, about["classes"])), about["layer_scale"]
        step, seed = str(about["step"]), int(about["seed"])
        if len(classes) != architecture.num_classes:
            raise ValueError(
                f"it names {len(classes)} classes for a network of {architecture.num_classes}"
            )
        model = empty(architecture, layer_scale=None if fold_layer_scale else layer_scale).eval()
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} does not describe a network that can be built: {reason}"
        ) from None
    if fold_layer_scale:
        state, layer_scale = weights.fold_layer_scale(state, model), None
    try:
        weights.load(model, state, "ours")
    except ValueError as error:
        raise explain(state, error, str(path)) from None
    return Predictor(model, architecture, layer_scale, classes, step, seed, view, path.parent)


def _check_digest(path: Path) -> None:
    """Raise ValueError unless the weights are those of the run's result, where there is one."""
    result = path.parent / "result.json"
    if not result.is_file():
        return
    try:
        expected = json.loads(read_bytes(result))["weights_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    if weights.sha256(path) != expected:
        raise ValueError(f"{path} is damaged, its checksum is not that of result.json: restore it")


def _architecture(fields: dict[str, Any]) -> Architecture | SwinArchitecture:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return SwinArchitecture(**values) if "embed_dim" in values else Architecture(**values)


def _view(fields: dict[str, Any]) -> View:
    mean, std = (tuple(map(float, fields[name])) for name in ("mean", "std"))
    view = View(int(fields["resolution"]), int(fields["short_side"]), mean, std)
    if min(view.resolution, view.short_side, *std) <= 0 or not len(mean) == len(std) == 3:
        raise ValueError(f"no image can be prepared with {view}")
    return view


def best_run(runs: Path) -> Path:
    """Return the run with the best validation accuracy of the study that finished a run last.

    Runs without weights, as they come out of a pack, are not candidates.

    Raises:
        ValueError: there is no finished run.
    """
    finished: list[tuple[str, float, Path]] = []
    for result in sorted(runs.glob("*/*/seed-*/result.json")):
        run = result.parent
        try:
            lines = read_bytes(run / "metrics.jsonl").splitlines()
            top1 = max(float(json.loads(line)["validation_top1"]) for line in lines)
            date = str(json.loads(read_bytes(result))["finished"])
        except (OSError, ValueError, KeyError, TypeError):  # damaged
            continue
        if (run / WEIGHTS).exists():
            finished.append((date, top1, run))
    if not finished:
        raise ValueError(
            f"no run was given and {runs} holds no finished one with weights: give --run DIR, "
            f"{runs}/STUDY/STEP/seed-0"
        )
    study = max(finished)[2].parents[1]
    return max((top1, run) for _, top1, run in finished if run.parents[1] == study)[1]


def require(module: str, package: str, extra: str) -> ModuleType:
    """Import an optional library.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"this needs {package}, and {error.name} is not installed: pip install {package}, or "
            f"this project with its extra [{extra}]"
        ) from None
