"""How one run is executed, and the decoded images it is trained on."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from data import Dataset, ImageStore, PreparedImages, open_store
from training.compute_options import ComputeOptions
from training.memory import available
from training.processes import ALONE, Processes


@dataclass(frozen=True)
class Execution:
    """How a run is carried out: nothing here can change what it computes, rounding apart."""

    device: torch.device
    workers: int = 0
    """Processes that prepare training images; 0 does it between two updates."""
    layout: ComputeOptions = field(default_factory=ComputeOptions)
    """Where no trial chooses one."""
    trial: bool = False
    """Whether a new run begins with a timed trial of layouts (`training.autotune`)."""
    checkpoint_minutes: float = 10
    """A checkpoint is written at the end of every epoch, and within one after this many minutes; 0:
    every update."""
    deterministic: bool = False
    """Whether CUDA is to use kernels that always round alike, where it has them. The CPU's do."""
    processes: Processes = ALONE
    """Those that share the run; this is one of them."""


@dataclass(frozen=True)
class Stores:
    """The three splits, decoded."""

    train: ImageStore
    validation: ImageStore
    test: ImageStore
    classes: tuple[str, ...]
    augmented: PreparedImages = field(default_factory=PreparedImages)
    """The training images as they were last augmented, for the next run to use."""
    evaluated: PreparedImages = field(default_factory=PreparedImages)
    """The validation images as evaluation prepares them, for the next epoch to use."""

    @property
    def skipped(self) -> dict[str, tuple[str, ...]]:
        """Names of the images that are left out because they cannot be read, by split."""
        stores = {"train": self.train, "validation": self.validation, "test": self.test}
        return {part: store.skipped for part, store in stores.items() if store.skipped}


def open_stores(
    dataset: Dataset, cache: Path, short_side: int, skip_unreadable: bool = False, trainers: int = 1
) -> Stores:
    """The data set's splits, decoded into `cache` where they are not yet there (see
    `data.open_store`).

    Each of so many `trainers` on this machine may remember its part of the prepared images.
    """
    train, validation, test = (
        open_store(split, cache, short_side, skip_unreadable=skip_unreadable)
        for split in dataset.splits.values()
    )
    free = available(torch.device("cpu"))
    train_share, validation_share = (
        min(2**30, 2**62 if free is None else free // part // trainers) for part in (4, 8)
    )
    return Stores(
        train,
        validation,
        test,
        dataset.classes,
        PreparedImages(train_share),
        PreparedImages(validation_share),
    )
