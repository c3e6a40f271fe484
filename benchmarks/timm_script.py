"""A step of a finished Fashion-MNIST study, trained again by timm's own train.py under the same
recipe.

    python -m benchmarks.timm_script --script pytorch-image-models/train.py --seeds 0 1

timm's script is not part of its package: take it from timm's repository at the version that is
installed. It trains the same network (`ablations.timm_models`) on the same images, written out as
PNG files, and its last epoch is held against the study's runs. Everything else is timm's: images,
order, optimizer, schedule, loss, evaluation.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ablations import PAPER
from benchmarks.measure import write
from data.datasets import check
from data.splits import Split
from studies.pack import opened
from studies.study import read_json, read_result

_RUN = (
    "import runpy, sys, ablations.timm_models; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], None, '__main__')"
)


def write_images(split: Split, classes: tuple[str, ...], folder: Path) -> None:
    """The images of a split as FOLDER/CLASS/NUMBER.png, the classes in their order."""
    for number in range(len(classes)):
        (folder / f"{number:02d}").mkdir(parents=True)
    for index, label in enumerate(split.labels):
        Image.fromarray(split.source.read(index)).save(
            folder / f"{label:02d}" / f"{index:05d}.png", compress_level=1
        )


def flags(recipe: dict[str, Any], regime: str, resolution: int, classes: int) -> list[str]:
    """timm's for a recipe as config.json has it. Raises ValueError where timm's script cannot do
    the same."""
    images = recipe["augmentation"]
    odd = {
        name
        for name in ("rand_augment_magnitude", "color_jitter", "random_erasing", "mixup", "cutmix")
        if images[name]
    }
    if recipe["optimizer"] != "adamw" or recipe["schedule"] != "cosine" or recipe["ema"] or odd:
        raise ValueError(
            "this comparison is of AdamW and a cosine on images that are cropped and flipped only"
        )
    given = {
        "opt": "adamw",
        "lr": recipe["lr"] * recipe["batch_size"] / recipe["lr_batch"],
        "weight-decay": recipe["weight_decay"],
        "opt-betas": recipe["betas"],
        "batch-size": recipe["batch_size"],
        "epochs": recipe["epochs"] - recipe["warmup_epochs"],
        "warmup-epochs": recipe["warmup_epochs"],
        "warmup-lr": 0.0,
        "min-lr": recipe["min_lr"],
        "smoothing": recipe["label_smoothing"],
        "drop-path": recipe["drop_path"],
        "scale": images["crop_scale"],
        "hflip": images["flip"],
        "color-jitter": 0.0,
        "train-interpolation": "bicubic",
        "num-classes": classes,
        "img-size": resolution,
        "model-kwargs": [
            f"regime={regime}",
            f"layer_scale={recipe['layer_scale'] or 0}",
            f"init={recipe['init']}",
        ],
    }
    words = ["--warmup-prefix", "--sched-on-updates", "--device", "cpu"]
    for name, value in given.items():
        many = isinstance(value, list | tuple)
        words += [f"--{name}", *map(str, value if many else [value])]
    return words


def top1(script: Path, images: Path, step: str, words: list[str], seed: int) -> float:
    """Per cent of the test images that are right after the last epoch of timm's script."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable,
            "-c",
            _RUN,
            str(script),
            "--data-dir",
            str(images),
            "--model",
            f"convnext_ablation_{step}",
            "--val-split",
            "validation",
            "--output",
            out,
            "--experiment",
            "run",
            "--seed",
            str(seed),
            "--workers",
            "1",
            "--checkpoint-hist",
            "1",
            "--log-interval",
            "100",
            *words,
        ]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
        with (Path(out) / "run" / "summary.csv").open() as file:
            return float(list(csv.DictReader(file))[-1]["eval_top1"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--script", type=Path, required=True, help="timm's train.py")
    parser.add_argument(
        "--study",
        type=Path,
        default=Path("docs/results/fashion-mnist.pack"),
        help="its folder or its pack",
    )
    parser.add_argument("--data-dir", type=Path, default=Path("datasets"))
    parser.add_argument("--step", default="separate-downsampling")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args()
    step = PAPER.step(asked.step).name
    found = check("fashion-mnist", asked.data_dir).load()
    with opened(asked.study) as study:
        config = read_json(study / "study.json")["config"]
        runs = sorted((study / step).glob("seed-*"))
        results = {run.name.removeprefix("seed-"): read_result(run) for run in runs}
        recipe = read_json(runs[0] / "config.json")["recipe"]
    ours = {seed: result["top1"] for seed, result in results.items() if result}
    words = flags(recipe, config["regime"], config["resolution"], len(found.classes))
    theirs: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder)
        write_images(found.train, found.classes, images / "train")
        write_images(found.test, found.classes, images / "validation")
        for seed in asked.seeds:
            theirs[str(seed)] = top1(asked.script.resolve(), images, step, words, seed)
            print(f"{step}: seed {seed} of timm's script {theirs[str(seed)]:.2f} %", flush=True)
    result = {
        "step": step,
        "flags": words,
        "test_top1": {"timm's train.py": theirs, "this suite": ours},
        "mean": {
            "timm's train.py": round(statistics.mean(theirs.values()), 3),
            "this suite": round(statistics.mean(ours.values()), 3),
        },
    }
    print(json.dumps(result["mean"]))
    write("timm-script", torch.device("cpu"), result, "timm")


if __name__ == "__main__":
    main()
