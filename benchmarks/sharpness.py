"""What decoding once costs: crops from a cache of several sizes against the same crops from the
original images.

Also makes the figure of docs/method.md: our crops beside those of torchvision's reference
transform, same boxes.

    python -m benchmarks.sharpness [IMAGE ...]

Without arguments the images are the drawn ones and the photograph that matplotlib brings along.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from benchmarks.photographs import draw
from data.augment import crop_boxes, resize
from data.decode import read_image, resized_shape
from data.decode import resize as shrink
from data.randomness import SAMPLE, uniforms
from training.spec import short_side

HOUSE = Path(__file__).parents[1]
RESULT = HOUSE / "benchmarks" / "results" / "sharpness.json"
FIGURE = HOUSE / "docs" / "images" / "images.png"
SHORT_SIDES = (224, 256, 305, 336, 384)
RESOLUTION = 224
SCALES = ((0.08, 0.08), (0.25, 0.25), (0.5, 0.5), (1.0, 1.0), (0.08, 1.0))
BOXES = 40


def photograph() -> np.ndarray:
    """matplotlib's sample photograph, brought to Food-101's longest side."""
    from matplotlib import cbook

    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((512, 512), Image.Resampling.LANCZOS)
    return np.asarray(image)


def boxes_in(shape: tuple[int, int], scale: tuple[float, float]) -> np.ndarray:
    """Random boxes (top, left, height, width) of an image of that shape."""
    numbers = uniforms(SAMPLE, 0, 0, np.arange(BOXES), 22)
    height, width = (np.full(BOXES, side) for side in shape)
    return crop_boxes(numbers, height, width, scale, (3 / 4, 4 / 3))


def crops(image: np.ndarray, boxes: np.ndarray) -> torch.Tensor:
    """uint8 (N, 3, 224, 224)."""
    tensor = torch.from_numpy(image.copy())
    return torch.cat([resize(tensor, box, RESOLUTION, RESOLUTION) for box in boxes.tolist()])


def crops_between(image: np.ndarray, boxes: np.ndarray) -> torch.Tensor:
    """As `crops`, of boxes whose edges lie between pixels; by Pillow, whose bicubic is the same
    filter."""
    pil_image, size = Image.fromarray(image), (RESOLUTION, RESOLUTION)
    edges = [
        (left, top, min(left + wide, pil_image.width), min(top + tall, pil_image.height))
        for top, left, tall, wide in boxes
    ]
    made = [np.asarray(pil_image.resize(size, Image.Resampling.BICUBIC, box=box)) for box in edges]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)


def detail(images: torch.Tensor) -> float:
    """Mean absolute difference of neighbouring pixels: falls as images blur."""
    values = images.float()
    across, down = values[..., 1:] - values[..., :-1], values[..., 1:, :] - values[..., :-1, :]
    return float(across.abs().mean() + down.abs().mean())


def measure(image: np.ndarray) -> dict[str, dict[str, dict[str, float]]]:
    """By short side and scale: mean absolute difference of crops (0 to 255), and their detail as a
    share."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for side in SHORT_SIDES:
        stored = shrink(image, resized_shape(image.shape[0], image.shape[1], side))
        down = stored.shape[0] / image.shape[0], stored.shape[1] / image.shape[1]
        rows[str(side)] = {}
        for scale in SCALES:
            # Boxes are drawn in the stored image, as training does; the original is cropped at the
            # same place.
            boxes = boxes_in((stored.shape[0], stored.shape[1]), scale)
            ours, original = (
                crops(stored, boxes),
                crops_between(image, boxes / np.array([*down, *down])),
            )
            rows[str(side)][f"{scale[0]:g} to {scale[1]:g}"] = {
                "mean_absolute_difference": float((ours.float() - original.float()).abs().mean()),
                "detail": detail(ours) / detail(original),
                "bytes": float(stored.nbytes),
            }
    return rows


def mean_of(
    tables: list[dict[str, dict[str, dict[str, float]]]],
) -> dict[str, dict[str, dict[str, float]]]:
    return {
        side: {
            scale: {
                name: float(np.mean([table[side][scale][name] for table in tables]))
                for name in cell
            }
            for scale, cell in row.items()
        }
        for side, row in tables[0].items()
    }


def figure(images: list[np.ndarray], path: Path) -> dict[str, float]:
    """Rows: ours, torchvision's reference, their difference 32 times enlarged. Returns the
    differences seen."""
    columns, worst, total, count = [], 0, 0.0, 0
    for number, image in enumerate(images):
        stored = shrink(
            image, resized_shape(image.shape[0], image.shape[1], short_side(RESOLUTION))
        )
        boxes = boxes_in((stored.shape[0], stored.shape[1]), (0.08, 1.0))
        ours = crops(stored, boxes)
        channels_first = torch.from_numpy(stored.copy()).permute(2, 0, 1)
        theirs = torch.stack(
            [
                reference.resized_crop(
                    channels_first, *box, [RESOLUTION, RESOLUTION], InterpolationMode.BICUBIC, True
                )
                for box in boxes.tolist()
            ]
        )
        pil = torch.stack(
            [
                reference.pil_to_tensor(
                    reference.resized_crop(
                        Image.fromarray(stored),
                        *box,
                        [RESOLUTION, RESOLUTION],
                        InterpolationMode.BICUBIC,
                        True,
                    )
                )
                for box in boxes.tolist()
            ]
        )
        assert torch.equal(ours, theirs), "the crops on tensors differ"
        gap = (ours.int() - pil.int()).abs()
        worst, total, count = (
            max(worst, int(gap.max())),
            total + float(gap.sum()),
            count + gap.numel(),
        )
        shown = number % BOXES
        small = [
            one[shown].permute(1, 2, 0).numpy()
            for one in (ours, pil, (gap * 32).clamp(0, 255).to(torch.uint8))
        ]
        columns.append(
            np.concatenate([np.asarray(Image.fromarray(part).resize((112, 112))) for part in small])
        )
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(columns, axis=1)).save(path, optimize=True)
    return {"largest": worst, "mean": total / count, "largest_to_torchvision_on_tensors": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.images:
        sets = {"given": [read_image(path) for path in arguments.images]}
    else:
        sets = {
            "photograph": [photograph()],
            "drawn": [np.asarray(draw(number)) for number in range(10)],
        }
    shown: dict[str, Any] = {
        name: {"n": len(some), "by_short_side": mean_of([measure(one) for one in some])}
        for name, some in sets.items()
    }
    result = {
        "what": "crops at 224 from a cache against crops of the original, levels of 0 to 255",
        "boxes_per_image": BOXES,
        "sets": shown,
        "to_torchvision_on_PIL_images": figure(
            [one for some in sets.values() for one in some][:6], FIGURE
        ),
        "versions": {
            name: importlib.metadata.version(name) for name in ("torch", "torchvision", "pillow")
        },
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    for name, some in shown.items():
        for side, row in some["by_short_side"].items():
            cells = "  ".join(
                f"{cell['mean_absolute_difference']:.2f}/{cell['detail']:.3f}"
                for cell in row.values()
            )
            print(f"{name:<11} {side}: {cells}  {next(iter(row.values()))['bytes'] / 1000:.0f} kB")
    print(result["to_torchvision_on_PIL_images"], FIGURE.stat().st_size)


if __name__ == "__main__":
    main()
