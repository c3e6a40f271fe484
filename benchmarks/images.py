"""Training images per second of one core: this project's pipeline from its cache, and timm's from
JPEGs.

Both turn Food-101-sized images into normalised 224x224 training images by the paper's recipe:
random resized crop (bicubic), flip, RandAugment m9 std 0.5, erasing 0.25; ours also mixes and makes
batches, which timm leaves to the training loop. Colour jitter 0.4 is passed to both, and both leave
it out beside RandAugment (as the paper's code does); a second row of ours applies it all the same.
They take turns in one process and one thread.

    taskset -c 1 python -m benchmarks.images [--rounds 10] [--images 256]
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from benchmarks import measure
from benchmarks.measure import RESULTS, spread
from benchmarks.photographs import write
from data.augmentation import Augmentation
from data.image_store import ImageStore, open_store
from data.loader import train_batches
from data.splits import Files, Split
from training.device import keep_memory
from training.spec import short_side

RESULT = RESULTS / "images.json"


def timm_pipeline(split: Split) -> Callable[[int], int]:
    """timm's standard transform over every JPEG once."""
    from timm.data import create_transform

    transform = create_transform(
        224,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        color_jitter=0.4,
        re_prob=0.25,
        re_mode="pixel",
        interpolation="bicubic",
    )
    files = split.source
    assert isinstance(files, Files)

    def run(epoch: int) -> int:
        failed = 0
        for path in files.items:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            try:
                transform(image)
            except (
                ValueError
            ):  # Pillow 13 refuses posterize with no bits left, which timm asks for at times
                failed += 1
        return len(split) - failed

    return run


def our_pipeline(store: ImageStore, augmentation: Augmentation, batch: int) -> Callable[[int], int]:
    """One epoch of mixed batches."""

    def run(epoch: int) -> int:
        batches = train_batches(store, augmentation, 224, seed=0, epoch=epoch, batch_size=batch)
        return sum(len(batch.labels) for batch in batches)

    return run


def take_turns(runs: dict[str, Callable[[int], int]], rounds: int) -> dict[str, list[float]]:
    """Images a second of processor time, a list over rounds each, taken in turns."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for epoch in range(rounds + 1):
        for name, run in runs.items():
            started = time.process_time()
            made = run(epoch)
            rate = made / (time.process_time() - started)
            if epoch:  # the first round warms up
                rates[name].append(rate)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32, help="images per batch of ours")
    parser.add_argument("--short-side", type=int, default=short_side(224))
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()  # as a run does; timm's side, in the same process, has it too
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        split = write(Path(folder, "jpegs"), arguments.images)
        kilobytes = (
            sum(split.source.stamp(index)[0] for index in range(len(split))) / len(split) / 1000
        )
        store = open_store(split, Path(folder, "cache"), arguments.short_side)
        recipe = Augmentation()
        plain = replace(recipe, rand_augment_magnitude=0.0, color_jitter=0.0)
        pipelines = {
            "timm": timm_pipeline(split),
            "ours": our_pipeline(store, recipe, arguments.batch),
            "ours, without RandAugment": our_pipeline(store, plain, arguments.batch),
        }
        rates = take_turns(pipelines, arguments.rounds)
    ratios = [ours / timm for ours, timm in zip(rates["ours"], rates["timm"], strict=True)]
    result = {
        "what": "training images per second of one core (processor time), 224x224, full recipe",
        "jpeg_kilobytes": round(kilobytes, 1),
        "images": arguments.images,
        "short_side_of_the_cache": arguments.short_side,
        "batch": arguments.batch,
        "images_per_second": {name: spread(values) for name, values in rates.items()},
        "ours_over_timm": {**spread(ratios), "goal": 4.0},
    }
    print(json.dumps(result, indent=2))
    measure.write(arguments.out, torch.device("cpu"), result, "timm", "pillow", "numpy")


if __name__ == "__main__":
    main()
