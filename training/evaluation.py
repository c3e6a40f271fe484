"""What a network says of a split: loss, top-1, top-5, and every image's five best classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.batches import Batch
from training.device import autocast
from training.interrupt import Stopped
from training.predictions import as_csv
from training.processes import ALONE, Processes
from training.recipe import Precision
from utils.text import first_few


@dataclass(frozen=True)
class Evaluation:
    """Over n images; `top` and `p_label` are on the CPU."""

    labels: Tensor
    """(n,) int64."""
    top: Tensor
    """(n, k) int64: the k = min(5, classes) classes of highest probability, best first."""
    p_label: Tensor
    """(n,) float32: probability of the true class."""
    p_top1: Tensor
    """(n,) float32: probability of the best class, which is what calibration is measured by."""

    @property
    def loss(self) -> float:
        """Mean cross entropy, in nats; without label smoothing."""
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
        """predictions.csv."""
        columns = (self.labels, self.p_label, self.p_top1, self.top)
        return as_csv(ids, *(column.tolist() for column in columns))


class NotOnce(OSError):
    """Images of a split were looked at never, or more than once. One sentence, which names them."""


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    ids: Sequence[str],
    device: torch.device,
    precision: Precision,
    processes: Processes = ALONE,
) -> Evaluation:
    """What `model`, in eval mode, says of the images `ids`; its mode is put back afterwards.

    `batches` are this process's of `data.eval_batches` on `device`. All `processes` get the whole.

    Raises:
        Stopped: between two batches, here or in another process.
        NotOnce: together the batches are not each image once.
    """
    was_training = model.training
    model.eval()
    try:
        seen = list(
            zip(*(_look(model, batch, device, precision) for batch in batches), strict=True)
        )
        own = [torch.cat(parts).cpu() for parts in seen]
    except Stopped:
        own = None
    model.train(was_training)
    told = processes.all_of(own)
    if None in told:
        raise Stopped
    return _whole(
        [columns for columns in told if columns], ids
    )  # a process that had no batch has no columns


@torch.inference_mode()
def _look(
    model: nn.Module, batch: Batch, device: torch.device, precision: Precision
) -> tuple[Tensor, ...]:
    """Of a batch's images: their indices, then the columns of `Evaluation`."""
    with autocast(precision, device):
        logits = model(batch.images)
    probabilities = F.softmax(logits[: batch.valid].float(), dim=1)
    own = batch.labels[: batch.valid]
    best = probabilities.topk(min(5, probabilities.shape[1]))
    return (
        batch.indices,
        own,
        best.indices,
        probabilities.gather(1, own[:, None])[:, 0],
        best.values[:, 0],
    )


def _whole(seen: Sequence[Sequence[Tensor]], ids: Sequence[str]) -> Evaluation:
    """All that the processes have seen, in the order of `ids`. Raises NotOnce."""
    indices, *columns = (torch.cat(parts) for parts in zip(*seen, strict=True))
    times = torch.bincount(indices, minlength=len(ids))
    if wrong := [
        f"{ids[index]} {count} times" for index, count in enumerate(times.tolist()) if count != 1
    ]:
        raise NotOnce(
            f"an evaluation looked at {len(indices):,} images instead of each of {len(ids):,} once "
            f"({first_few(wrong)}): this is a fault of the program, and nothing of it is counted"
        )
    order = indices.argsort()
    return Evaluation(*(column[order] for column in columns))
