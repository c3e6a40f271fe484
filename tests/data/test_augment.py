"""Decisions against their distributions, pixels against torchvision."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from data import randaugment, randomness
from data.augment import (
    Draws,
    augment_batch,
    centre_crop,
    crop_boxes,
    draw,
    draw_mix,
    erase_boxes,
    finish,
)
from data.augmentation import MEAN, STD, Augmentation


def images(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 6, 8), generator=generator) * 350 - 50
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return smooth.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def draws_of(
    augmentation: Augmentation,
    indices: np.ndarray,
    seed: int = 0,
    epoch: int = 0,
    size: tuple[int, int] = (256, 341),
    resolution: int = 224,
) -> Draws:
    return draw(augmentation, resolution, np.tile(size, (len(indices), 1)), seed, epoch, indices)


def test_uniforms_are_uniform_and_independent_of_neighbours() -> None:
    table = randomness.uniforms(randomness.SAMPLE, 3, 5, np.arange(4000), 50)
    assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-3
    for other in (
        table[1:, :],
        randomness.uniforms(randomness.SAMPLE, 3, 6, np.arange(4000), 50),
        randomness.uniforms(randomness.SAMPLE, 4, 5, np.arange(4000), 50),
        randomness.uniforms(randomness.NOISE, 3, 5, np.arange(4000), 50),
    ):
        correlation = np.corrcoef(table[: len(other)].ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 5 / math.sqrt(other.size)
    between_columns = np.corrcoef(table.T) - np.eye(50)
    assert np.abs(between_columns).max() < 5.5 / math.sqrt(len(table))


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(rand_augment_magnitude=0)])
def test_a_samples_decisions_do_not_depend_on_the_batch_around_it(
    augmentation: Augmentation,
) -> None:
    indices = np.random.default_rng(0).permutation(300)
    whole = draws_of(augmentation, indices, 7, 11)
    for size in (1, 2, 3, 5, 7, 8, 13, 64):
        for first in range(0, 300 - size, 29):
            part = draws_of(augmentation, indices[first : first + size], 7, 11)
            for name, values in vars(part).items():
                np.testing.assert_array_equal(
                    values, getattr(whole, name)[first : first + size], err_msg=name
                )


@pytest.mark.parametrize("size", [(256, 341), (341, 256), (60, 300)])
def test_crop_boxes_are_distributed_as_torchvisions(size: tuple[int, int]) -> None:
    height, width = size
    count = 4000
    ours = crop_boxes(
        randomness.uniforms(0, 1, 1, np.arange(count), 22),
        np.full(count, height),
        np.full(count, width),
        (0.08, 1.0),
        (3 / 4, 4 / 3),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.empty((1, height, width))
        transform = v2.RandomResizedCrop(1)
        sampled = [transform.make_params([image]) for _ in range(count)]
        theirs = np.array(
            [[box["top"], box["left"], box["height"], box["width"]] for box in sampled]
        )
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3
    assert (ours >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()


def test_a_image_too_narrow_for_any_try_is_cropped_at_its_centre() -> None:
    never = np.full((1, 22), 0.999)
    box = crop_boxes(never, np.array([10]), np.array([200]), (0.08, 1.0), (3 / 4, 4 / 3))[0]
    assert box.tolist() == [0, (200 - 13) // 2, 10, 13]
    box = crop_boxes(never, np.array([200]), np.array([10]), (0.08, 1.0), (3 / 4, 4 / 3))[0]
    assert box.tolist() == [(200 - 13) // 2, 0, 13, 10]


@pytest.mark.parametrize(("store", "size"), [((40, 50), 32), ((256, 341), 224), ((30, 20), 32)])
def test_crop_and_flip_are_torchvisions_to_the_byte(store: tuple[int, int], size: int) -> None:
    batch = images(12, *store)
    augmentation = Augmentation(rand_augment_magnitude=0, color_jitter=0)
    draws = draws_of(augmentation, np.arange(12), size=store, resolution=size)
    assert 0 < draws.flip.sum() < 12
    ours = augment_batch(augmentation, size, draws, list(batch)).permute(0, 3, 1, 2)
    for image, box, flip, ours_one in zip(
        batch, draws.crop.tolist(), draws.flip, ours, strict=True
    ):
        theirs = reference.resized_crop(
            image.permute(2, 0, 1),
            *box,
            [size, size],
            interpolation=v2.InterpolationMode.BICUBIC,
            antialias=True,
        )
        torch.testing.assert_close(
            ours_one, reference.hflip(theirs) if flip else theirs, rtol=0, atol=0
        )


@pytest.mark.parametrize("store", [(256, 341), (300, 256), (40, 37), (500, 501)])
def test_evaluation_view_is_torchvisions_resize_and_centre_crop(store: tuple[int, int]) -> None:
    image = images(1, *store)[0]
    theirs = v2.Compose(
        [
            v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(224),
        ]
    )(image.permute(2, 0, 1))
    assert torch.equal(centre_crop(image, 224), theirs)


def test_operations_are_drawn_uniformly_and_applied_half_of_the_time() -> None:
    draws = draws_of(Augmentation(), np.arange(20000))
    assert draws.ops.shape == (20000, 2)
    applied = draws.ops >= 0
    assert abs(applied.mean() - 0.5) < 0.01
    assert abs((applied[:, 0] & applied[:, 1]).mean() - 0.25) < 0.015
    assert stats.chisquare(np.bincount(draws.ops[applied])).pvalue > 1e-3
    below = draws.levels[draws.levels < 10]
    assert stats.kstest(below, stats.truncnorm(-18, 2, loc=9, scale=0.5).cdf).pvalue > 1e-3
    assert abs((draws.levels == 10).mean() - stats.norm.sf(2)) < 0.003
    assert abs(draws.signs.mean()) < 0.02


def test_colour_jitter_is_per_sample_and_in_a_random_order() -> None:
    assert Augmentation().jitter == 0, "it is left out beside RandAugment"
    augmentation = Augmentation(rand_augment_magnitude=0, crop_scale=(1, 1), flip=0)
    draws = draws_of(augmentation, np.arange(3000), size=(24, 24), resolution=24)
    assert stats.kstest(draws.jitter.ravel(), stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3
    assert stats.chisquare(np.bincount(draws.jitter_order, minlength=6)).pvalue > 1e-3
    batch = images(8, 24, 24)
    draws = draws_of(augmentation, np.arange(8), size=(24, 24), resolution=24)
    ours = augment_batch(augmentation, 24, draws, list(batch))
    orders = ("bcs", "bsc", "cbs", "csb", "sbc", "scb")
    for row, image in enumerate(batch):
        jittered = reference.to_pil_image(image.permute(2, 0, 1))
        for part in orders[draws.jitter_order[row]]:
            adjust, factor = {
                "b": (reference.adjust_brightness, 0),
                "c": (reference.adjust_contrast, 1),
                "s": (reference.adjust_saturation, 2),
            }[part]
            jittered = adjust(jittered, draws.jitter[row, factor])
        assert torch.equal(ours[row].permute(2, 0, 1), reference.pil_to_tensor(jittered))


def test_randaugment_is_applied_layer_by_layer() -> None:
    augmentation = Augmentation()
    batch = list(images(40, 64, 80))
    draws = draws_of(augmentation, np.arange(40), size=(64, 80), resolution=48)
    ours = augment_batch(augmentation, 48, draws, batch)
    without = Augmentation(rand_augment_magnitude=0, color_jitter=0)
    before = augment_batch(
        without, 48, draws_of(without, np.arange(40), size=(64, 80), resolution=48), batch
    )
    assert (draws.ops >= 0).any(1).sum() > 20
    for row in range(40):
        expected = before[row].numpy().copy()
        for op, level, sign in zip(
            draws.ops[row], draws.levels[row], draws.signs[row], strict=True
        ):
            if op >= 0:
                name = randaugment.OPS[op]
                randaugment.apply(
                    name, randaugment.argument(name, level, sign), expected, (124, 116, 104)
                )
        np.testing.assert_array_equal(ours[row].numpy(), expected)


def test_erased_boxes_have_timms_distribution() -> None:
    boxes = erase_boxes(randomness.uniforms(0, 2, 2, np.arange(40000), 24), 224, 0.25)
    erased = boxes[boxes[:, 2] > 0]
    assert abs(len(erased) / 40000 - 0.25) < 0.01
    rejected = np.random.default_rng(0)  # timm's loop, vectorised: of the tries that fit, the first
    area = rejected.uniform(0.02, 1 / 3, 200000) * 224**2
    ratio = np.exp(rejected.uniform(math.log(0.3), math.log(1 / 0.3), 200000))
    tall, wide = np.round(np.sqrt(area * ratio)), np.round(np.sqrt(area / ratio))
    fits = (tall < 224) & (wide < 224)
    assert stats.ks_2samp(erased[:, 2], tall[fits]).pvalue > 1e-3
    assert stats.ks_2samp(erased[:, 3], wide[fits]).pvalue > 1e-3
    share = erased[:, 0] / (224 - erased[:, 2])
    assert stats.kstest(share[erased[:, 2] < 100] + 1e-9, "uniform").statistic < 0.02
    assert (erased[:, 0] + erased[:, 2] <= 224).all()
    assert (erased[:, 1] + erased[:, 3] <= 224).all()


def test_erasing_fills_its_box_with_normal_noise_and_touches_nothing_else() -> None:
    augmentation = Augmentation(random_erasing=1.0, rand_augment_magnitude=0, color_jitter=0)
    draws = draws_of(augmentation, np.arange(40), size=(64, 64), resolution=64)
    batch = images(40, 64, 64)
    untouched, finished = finish(batch), finish(batch, draws)
    noise = []
    for image, before, (top, left, tall, wide) in zip(
        finished, untouched, draws.erase.tolist(), strict=True
    ):
        noise.append(image[:, top : top + tall, left : left + wide].flatten().clone())
        image[:, top : top + tall, left : left + wide] = before[
            :, top : top + tall, left : left + wide
        ]
        assert torch.equal(image, before)
    assert len({float(values[0]) for values in noise}) == 40
    assert stats.kstest(torch.cat(noise)[::7].numpy(), "norm").pvalue > 1e-3


def test_normalising_is_torchvisions() -> None:
    batch = images(7, 32, 32)
    finished = finish(batch)
    assert finished.is_contiguous(memory_format=torch.channels_last)
    assert finished.dtype == torch.float32
    theirs = reference.normalize(batch.permute(0, 3, 1, 2) / 255, list(MEAN), list(STD))
    torch.testing.assert_close(finished, theirs, rtol=1e-5, atol=1e-6)


def test_mixing_weights_follow_beta_and_the_two_kinds_share_the_batches() -> None:
    mixes = [
        draw_mix(Augmentation(), 224, 0, epoch, batch) for epoch in range(8) for batch in range(500)
    ]
    mixup = [how.weight for how in mixes if how is not None and how.box is None]
    assert abs(len(mixup) / 4000 - 0.5) < 0.04
    assert stats.kstest(mixup, stats.beta(0.8, 0.8).cdf).pvalue > 1e-3
    only = [draw_mix(Augmentation(mixup=0), 224, 0, 0, batch) for batch in range(2000)]
    assert all(how is not None and how.box is not None for how in only)
    assert all(
        how is not None and how.box is None
        for how in [draw_mix(Augmentation(cutmix=0), 224, 0, 0, b) for b in range(99)]
    )
    assert draw_mix(Augmentation(mixup=0, cutmix=0), 224, 0, 0, 0) is None
    # A box that no border clips has the side sqrt(1 - weight), and weight is uniform for alpha 1:
    # check the sides.
    sides = [how.box[2] - how.box[0] for how in only if how is not None and how.box is not None]
    random = np.random.default_rng(0)
    half, centre = (
        (224 * np.sqrt(1 - random.random(100000))).astype(int) // 2,
        random.integers(224, size=100000),
    )
    expected = np.minimum(centre + half, 224) - np.maximum(centre - half, 0)
    assert stats.ks_2samp(sides, expected).pvalue > 1e-3


@pytest.mark.parametrize("count", [2, 5, 8, 67])
@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0)])
def test_neighbours_are_mixed_and_the_weight_is_the_share_of_pixels(
    count: int, alphas: tuple[float, float]
) -> None:
    augmentation = Augmentation(mixup=alphas[0], cutmix=alphas[1])
    batch = images(count, 32, 32)
    plain = finish(batch)
    for number in range(4):
        how = draw_mix(augmentation, 32, 0, 0, number)
        assert how is not None
        mixed = finish(batch, None, how)
        for row in range(count):
            partner = row ^ 1 if row ^ 1 < count else row
            if how.box is None:
                expected = plain[row] * how.weight + plain[partner] * (1 - how.weight)
            else:
                top, left, bottom, right = how.box
                expected = plain[row].clone()
                expected[:, top:bottom, left:right] = plain[partner][:, top:bottom, left:right]
                assert how.weight == pytest.approx(1 - (bottom - top) * (right - left) / 32**2)
            torch.testing.assert_close(mixed[row], expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("crop_scale", [(0.0, 1.0), (0.5, 0.2), (0.5, 1.5)]),
        ("flip", [1.5, math.nan]),
        ("random_erasing", [-0.1]),
        ("rand_augment_magnitude", [11.0]),
        ("rand_augment_std", [-1.0]),
        ("color_jitter", [-0.1]),
        ("mixup", [-0.2, math.nan]),
        ("cutmix", [math.inf]),
    ],
)
def test_an_impossible_value_is_refused_by_name(option: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^--{option.replace('_', '-')} is .*: give "):
            Augmentation(**{option: value})
