"""Evaluating a network on a split: loss, top-1, top-5, and the five best classes of each image."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.loader import Batch
from training.device import InFlight, autocast
from training.interrupt import Stopped
from training.processes import ALONE, Processes
from training.recipe import Precision
from training.spec import predictions_csv
from utils.text import first_few


@dataclass(frozen=True)
class Evaluation:
    """Predictions for n images, on the CPU."""

    labels: Tensor
    """(n,) int64."""
    top: Tensor
    """(n, k) int64: the k = min(5, classes) most probable classes, best first."""
    p_label: Tensor
    """(n,) float32: probability of the true class."""
    p_top1: Tensor
    """(n,) float32: probability of the best class, as calibration needs it."""

    @property
    def loss(self) -> float:
        """Mean cross entropy in nats, without label smoothing."""
        return float(-self.p_label.double().clamp_min(1e-30).log().mean())

    @property
    def top1(self) -> float:
        """Percent."""
        return self._accuracy(1)

    @property
    def top5(self) -> float:
        """Percent."""
        return self._accuracy(5)

    def _accuracy(self, k: int) -> float:
        hits = (self.top[:, :k] == self.labels[:, None]).any(1)
        return 100 * int(hits.sum()) / len(hits)

    def as_csv(self, ids: Sequence[str]) -> bytes:
        """The content of predictions.csv."""
        columns = (self.labels, self.p_label, self.p_top1, self.top)
        return predictions_csv(ids, *(column.tolist() for column in columns))


class NotOnce(OSError):
    """An evaluation saw an image never, or more than once."""


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    ids: Sequence[str],
    device: torch.device,
    precision: Precision,
    processes: Processes = ALONE,
) -> Evaluation:
    """Evaluate `model`, in eval mode, on the images `ids`; its mode is restored afterwards.

    `batches` are this process's of `data.eval_batches` on `device`. All `processes` get the whole.

    Raises:
        Stopped: between two batches, here or in another process.
        NotOnce: together the batches are not each image once.
    """
    was_training = model.training
    model.eval()
    try:
        rows, in_flight = [], InFlight(device)
        for batch in batches:
            rows.append(_predict(model, batch, device, precision))
            in_flight.add()
        columns = [torch.cat(column).cpu() for column in zip(*rows, strict=True)]
    except Stopped:
        columns = None
    model.train(was_training)
    gathered = processes.all_of(columns)
    if None in gathered:
        raise Stopped
    # A process without a batch has no columns.
    parts = zip(*(each for each in gathered if each), strict=True)
    indices, *whole = (torch.cat(part) for part in parts)
    times = torch.bincount(indices, minlength=len(ids)).tolist()
    if wrong := [f"{ids[i]} {count} times" for i, count in enumerate(times) if count != 1]:
        raise NotOnce(
            f"an evaluation saw {len(indices):,} images instead of each of {len(ids):,} once "
            f"({first_few(wrong)}): this is a bug, and nothing of it is counted"
        )
    order = indices.argsort()
    return Evaluation(*(column[order] for column in whole))


@torch.inference_mode()
def _predict(
    model: nn.Module, batch: Batch, device: torch.device, precision: Precision
) -> tuple[Tensor, ...]:
    """The indices of a batch's images, then the columns of `Evaluation`."""
    with autocast(precision, device):
        logits = model(batch.images)
    probabilities = F.softmax(logits[: batch.valid].float(), dim=1)
    labels = batch.labels[: batch.valid]
    best = probabilities.topk(min(5, probabilities.shape[1]))
    p_label = probabilities.gather(1, labels[:, None])[:, 0]
    return batch.indices, labels, best.indices, p_label, best.values[:, 0]
