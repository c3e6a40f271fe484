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

SECONDS = {"data": 2.0, "forward": 30.0, "backward": 60.0, "optimizer": 5.0, "evaluation": 2.0}
SECONDS |= {"other": 1.0}
CLASSES = ("apple_pie", "pizza", "ramen", "sushi", "tacos", "waffles")
RECIPE = {"epochs": 4, "lr": 0.004, "optimizer": "adamw", "mixup": 0.8, "betas": [0.9, 0.999]}
DATA = {
    "name": "pocket",
    "description": "Coloured images of dishes drawn by a program.",
    "classes": list(CLASSES),
    "train": 1800,
    "validation": 200,
    "skipped": {},
}
MACHINE = {
    "python": "3.11",
    "torch": "2.15",
    "torchvision": "0.29",
    "device": "cpu",
    "cpu": "A CPU",
}
RESULT = {"top5": 99.0, "loss": 0.5, "images_per_second": 900.0, "device": "cpu"}
RESULT |= {"code_version": "abc1234", "finished": "2026-11-23T20:00:00Z"}
METRICS = {"lr": 0.001, "images_per_second": 900.0}
METRICS |= {"seconds": {key: value / 4 for key, value in SECONDS.items()}}


class StudyFolder:
    """A study's folder; `add` writes one run into it."""

    def __init__(
        self, root: Path, *, test: int = 400, regime: str = "pocket", synthetic: bool = True
    ) -> None:
        self.root, self.test, self.hash = root, test, "0123456789ab"
        self.steps = [step.name for step in ablations.PAPER.steps_in(ablations.get_regime(regime))]
        root.mkdir(parents=True)
        config = {"dataset": "pocket", "regime": regime, "resolution": 64, "precision": "fp32"}
        config |= {"recipe": RECIPE, "classic": {**RECIPE, "optimizer": "sgd", "lr": 0.1}}
        study = {"format": FORMAT, "name": root.name, "hash": self.hash, "config": config}
        study |= {"images": "f" * 64, "dataset": {**DATA, "synthetic": synthetic, "test": test}}
        (root / "study.json").write_text(json.dumps(study))

    def note(self, **changes: Any) -> None:
        """Change fields of study.json."""
        path = self.root / "study.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def summary(self) -> Summary:
        return Summary(collect.read(self.root))

    def report(self) -> tuple[dict[str, pd.DataFrame], str]:
        """The tables and the page of its report, as `write` makes them; its figures are drawn and
        not written."""
        summary = self.summary()
        names = [name for name, figure in page.drawn(summary) if figure.axes]
        tables = page.tables(summary)
        return tables, page.render(summary, tables, names)

    def write(self) -> str:
        """Write the report, and return the page."""
        return page.write(self.root).read_text(encoding="utf-8")

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
        first = np.arange(self.test)
        correct = first < hits if isinstance(hits, int) else np.asarray(hits, dtype=bool)
        top1 = 100 * float(correct.mean())
        place = self.steps.index(step) if step in self.steps else 0
        folder = self.folder(step, seed)
        folder.mkdir(parents=True)
        run = {"study": self.root.name, "study_hash": self.hash, "step": step, "seed": seed}
        run |= {"digest": f"{step}-{seed}", "variant_digest": step}
        config = {**run, "architecture": {}, "recipe": RECIPE}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "environment.json").write_text(json.dumps(MACHINE))
        with (folder / "metrics.jsonl").open("w") as file:
            for epoch in range(1, epochs + 1):
                line = {"epoch": epoch, "update": 10 * epoch, "train_loss": 2.0 / epoch, **METRICS}
                line |= {"validation_loss": 1.9 / epoch}
                line |= {"validation_top1": top1 * (1 - 0.6**epoch)}
                file.write(json.dumps(line) + "\n")
        if not finished:
            return
        result = {**run, **RESULT, "top1": top1, "test_images": self.test, "epochs": epochs}
        result |= {"selected_epoch": epochs, "seconds": {**SECONDS, "total": 100.0}}
        result |= {"params": 100_000 + 1000 * place, "activations": 900_000 - 1000 * place}
        for name, start in (("gflops_fvcore", 0.030), ("gflops_paper_convention", 0.028)):
            result[name] = start + 0.001 * place
        (folder / "result.json").write_text(json.dumps(result))
        names = images or [f"{CLASSES[i % len(CLASSES)]}/{i:05d}" for i in range(self.test)]
        with (folder / "predictions.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "label", "p_label", "p_top1", "top1", "top2"])
            for i, (name, right) in enumerate(zip(names, correct, strict=True)):
                label, other = i % len(CLASSES), (i + 1) % len(CLASSES)
                best = (label, other) if right else (other, label)
                rows.writerow([name, label, 0.6 if right else 0.2, 0.6, *best])


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., StudyFolder]:
    """make_study(name="demo", **sizes) -> an empty StudyFolder below the test's folder."""

    def make(name: str = "demo", **sizes: Any) -> StudyFolder:
        return StudyFolder(tmp_path / name, **sizes)

    return make
