"""Where a network looked: Grad-CAM (Selvaraju et al., ICCV 2017), computed by the library
grad-cam."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from inference.optional import require
from inference.predictor import Predictor


def grad_cam(
    predictor: Predictor, image: Path, label: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The image as the network saw it, and how much each place spoke for the class `label` (its
    best, if None).

    Returns:
        uint8 (R, R, 3), and float32 (R, R) from 0 to 1.

    Raises:
        ValueError: there is no such class, grad-cam is not installed, or the network is Swin
            (Grad-CAM is for convolutional networks).
    """
    library = require("pytorch_grad_cam", "grad-cam", "explain")
    targets = require("pytorch_grad_cam.utils.model_targets", "grad-cam", "explain")
    stages = getattr(predictor.model, "stages", None)
    if stages is None:
        raise ValueError(
            f"Grad-CAM is for convolutional networks and {predictor.step} is none: choose another "
            "step"
        )
    if label is not None and label not in predictor.classes:
        raise ValueError(
            f"there is no class {label!r}: choose one of {', '.join(predictor.classes)}"
        )
    batch = predictor.prepare([image])
    place = (
        predictor.classes.index(label) if label else int(predictor.probabilities(batch).argmax())
    )
    with (
        torch.enable_grad(),
        library.GradCAM(predictor.model, [_last_map(stages, predictor)]) as cam,
    ):
        heat = cam(batch, [targets.ClassifierOutputTarget(place)])[0]
    return _as_image(predictor, batch[0]), np.asarray(heat, dtype=np.float32)


def _last_map(stages: nn.Sequential, predictor: Predictor) -> nn.Module:
    """The deepest stage whose map still has 4x4 places: one place shows nothing."""
    sides = [
        predictor.view.resolution // (predictor.architecture.stem_stride * 2**i)
        for i in range(len(stages))
    ]
    deepest: nn.Module = stages[max(sum(side >= 4 for side in sides) - 1, 0)]
    return deepest


def _as_image(predictor: Predictor, image: Tensor) -> np.ndarray:
    std, mean = (
        torch.tensor(values)[:, None, None] for values in (predictor.view.std, predictor.view.mean)
    )
    pixels = (255 * (image * std + mean)).round().clamp(0, 255).byte()
    return np.asarray(pixels.permute(1, 2, 0).contiguous().numpy())
