"""RandAugment's operations (Cubuk et al. 2019) in the variant the paper trains with: timm's
`rand-m9-mstd0.5-inc1`.

timm applies them through PIL, and so does this module where PIL is fast. The others are the same
arithmetic on whole arrays: equal to PIL to the bit, but for the four shifts (shear and translate),
whose cubic weights are rounded to 2**-14 so that their float sums are exact in any order; one value
in two thousand differs from PIL's, by one level.
"""

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageEnhance
from torch import Tensor

OPS = (
    *("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize-add"),
    *("color", "contrast", "brightness", "sharpness"),
    *("shear-x", "shear-y", "translate-x", "translate-y"),
)
"""The fifteen operations of timm's increasing set, in its order; each is chosen with equal
probability."""

Pixels = npt.NDArray[np.uint8]
Shifts = npt.NDArray[np.floating]
Fill = tuple[int, int, int]
# The fixed-point unit of the shifts' weights: 255 * 1.5 * 2**14 < 2**24, so float32 sums are exact.
_ONE = 1 << 14


def argument(op: str, level: float, sign: float) -> float:
    """The argument of an operation at magnitude `level` in [0, 10]; `sign` (1 or -1) is used where
    both directions exist.

    rotate: degrees; shear: slope; translate: share of the side; color to sharpness: blend factor, 1
    changes nothing; posterize: bits kept (at level 10 none: black, as in Pillow of the paper's
    time; Pillow 13 refuses); solarize: threshold; solarize-add: the amount added below 128; 0
    for the rest.
    """
    match op:
        case "rotate":
            return sign * level * 3.0
        case "shear-x" | "shear-y":
            return sign * level * 0.03
        case "translate-x" | "translate-y":
            return sign * level * 0.045
        case "color" | "contrast" | "brightness" | "sharpness":
            return max(0.1, 1.0 + sign * level * 0.09)
        case "posterize":
            return 4 - int(level / 10.0 * 4)
        case "solarize":
            return 256 - min(256, int(level / 10.0 * 256))
        case "solarize-add":
            return min(128, int(level / 10.0 * 110))
    return 0.0


def apply(op: str, value: float, image: Pixels, fill: Fill) -> None:
    """One operation with its `argument`, in place; image: uint8 (H, W, 3), contiguous; fill:
    outside's colour."""
    height, width, _ = image.shape
    match op:
        case "autocontrast":
            _autocontrast(image)
        case "equalize":
            _equalize(image)
        case "color":
            image[:] = np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(value))
        case "rotate":
            rotated = Image.fromarray(image).rotate(
                value, resample=Image.Resampling.BICUBIC, fillcolor=fill
            )
            image[:] = np.asarray(rotated)
        case "invert":
            np.bitwise_xor(image, 255, out=image)
        case "posterize":
            np.bitwise_and(image, 256 - (1 << 8 - int(value)), out=image)
        case "solarize":
            np.bitwise_xor(image, _all_ones(image >= int(value)), out=image)
        case "solarize-add":
            np.add(image, _all_ones(image < 128) & int(value), out=image)
        case "brightness":
            _blend(np.float32(0), image.astype(np.float32), value, out=image)
        case "contrast":
            grey = np.asarray(Image.fromarray(image).convert("L"))
            _blend(np.float32(int(grey.mean() + 0.5)), image.astype(np.float32), value, out=image)
        case "sharpness":
            _sharpen(image, value)
        case "shear-x":
            _shift_rows(image, value * (np.arange(float(height)) + 0.5), fill)
        case "shear-y":
            _shift_columns(image, value * (np.arange(float(width)) + 0.5), fill)
        case "translate-x":
            _shift_rows(image, np.full(height, value * width), fill)
        case "translate-y":
            _shift_columns(image, np.full(width, value * height), fill)
        case _:
            raise AssertionError(op)


def _levels(image: Pixels) -> Tensor:
    """Each byte as an index into three tables of 256 entries, one a channel; int32, flat."""
    width = image.shape[1]
    channel = torch.tensor([0, 256, 512], dtype=torch.int32).repeat(width)
    return torch.add(torch.from_numpy(image).view(-1, width * 3), channel).flatten()


def _look_up(image: Pixels, levels: Tensor, table: npt.NDArray[np.generic]) -> None:
    bytes_ = torch.from_numpy(table.clip(0, 255).astype(np.uint8)).flatten()
    torch.index_select(bytes_, 0, levels, out=torch.from_numpy(image).view(-1))


def _autocontrast(image: Pixels) -> None:
    """Stretch each channel from its darkest and brightest value to 0 and 255; a flat channel
    stays."""
    rows = torch.from_numpy(image)
    low, high = (
        end.numpy()[:, None].astype(np.float64)
        for end in (rows.amin(0).amin(0), rows.amax(0).amax(0))
    )
    scale = 255.0 / np.maximum(high - low, 1)
    level = np.arange(256.0)
    table = np.where(high > low, np.trunc(level * scale + -low * scale), level)
    _look_up(image, _levels(image), table)


def _equalize(image: Pixels) -> None:
    """Spread each channel's histogram evenly, by PIL's integer arithmetic; too few pixels to do so:
    unchanged."""
    levels = _levels(image)
    counts = torch.bincount(levels, minlength=768).view(3, 256).numpy()
    up_to = counts.cumsum(axis=1)
    brightest = counts[np.arange(3), 255 - (counts[:, ::-1] > 0).argmax(axis=1)]
    step = ((up_to[:, -1] - brightest) // 255)[:, None]
    table = (step // 2 + up_to - counts) // np.maximum(step, 1)
    _look_up(image, levels, np.where(step > 0, table, np.arange(256)))


def _all_ones(mask: npt.NDArray[np.bool_]) -> Pixels:
    return np.negative(mask.view(np.uint8))


def _blend(
    degenerate: npt.NDArray[np.float32] | np.float32,
    pixels: npt.NDArray[np.float32],
    factor: float,
    out: Pixels,
) -> None:
    """PIL's Image.blend, in its float32 arithmetic: cut, not rounded. `pixels` is used up."""
    np.subtract(pixels, degenerate, out=pixels)
    np.multiply(pixels, np.float32(factor), out=pixels)
    np.add(pixels, degenerate, out=pixels)
    _to_bytes(pixels, out)


def _to_bytes(pixels: npt.NDArray[np.float32], out: Pixels) -> None:
    torch.from_numpy(pixels).clamp_(0, 255)  # twice as fast as numpy's clip
    np.copyto(out, pixels, casting="unsafe")


def _sharpen(image: Pixels, factor: float) -> None:
    """Blend with PIL's SMOOTH filter, ((1, 1, 1), (1, 5, 1), (1, 1, 1)) / 13, which leaves the
    border as it is."""
    height, width, _ = image.shape
    if min(height, width) < 3:
        return
    pixels = image.reshape(height, width * 3).astype(np.int16)
    total = pixels[:-2] + pixels[1:-1]
    total += pixels[2:]
    inside = pixels[1:-1, 3:-3]
    smooth = total[:, :-6] + total[:, 3:-3]
    smooth += total[:, 6:]
    smooth += inside * np.int16(4)
    degenerate = smooth.astype(np.float32)
    # Never a tie: a multiple of 1/13 is no half. The small extra keeps float error from crossing a
    # whole number.
    degenerate *= np.float32(1 / 13)
    degenerate += np.float32(0.5 + 1e-4)
    np.trunc(degenerate, out=degenerate)
    _blend(
        degenerate,
        inside.astype(np.float32),
        factor,
        out=image.reshape(height, width * 3)[1:-1, 3:-3],
    )


def _cubic(offset: Shifts) -> npt.NDArray[np.float32]:
    """Weights of the four pixels around a point `offset` in [0, 1) after the second: PIL's cubic, a
    = -1; (4, n)."""
    first = offset * (-1 + offset * (2 - offset))
    third = offset * (1 + offset * (1 - offset))
    fourth = offset * offset * (offset - 1)
    outer = np.rint(np.stack([first, third, fourth]) * _ONE)
    return np.stack([outer[0], _ONE - outer.sum(axis=0), outer[1], outer[2]]).astype(np.float32)


def _shift_rows(image: Pixels, shift: Shifts, fill: Fill) -> None:
    """Row y takes its pixels from shift[y] further right, as Image.transform(AFFINE, BICUBIC);
    outside: `fill`."""
    height, width, _ = image.shape
    whole = np.floor(shift).astype(np.int64)
    reach = int(np.abs(whole).max()) + 3
    wide = np.empty((height, width + 2 * reach, 3), np.uint8)
    wide[:, reach : reach + width] = image
    # The cubic looks at most two pixels past the border; what lies further out is painted over.
    wide[:, reach - 2 : reach] = image[:, :1]
    wide[:, reach + width : reach + width + 2] = image[:, -1:]
    windows = sliding_window_view(wide.reshape(height, -1), (width + 3) * 3, axis=1)
    near = torch.from_numpy(windows[np.arange(height), (whole + reach - 1) * 3]).float().numpy()
    taps = [near[:, 3 * tap : 3 * (tap + width)] for tap in range(4)]
    column = np.repeat(np.arange(width, dtype=np.int16), 3)
    _filter(taps, _cubic(shift - whole)[:, :, None], column, shift[:, None], width, image, fill)


def _shift_columns(image: Pixels, shift: Shifts, fill: Fill) -> None:
    """Column x takes its pixels from shift[x] further down; outside: `fill`."""
    height, width, _ = image.shape
    whole = np.floor(shift).astype(np.int32)
    reach = int(np.abs(whole).max()) + 3
    tall = np.empty((height + 2 * reach, width * 3), np.uint8)
    tall[reach : reach + height] = image.reshape(height, width * 3)
    tall[reach - 2 : reach] = tall[reach]
    tall[reach + height : reach + height + 2] = tall[reach + height - 1]
    first = (np.repeat(whole, 3) + (reach - 1)) * (width * 3) + np.arange(width * 3, dtype=np.int32)
    places = torch.from_numpy(first) + torch.arange(height + 3, dtype=torch.int32)[:, None] * (
        width * 3
    )
    near = torch.from_numpy(tall).flatten().index_select(0, places.flatten())
    rows = near.view(height + 3, width * 3).float().numpy()
    taps = [rows[tap : tap + height] for tap in range(4)]
    row = np.arange(height, dtype=np.int16)[:, None]
    shift = np.repeat(shift, 3)
    _filter(taps, _cubic(shift - np.floor(shift))[:, None], row, shift, height, image, fill)


def _filter(
    taps: list[npt.NDArray[np.float32]],
    weights: npt.NDArray[np.float32],
    place: npt.NDArray[np.int16],
    shift: Shifts,
    size: int,
    image: Pixels,
    fill: Fill,
) -> None:
    """The weighted sum of four taps where the source, place + shift + 0.5, lies in [0, size), and
    `fill` elsewhere."""
    out = image.reshape(len(image), -1)
    total = torch.from_numpy(taps[0]) * torch.from_numpy(weights[0])
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        total.addcmul_(torch.from_numpy(tap), torch.from_numpy(weight))
    _to_bytes(total.mul_(1 / _ONE).numpy(), out)  # cut, not rounded, as in PIL
    # All shifts have one sign, so that only one border can be crossed; int16 is compared twice as
    # fast as int32.
    if shift.max() > 0:
        inside = _all_ones(place < np.ceil(size - shift - 0.5).astype(np.int16))
    else:
        inside = _all_ones(place >= np.ceil(-shift - 0.5).astype(np.int16))
    out &= inside
    np.invert(inside, out=inside)
    inside &= np.tile(np.array(fill, np.uint8), image.shape[1])
    out |= inside
