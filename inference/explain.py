"""The image regions that a prediction rests on: Grad-CAM (Selvaraju et al., ICCV 2017)."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from inference.predictor import Predictor, require


def grad_cam(
    predictor: Predictor, image: Path, label: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the image as the network saw it, and the weight of each place for class `label`.

    The class is the most probable one if `label` is None.

    Returns:
        uint8 (R, R, 3), and float32 (R, R) from 0 to 1.

    Raises:
        ValueError: no such class, a network without convolutions, or grad-cam is not installed.
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
    best = int(predictor.probabilities(batch).argmax())
    target = targets.ClassifierOutputTarget(predictor.classes.index(label) if label else best)
    layer = _last_map(stages, predictor)
    with torch.enable_grad(), library.GradCAM(predictor.model, [layer]) as cam:
        heat = cam(batch, [target])[0]
    std, mean = (
        torch.tensor(each)[:, None, None] for each in (predictor.view.std, predictor.view.mean)
    )
    pixels = (255 * (batch[0] * std + mean)).round().clamp(0, 255).byte()
    return pixels.permute(1, 2, 0).contiguous().numpy(), np.asarray(heat, dtype=np.float32)


def _last_map(stages: nn.Sequential, predictor: Predictor) -> nn.Module:
    """Return the deepest stage whose map has at least 4x4 places."""
    first = predictor.view.resolution // predictor.architecture.stem_stride
    deep = [stage for index, stage in enumerate(stages) if first // 2**index >= 4]
    return deep[-1] if deep else stages[0]
