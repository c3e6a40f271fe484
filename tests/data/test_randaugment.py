"""RandAugment's operations against PIL, called as timm calls it, on photograph-like images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from data import randaugment

FILL = (124, 116, 104)
SHIFTS = ("shear-x", "shear-y", "translate-x", "translate-y")


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colour with fine grain, some of it burnt out and some of it black."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, 3, 5, 6), generator=generator) * 420 - 80
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[
        0
    ].permute(1, 2, 0)
    grain = torch.randn((height, width, 3), generator=generator) * 12
    return (smooth + grain).clamp(0, 255).to(torch.uint8).contiguous().numpy()


def by_pil(op: str, value: float, pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels)
    width, height = image.size
    matrices = {
        "shear-x": (1, value, 0, 0, 1, 0),
        "shear-y": (1, 0, 0, value, 1, 0),
        "translate-x": (1, 0, value * width, 0, 1, 0),
        "translate-y": (1, 0, 0, 0, 1, value * height),
    }
    match op:
        case "autocontrast":
            return np.asarray(ImageOps.autocontrast(image))
        case "equalize":
            return np.asarray(ImageOps.equalize(image))
        case "invert":
            return np.asarray(ImageOps.invert(image))
        case "posterize":
            # No bits kept is black, as in the Pillow of the paper's time; Pillow 13 refuses it.
            return (
                np.asarray(ImageOps.posterize(image, int(value)))
                if value
                else np.zeros_like(pixels)
            )
        case "solarize":
            return np.asarray(ImageOps.solarize(image, int(value)))
        case "solarize-add":
            return np.asarray(
                image.point([min(255, i + int(value)) if i < 128 else i for i in range(256)] * 3)
            )
        case "color" | "contrast" | "brightness" | "sharpness":
            return np.asarray(getattr(ImageEnhance, op.title())(image).enhance(value))
        case "rotate":
            return np.asarray(
                image.rotate(value, resample=Image.Resampling.BICUBIC, fillcolor=FILL)
            )
    method, resample = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    return np.asarray(
        image.transform(image.size, method, matrices[op], resample=resample, fillcolor=FILL)
    )


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (64, 48), (7, 9), (2, 2), (1, 1)])
@pytest.mark.parametrize("op", randaugment.OPS)
def test_every_operation_gives_pils_image(op: str, size: tuple[int, int]) -> None:
    for seed, (level, sign) in enumerate(
        [(9.0, 1.0), (9.0, -1.0), (10.0, 1.0), (8.27, -1.0), (3.3, 1.0), (0.0, 1.0)]
    ):
        before = image(*size, seed=seed)
        value = randaugment.argument(op, level, sign)
        expected = by_pil(op, value, before)
        after = before.copy()
        randaugment.apply(op, value, after, FILL)
        difference = np.abs(after.astype(int) - expected.astype(int))
        if op in SHIFTS:
            assert difference.max() <= 1, (level, sign)
            assert (difference > 0).sum() <= max(0.005 * difference.size, 3), (level, sign)
        else:
            np.testing.assert_array_equal(after, expected, err_msg=f"{level} {sign}")


def test_a_flat_image_is_left_flat() -> None:
    flat = np.full((32, 32, 3), FILL, np.uint8)
    for op in ("autocontrast", "equalize", "sharpness", "contrast", "rotate", *SHIFTS):
        after = flat.copy()
        randaugment.apply(op, randaugment.argument(op, 9.0, 1.0), after, FILL)
        expected = by_pil(op, randaugment.argument(op, 9.0, 1.0), flat)
        np.testing.assert_array_equal(after, expected, err_msg=op)


@pytest.mark.parametrize("level", [0.0, 2.5, 8.3, 9.0, 9.71, 10.0])
def test_arguments_are_timms(level: float) -> None:
    timm = pytest.importorskip(
        "timm.data.auto_augment", reason="an extra comparison where timm is installed"
    )
    names = timm._RAND_INCREASING_TRANSFORMS
    assert len(names) == len(randaugment.OPS)
    for op, name in zip(randaugment.OPS, names, strict=True):
        to_argument = timm.LEVEL_TO_ARG[name]
        if to_argument is None:
            continue
        seen = {
            to_argument(level, {}) if op != "posterize" else (to_argument(level, {}),)
            for _ in range(40)
        }
        theirs = sorted(float(np.ravel(value)[0]) for value in seen)
        ours = sorted({randaugment.argument(op, level, sign) for sign in (1.0, -1.0)})
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12, err_msg=op)
