"""The changes to a training image between the store and the network, and the random decisions
behind them.

Decisions (`draw`) are pure functions of (seed, epoch, sample index), for a whole batch at once. The
pixels follow from them without further randomness: `augment_batch` gives uint8 images on the CPU,
`finish` the network's floats on any device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from data import randaugment, randomness
from data.augmentation import MEAN, STD, Augmentation
from data.randomness import Floats, Ints

_CROP_TRIES = 10
_CROP_RATIO = (3 / 4, 4 / 3)
_RAND_AUGMENT_OPS = 2
_ERASE_TRIES = 10
_ERASE_AREA = (0.02, 1 / 3)
_ERASE_RATIO = (0.3, 1 / 0.3)
_NOISE_BANK = 1 << 20
_CACHED = 1 << 15  # pixels finished together: 400 kB of float32 stay in a core's second-level cache


@dataclass(frozen=True)
class Draws:
    """The decisions for B images, one row each."""

    crop: Ints  # (B, 4): top, left, height, width in the stored image
    flip: npt.NDArray[np.bool_]  # (B,)
    ops: Ints  # (B, n): index into randaugment.OPS, -1 where not applied
    levels: Floats  # (B, n): magnitude within 0 to 10
    signs: Floats  # (B, n): 1 or -1
    jitter_order: Ints  # (B,): one of the six orders
    jitter: Floats  # (B, 3): factors for brightness, contrast, saturation
    erase: Ints  # (B, 4): top, left, height, width; height 0 where not erased
    noise: Ints  # (B,): where in the noise bank the erased pixels are read


def draw(
    augmentation: Augmentation,
    resolution: int,
    sizes: Ints,
    seed: int,
    epoch: int,
    indices: npt.ArrayLike,
) -> Draws:
    """The decisions for the samples `indices` (B,), whose stored images have `sizes` (B, 2):
    heights and widths.

    The network sees them at `resolution` x `resolution` pixels.
    """
    count = _RAND_AUGMENT_OPS if augmentation.rand_augment_magnitude else 0
    crops, erasing = 2 * _CROP_TRIES + 2, 2 * _ERASE_TRIES + 4
    table = randomness.uniforms(
        randomness.SAMPLE, seed, epoch, indices, 1 + crops + erasing + 4 + 5 * count
    )
    flip, crop, erase, jitter, layers = np.split(table, np.cumsum([1, crops, erasing, 4]), axis=1)
    choice, chosen, first, second, sign = np.moveaxis(layers.reshape(len(table), count, 5), 2, 0)
    ops = np.where(chosen < 0.5, (choice * len(randaugment.OPS)).astype(np.int64), -1)
    levels = (
        augmentation.rand_augment_magnitude
        + augmentation.rand_augment_std * randomness.normals(first, second)
    )
    low, high = max(0.0, 1.0 - augmentation.jitter), 1.0 + augmentation.jitter
    return Draws(
        crop=crop_boxes(crop, sizes[:, 0], sizes[:, 1], augmentation.crop_scale, _CROP_RATIO),
        flip=flip[:, 0] < augmentation.flip,
        ops=ops,
        levels=levels.clip(0.0, 10.0),
        signs=np.where(sign < 0.5, 1.0, -1.0),
        jitter_order=(jitter[:, 0] * 6).astype(np.int64),
        jitter=low + (high - low) * jitter[:, 1:],
        erase=erase_boxes(erase, resolution, augmentation.random_erasing),
        noise=(erase[:, -1] * _NOISE_BANK).astype(np.int64),
    )


def _first_fit(
    area: Floats,
    log_ratio: Floats,
    height: npt.ArrayLike,
    width: npt.ArrayLike,
) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Height, width and success of the first try in each row that lies in height x width. A try is
    an area in pixels and the log of width / height."""
    root, tilt = np.sqrt(area), np.exp(0.5 * log_ratio)
    wide, high = np.rint(root * tilt), np.rint(root / tilt)
    inside = (wide <= np.reshape(width, (-1, 1))) & (high <= np.reshape(height, (-1, 1)))
    fits = (wide > 0) & (high > 0) & inside
    rows, try_ = np.arange(len(fits)), fits.argmax(axis=1)
    return high[rows, try_].astype(np.int64), wide[rows, try_].astype(np.int64), fits[rows, try_]


def crop_boxes(
    uniforms: Floats,
    height: Ints,
    width: Ints,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> Ints:
    """Boxes (top, left, height, width) distributed as torchvision's RandomResizedCrop.get_params.

    Ten tries at an area uniform in `scale` and a log-uniform ratio, then the centre crop of the
    nearest legal ratio. uniforms: (B, 22); height, width: (B,) pixels.
    """
    area = (height * width)[:, None] * (
        scale[0] + (scale[1] - scale[0]) * uniforms[:, :_CROP_TRIES]
    )
    low, high = math.log(ratio[0]), math.log(ratio[1])
    tall, wide, fits = _first_fit(
        area, low + (high - low) * uniforms[:, _CROP_TRIES:-2], height, width
    )
    centre_wide = np.minimum(width, np.rint(height * ratio[1]).astype(np.int64))
    centre_tall = np.minimum(height, np.rint(width / ratio[0]).astype(np.int64))
    tall = np.where(fits, tall, np.maximum(centre_tall, 1))
    wide = np.where(fits, wide, np.maximum(centre_wide, 1))
    spare_y, spare_x = height - tall, width - wide
    top = np.where(fits, (uniforms[:, -2] * (spare_y + 1)).astype(np.int64), spare_y // 2)
    left = np.where(fits, (uniforms[:, -1] * (spare_x + 1)).astype(np.int64), spare_x // 2)
    return np.stack([top, left, tall, wide], axis=1)


def erase_boxes(uniforms: Floats, size: int, probability: float) -> Ints:
    """Boxes distributed as timm's RandomErasing: ten tries at an area and a ratio, none if all are
    too large.

    uniforms: (B, 24), the last column being left for the noise.
    """
    span, low = _ERASE_AREA[1] - _ERASE_AREA[0], math.log(_ERASE_RATIO[0])
    area = size * size * (_ERASE_AREA[0] + span * uniforms[:, :_ERASE_TRIES])
    log_ratio = (
        low + (math.log(_ERASE_RATIO[1]) - low) * uniforms[:, _ERASE_TRIES : 2 * _ERASE_TRIES]
    )
    tall, wide, fits = _first_fit(area, log_ratio, size - 1, size - 1)
    chosen, y, x = uniforms[:, -4], uniforms[:, -3], uniforms[:, -2]
    erased = (chosen < probability) & fits
    top, left = (y * (size - tall + 1)).astype(np.int64), (x * (size - wide + 1)).astype(np.int64)
    return np.stack([top, left, tall, wide], axis=1) * erased[:, None]


def augment_batch(
    augmentation: Augmentation, resolution: int, draws: Draws, images: Sequence[Tensor]
) -> Tensor:
    """Crop, flip and recolour: B stored images (uint8, H x W x 3) to one uint8 tensor (B, R, R,
    3)."""
    size, jitter = resolution, augmentation.jitter
    fill = (round(255 * MEAN[0]), round(255 * MEAN[1]), round(255 * MEAN[2]))
    batch = torch.empty((len(images), size, size, 3), dtype=torch.uint8)
    crops, flips, ops = draws.crop.tolist(), draws.flip.tolist(), draws.ops.tolist()
    # One image at a time stays in the cache of the core from its crop to its last operation.
    targets = torch.split(batch.permute(0, 3, 1, 2), 1)
    for row, (image, target) in enumerate(zip(images, targets, strict=True)):
        target.copy_(resize(image, crops[row], size, size))
        if flips[row]:
            target.copy_(target.flip(3))
        for layer, op in enumerate(ops[row]):
            if op >= 0:
                name, level = randaugment.OPS[op], draws.levels[row, layer]
                value = randaugment.argument(name, level, draws.signs[row, layer])
                randaugment.apply(name, value, batch[row].numpy(), fill)
        if jitter:
            for part in _ORDERS[draws.jitter_order[row]]:
                randaugment.apply(_JITTER[part], draws.jitter[row, part], batch[row].numpy(), fill)
    return batch


_JITTER = ("brightness", "contrast", "color")
_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def resize(image: Tensor, box: Sequence[int], height: int, width: int) -> Tensor:
    """A box of an image, bicubic and antialiased, as torchvision's: uint8 (H, W, 3) to (1, 3,
    height, width).

    box: top, left, height, width. The result is channels_last.
    """
    top, left, tall, wide = box
    down, right, channel = image.stride()
    # One view instead of two slices and a permutation: on small images the difference is a quarter
    # of the time.
    start = image.storage_offset() + top * down + left * right
    planes = image.as_strided((1, 3, tall, wide), (tall * down, channel, down, right), start)
    return functional.interpolate(planes, size=(height, width), mode="bicubic", antialias=True)


def centre_crop(image: Tensor, size: int) -> Tensor:
    """Evaluation's view: short side to size / 0.875 (bicubic, antialiased), then the central
    pixels.

    uint8 (H, W, 3) to (3, size, size), channels_last.
    """
    height, width = image.shape[:2]
    tall = wide = math.floor(size / 0.875)
    if height <= width:
        wide = int(tall * width / height)
    else:
        tall = int(wide * height / width)
    top, left = round((tall - size) / 2), round((wide - size) / 2)
    resized = resize(image, (0, 0, height, width), tall, wide)
    return resized[0, :, top : top + size, left : left + size]


@lru_cache(maxsize=4)
def _noise_bank(longest: int, device: torch.device) -> Tensor:
    """Standard normals, the same in every run; each erased box reads other ones."""
    random = randomness.generator(randomness.NOISE, 0, 0)
    bank = random.standard_normal(_NOISE_BANK, dtype=np.float32)
    return torch.from_numpy(np.concatenate([bank, bank[:longest]])).to(device)


def _erase(image: Tensor, box: Sequence[int], start: int) -> None:
    top, left, tall, wide = box
    bank = _noise_bank(image.numel(), image.device)
    noise = bank[start : start + tall * wide * 3].view(tall, wide, 3)
    image[top : top + tall, left : left + wide] = noise


@dataclass(frozen=True)
class Mix:
    """Mixing of a batch. weight: the share of the image itself; box: (top, left, bottom, right) of
    cutmix."""

    weight: float
    box: tuple[int, int, int, int] | None


def draw_mix(
    augmentation: Augmentation, resolution: int, seed: int, epoch: int, batch: int
) -> Mix | None:
    """Mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019) for a whole batch, as timm's
    `Mixup(mode='batch')`.

    One of the two, with equal probability where both are on, its weight from Beta(alpha, alpha);
    that of cutmix is corrected to the area left after the box is clipped at the border.
    """
    if not augmentation.mixes:
        return None
    random = randomness.generator(randomness.MIX, seed, epoch, batch)
    use_cutmix = augmentation.cutmix > 0 and (augmentation.mixup == 0 or random.random() < 0.5)
    alpha = augmentation.cutmix if use_cutmix else augmentation.mixup
    weight = float(random.beta(alpha, alpha))
    if not use_cutmix:
        return Mix(weight, None)
    size = resolution
    half = int(size * math.sqrt(1 - weight)) // 2
    y, x = int(random.integers(size)), int(random.integers(size))
    top, left = max(y - half, 0), max(x - half, 0)
    bottom, right = min(y + half, size), min(x + half, size)
    return Mix(1 - (bottom - top) * (right - left) / size**2, (top, left, bottom, right))


def _mix(images: Tensor, how: Mix) -> None:
    """Mix neighbours (row index ^ 1) in place; an odd last row has no neighbour and stays. images:
    (B, R, R, 3)."""
    odd = images[1::2]
    even = images[::2][: len(odd)]
    if how.box is not None:
        top, left, bottom, right = how.box
        patch = even[:, top:bottom, left:right].clone()
        even[:, top:bottom, left:right] = odd[:, top:bottom, left:right]
        odd[:, top:bottom, left:right] = patch
    else:
        step = (odd - even).mul_(1 - how.weight)
        even.add_(step)
        odd.sub_(step)


@lru_cache(maxsize=8)
def _row_factors(
    mean: tuple[float, ...], std: tuple[float, ...], size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Factors of a row of pixels, and the values to subtract then. Cached: moving them to a GPU
    makes it wait.

    Whole rows of width x channels: three numbers to broadcast would cost five times as much.
    """
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
    shift = torch.tensor(mean, dtype=torch.float64) * 255 * scale
    return scale.float().repeat(size).to(device), shift.float().repeat(size).to(device)


def finish(
    images: Tensor,
    draws: Draws | None = None,
    how: Mix | None = None,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> Tensor:
    """Normalise, erase and mix, on the device of `images`: uint8 (B, R, R, 3) to float32 (B, 3, R,
    R), channels_last.

    Erasing fills with standard normal noise after normalising (timm's mode "pixel"). All arithmetic
    is single multiplications and additions, so that a value does not depend on where in a block or
    thread it is computed.
    """
    count, size = images.shape[:2]
    row_scale, row_shift = _row_factors(mean, std, size, images.device)
    flat = torch.empty((count, size, size * 3), dtype=torch.float32, device=images.device)
    pixels, out = images.view_as(flat), flat.view_as(images)
    together = count + count % 2 if images.is_cuda else max(2, _CACHED // (2 * size * size) * 2)
    for first in range(0, count, together):
        rows = slice(first, first + together)
        flat[rows].copy_(pixels[rows]).mul_(row_scale).sub_(row_shift)
        if draws is not None:
            for row in np.flatnonzero(draws.erase[rows, 2]) + first:
                _erase(out[row], draws.erase[row].tolist(), int(draws.noise[row]))
        if how is not None:
            _mix(out[rows], how)
    return out.permute(0, 3, 1, 2)
