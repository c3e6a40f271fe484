"""A trained run as something to ask: images in, probabilities out. All of it comes from the run,
nothing from a default."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ablations.fitting import explain
from data.augment import centre_crop, finish
from data.decode import UnreadableImage, read_image, resize, resized_shape
from models import Architecture, SwinArchitecture, parts, weights
from models.builder import empty
from studies.index import Index
from training.spec import ABOUT, WEIGHTS
from utils.files import read_bytes


@dataclass(frozen=True)
class View:
    """How a network looks at images, as in its run's evaluation: side in pixels, mean and deviation
    of colours."""

    resolution: int
    short_side: int
    """Pixels to which larger images were brought down when they were decoded, before they were
    cropped."""
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if (
            min(self.resolution, self.short_side) < 1
            or len(self.mean) != 3
            or len(self.std) != 3
            or min(self.std) <= 0
        ):
            raise ValueError(f"images cannot be looked at with {self}")


@dataclass(frozen=True)
class Predictor:
    """A run's network in eval mode, its classes, and how images are prepared for it."""

    model: nn.Module
    architecture: Architecture | SwinArchitecture
    layer_scale: float | None
    classes: tuple[str, ...]
    step: str
    seed: int
    view: View
    folder: Path
    """The run's own: where another row shares it, not that row's."""

    @property
    def title(self) -> str:
        return f"{self.step} seed {self.seed}"

    def prepare(self, images: Sequence[Path]) -> Tensor:
        """float32 (N, 3, R, R): brought down as the run's own, short side to R / 0.875, centre
        crop, normalised.

        Raises:
            ValueError: a file is not an image; names it.
        """
        crops = torch.empty(
            (len(images), self.view.resolution, self.view.resolution, 3), dtype=torch.uint8
        )
        for crop, path in zip(crops, images, strict=True):
            crop.copy_(
                centre_crop(_read(path, self.view.short_side), self.view.resolution).permute(
                    1, 2, 0
                )
            )
        return finish(crops, mean=self.view.mean, std=self.view.std)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """(N, 3, R, R) as `prepare` makes them to (N, classes), rows of sum 1."""
        logits: Tensor = self.model(images)
        return logits.float().softmax(1)

    def predict(
        self, images: Sequence[Path], top: int = 5, batch_size: int = 64
    ) -> list[list[tuple[str, float]]]:
        """For each image its `top` classes (or all, if there are fewer) and probabilities, best
        first.

        Raises:
            ValueError: a file is not an image, or `top` is below 1.
        """
        if top < 1:
            raise ValueError(f"top is {top}: give at least 1")
        found = []
        for first in range(0, len(images), batch_size):
            best = self.probabilities(self.prepare(images[first : first + batch_size]))
            values, indices = best.topk(min(top, len(self.classes)))
            for row, places in zip(values.tolist(), indices.tolist(), strict=True):
                found.append(
                    [(self.classes[place], value) for place, value in zip(places, row, strict=True)]
                )
        return found


def _read(path: Path, short_side: int) -> Tensor:
    try:
        image = read_image(path)
        return torch.from_numpy(
            resize(image, resized_shape(image.shape[0], image.shape[1], short_side)).copy()
        )
    except UnreadableImage as error:
        raise UnreadableImage(
            f"{path} cannot be read: {error}; give images, or a folder of them"
        ) from None


def load(run: Path, *, fold_layer_scale: bool = False) -> Predictor:
    """The network that a run saved, e.g. runs/food101/depthwise/seed-0.

    Raises:
        ValueError: no run, no weights in it, weights of another architecture, or another number of
            classes.
    """
    path = run / WEIGHTS
    if not path.is_file():  # another row may have made it
        path = Index(run.parent.parent).home(run) / WEIGHTS
    if not run.is_dir():
        raise ValueError(
            f"there is no run {run}: give a run's folder, such as runs/food101/depthwise/seed-0"
        )
    if not path.is_file():
        raise ValueError(
            f"{run} holds no weights ({WEIGHTS}): give a run whose first epoch is finished, such "
            "as "
            "runs/food101/depthwise/seed-0"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} is no safetensors file ({error}): restore it, or train the run again"
        ) from None
    _require_checksum(path)
    if ABOUT not in metadata:
        raise ValueError(
            f"{path} does not say what it holds: give a run's own {WEIGHTS}, or start a run from it"
        )
    try:
        about: dict[str, Any] = json.loads(metadata[ABOUT])
        classes, layer_scale, look = (
            tuple(map(str, about["classes"])),
            about["layer_scale"],
            about["preprocessing"],
        )
        step, seed = str(about["step"]), int(about["seed"])
        view = View(
            int(look["resolution"]),
            int(look["short_side"]),
            tuple(look["mean"]),
            tuple(look["std"]),
        )
        architecture = _architecture(about["architecture"])
        model = empty(architecture, layer_scale=None if fold_layer_scale else layer_scale).eval()
    except parts.NoSuchPart as error:
        raise ValueError(
            f"the network in {path} has a part of its trainer's own: {error}"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{path} is damaged, it does not describe a network ({reason}): restore it"
        ) from None
    if architecture.num_classes != len(classes):
        raise ValueError(
            f"{path} names {len(classes)} classes and describes a network for "
            f"{architecture.num_classes}: "
            "restore it, or train the run again"
        )
    if fold_layer_scale:
        state, layer_scale = weights.fold_layer_scale(state, model), None
    try:
        weights.load(model, state, "ours")
    except ValueError as error:
        raise explain(state, error, str(path)) from None
    return Predictor(model, architecture, layer_scale, classes, step, seed, view, path.parent)


def _require_checksum(path: Path) -> None:
    """Raise ValueError where a finished run's result knows another checksum of its weights."""
    try:
        expected = json.loads(read_bytes(path.parent / "result.json"))["weights_sha256"]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ):  # an unfinished run, an export, an older run
        return
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise ValueError(
            f"{path} is damaged, its checksum is not what result.json says: restore it"
        )


def _architecture(fields: dict[str, Any]) -> Architecture | SwinArchitecture:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return SwinArchitecture(**values) if "embed_dim" in values else Architecture(**values)
