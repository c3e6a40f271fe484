"""Little study folders with known numbers, written in the form that training writes them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ablations
from report import collect, page
from report.tables import Summary
from studies.study import FORMAT

SECONDS = {
    "data": 2.0,
    "forward": 30.0,
    "backward": 60.0,
    "optimizer": 5.0,
    "evaluation": 2.0,
    "other": 1.0,
}
CLASSES = ("apple_pie", "pizza", "ramen", "sushi", "tacos", "waffles")


class StudyFolder:
    """A study's folder; `add` writes one run into it."""

    def __init__(
        self, root: Path, *, test: int = 400, regime: str = "pocket", synthetic: bool = True
    ) -> None:
        self.root, self.test, self.regime, self.hash = root, test, regime, "0123456789ab"
        root.mkdir(parents=True)
        self.recipe = recipe = {
            "epochs": 4,
            "lr": 0.004,
            "optimizer": "adamw",
            "mixup": 0.8,
            "betas": [0.9, 0.999],
        }
        study = {
            "format": FORMAT,
            "name": root.name,
            "hash": self.hash,
            "config": {
                "dataset": "pocket",
                "regime": regime,
                "resolution": 64,
                "precision": "fp32",
                "recipe": recipe,
                "classic": {**recipe, "optimizer": "sgd", "lr": 0.1},
            },
            "images": "f" * 64,
            "dataset": {
                "name": "pocket",
                "description": "Coloured images of dishes drawn by a program.",
                "synthetic": synthetic,
                "classes": list(CLASSES),
                "train": 1800,
                "validation": 200,
                "test": test,
                "skipped": {},
            },
        }
        (root / "study.json").write_text(json.dumps(study))

    def report(self) -> tuple[dict[str, pd.DataFrame], str]:
        """The tables and the page of its report, as `write` makes them; its figures are drawn and
        not written."""
        summary = Summary(collect.read(self.root))
        assert all(figure.axes for _, figure in page.drawn(summary))
        return page.tables(summary), page.render(summary, [])

    @property
    def steps(self) -> list[str]:
        return [step.name for step in ablations.PAPER.steps_in(ablations.get_regime(self.regime))]

    def folder(self, step: str, seed: int = 0) -> Path:
        return self.root / step / f"seed-{seed}"

    def edit(self, file: str, step: str, seed: int = 0, **changes: Any) -> None:
        """Change fields of a run's JSON file."""
        path = self.folder(step, seed) / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def add(
        self,
        step: str,
        hits: int | Sequence[bool] | np.ndarray,
        *,
        seed: int = 0,
        epochs: int = 4,
        finished: bool = True,
        images: Sequence[str] | None = None,
    ) -> None:
        """A run that is right on `hits`: the first so many test images, or those marked True."""
        correct = (
            np.arange(self.test) < hits if isinstance(hits, int) else np.asarray(hits, dtype=bool)
        )
        top1 = 100 * float(correct.mean())
        number = next(
            (
                s.number
                for s in ablations.PAPER.steps_in(ablations.get_regime(self.regime))
                if s.name == step
            ),
            None,
        )
        folder = self.folder(step, seed)
        folder.mkdir(parents=True)
        run = {
            "study": self.root.name,
            "study_hash": self.hash,
            "step": step,
            "number": number,
            "seed": seed,
        }
        run |= {"digest": f"{step}-{seed}", "variant_digest": step}
        (folder / "config.json").write_text(
            json.dumps({**run, "architecture": {}, "recipe": self.recipe})
        )
        (folder / "environment.json").write_text(
            json.dumps(
                {
                    "python": "3.11",
                    "torch": "2.15",
                    "torchvision": "0.29",
                    "device": "cpu",
                    "cpu": "A CPU",
                }
            )
        )
        lines = [
            {
                "epoch": epoch,
                "update": 10 * epoch,
                "lr": 0.001,
                "train_loss": 2.0 / epoch,
                "validation_loss": 1.9 / epoch,
                "validation_top1": top1 * (1 - 0.6**epoch),
                "images_per_second": 900.0,
                "seconds": {key: value / epochs for key, value in SECONDS.items()},
            }
            for epoch in range(1, epochs + 1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        if not finished:
            return
        place = self.steps.index(step) if step in self.steps else 0
        result = {
            **run,
            "top1": top1,
            "top5": 99.0,
            "loss": 0.5,
            "test_images": self.test,
            "selected_epoch": epochs,
            "epochs": epochs,
            "params": 100_000 + 1000 * place,
            "gflops_fvcore": 0.030 + 0.001 * place,
            "gflops_paper_convention": 0.028 + 0.001 * place,
            "activations": 900_000 - 1000 * place,
            "seconds": {**SECONDS, "total": 100.0},
            "images_per_second": 900.0,
            "device": "cpu",
            "code_version": "abc1234",
            "finished": "2026-11-23T20:00:00Z",
        }
        (folder / "result.json").write_text(json.dumps(result))
        names = images or [f"{CLASSES[i % len(CLASSES)]}/{i:05d}" for i in range(self.test)]
        with (folder / "predictions.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["image", "label", "p_label", "p_top1", *(f"top{k}" for k in range(1, 6))]
            )
            for i, (name, right) in enumerate(zip(names, correct, strict=True)):
                label = i % len(CLASSES)
                guesses = [(label + shift) % len(CLASSES) for shift in range(5)]
                if not right:
                    guesses[:2] = guesses[1::-1]
                writer.writerow([name, label, 0.6 if right else 0.2, 0.6, *guesses])


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., StudyFolder]:
    """make_study(name="demo", **sizes) -> an empty StudyFolder below the test's folder."""

    def make(name: str = "demo", **sizes: Any) -> StudyFolder:
        return StudyFolder(tmp_path / name, **sizes)

    return make
