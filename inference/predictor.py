"""A trained run as a function of images; all of it comes from the run's folder."""

import importlib
import json
from collections.abc import Mapping, Sequence
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
from models import Architecture, SwinArchitecture, parts, weights
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
    custom_parts: Mapping[str, Mapping[str, str]]
    """Field of the architecture to the file and the source of a part that the user wrote."""
    folder: Path
    """The folder with the weights, which another variant may share."""

    @property
    def title(self) -> str:
        return f"{self.step} seed {self.seed}"

    def prepare(self, images: Sequence[Path], unreadable: dict[Path, str] | None = None) -> Tensor:
        """Read images as float32 (N, 3, R, R): reduced, short side to R / 0.875, centre crop.

        Args:
            unreadable: gets the files that cannot be read, which are then left out, with the
                reasons.

        Raises:
            ValueError: a file cannot be read, and `unreadable` is None.
        """
        side, crops = self.view.resolution, []
        failed: dict[Path, str] = {}
        for path in images:
            try:
                image = read_image(path)
            except UnreadableImage as error:
                failed[path] = str(error)
                continue
            height, width, _ = image.shape
            image = resize(image, resized_shape(height, width, self.view.short_side))
            crops.append(centre_crop(torch.from_numpy(image.copy()), side).permute(1, 2, 0))
        if unreadable is not None:
            unreadable.update(failed)
        elif failed:
            raise ValueError(refusal(failed))
        batch = torch.stack(crops) if crops else torch.empty((0, side, side, 3), dtype=torch.uint8)
        return finish(batch, mean=self.view.mean, std=self.view.std)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """(N, 3, R, R) from `prepare` to (N, classes); rows sum to 1."""
        logits: Tensor = self.model(images)
        return logits.float().softmax(1)

    def predict(
        self,
        images: Sequence[Path],
        top: int = 5,
        batch_size: int = 64,
        unreadable: dict[Path, str] | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Return the `top` classes of each image with their probabilities, best first.

        Args:
            unreadable: see `prepare`.

        Raises:
            ValueError: a file cannot be read, see `prepare`, or `top` is below 1.
        """
        if top < 1:
            raise ValueError(f"top is {top}: give at least 1")
        predictions = []
        for first in range(0, len(images), batch_size):
            prepared = self.prepare(images[first : first + batch_size], unreadable)
            if not len(prepared):
                continue
            batch = self.probabilities(prepared)
            values, indices = batch.topk(min(top, len(self.classes)))
            for row, labels in zip(values.tolist(), indices.tolist(), strict=True):
                names = [self.classes[label] for label in labels]
                predictions.append(list(zip(names, row, strict=True)))
        return predictions


def refusal(unreadable: Mapping[Path, str]) -> str:
    """Return a line that names every file that cannot be read, with the reason."""
    reasons = "; ".join(f"{path} cannot be read: {why}" for path, why in unreadable.items())
    return f"{reasons}; give images, or a folder of them"


def load(run: Path, *, fold_layer_scale: bool = False) -> Predictor:
    """Load the network that a run saved, e.g. runs/food101/depthwise/seed-0.

    Raises:
        ValueError: no run, no weights in it, or a damaged file.
    """
    path = _weights_of(run)
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
        predictor = _described(json.loads(metadata[ABOUT]), path.parent, fold_layer_scale)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} does not describe a network that can be built: {reason}"
        ) from None
    if fold_layer_scale:
        state = weights.fold_layer_scale(state, predictor.model)
    try:
        weights.load(predictor.model, state, "ours")
    except ValueError as error:
        raise explain(state, error, str(path)) from None
    return predictor


def _weights_of(run: Path) -> Path:
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
    return path


def _described(about: Mapping[str, Any], folder: Path, fold_layer_scale: bool) -> Predictor:
    """Return the predictor that the metadata of weights describe, without these weights."""
    custom_parts = {
        field: {"file": str(part["file"]), "source": str(part["source"])}
        for field, part in about.get("custom_parts", {}).items()
    }
    files = " or ".join({part["file"] for part in custom_parts.values()}) or "FILE.py"
    try:
        architecture = _architecture(about["architecture"])
    except parts.NoSuchPart as error:
        raise ValueError(f"{error} in a file, and give it: --roadmap {files}") from None
    for field, source in parts.sources(architecture).items():
        if custom_parts.get(field, {}).get("source", source) != source:
            raise ValueError(
                f"{field} {getattr(architecture, field)!r} was other code in training: give "
                f"--roadmap {files} as it was then"
            )
    classes = tuple(map(str, about["classes"]))
    if len(classes) != architecture.num_classes:
        raise ValueError(
            f"it names {len(classes)} classes for a network of {architecture.num_classes}"
        )
    layer_scale = None if fold_layer_scale else about["layer_scale"]
    return Predictor(
        empty(architecture, layer_scale=layer_scale).eval(),
        architecture,
        layer_scale,
        classes,
        str(about["step"]),
        int(about["seed"]),
        _view(about["preprocessing"]),
        custom_parts,
        folder,
    )


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


def best_run(runs: Path) -> tuple[Path, str]:
    """Return the run with the best validation accuracy of the study that finished a run last.

    Runs without weights, as they come out of a pack, are not candidates.

    Returns:
        The run, and a line about runs that would come first and cannot be loaded, if any.

    Raises:
        ValueError: there is no finished run that can be loaded.
    """
    finished: list[tuple[str, float, Path]] = []
    skipped: list[str] = []
    for result in sorted(runs.glob("*/*/seed-*/result.json")):
        run = result.parent
        if not (run / WEIGHTS).exists():
            continue
        try:
            lines = read_bytes(run / "metrics.jsonl").splitlines()
            top1 = max(float(json.loads(line)["validation_top1"]) for line in lines)
            date = str(json.loads(read_bytes(result))["finished"])
        except (OSError, ValueError, KeyError, TypeError):
            skipped.append(f"{run}: its records are damaged")
            continue
        finished.append((date, top1, run))
    last: dict[Path, str] = {}
    for date, _, run in sorted(finished):
        last[run.parents[1]] = date
    for _, _, run in sorted(((last[r.parents[1]], top1, r) for _, top1, r in finished))[::-1]:
        try:
            load(run)
        except ValueError as error:
            skipped.append(str(error))
            continue
        number = f"{len(skipped)} runs are skipped, such as " if skipped[1:] else "skipped: "
        return run, number + skipped[0] if skipped else ""
    reason = f" ({skipped[0]})" if skipped else ""
    raise ValueError(
        f"no run was given and {runs} holds no finished one with weights{reason}: give --run DIR, "
        f"{runs}/STUDY/STEP/seed-0"
    )


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
