"""What a network says of a split: loss, top-1, top-5, and every picture's five best classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.batches import Batch
from training.device import autocast
from training.predictions import as_csv
from training.recipe import Precision


@dataclass(frozen=True)
class Evaluation:
    """Over n pictures; `top` and `p_label` are on the CPU."""

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


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Iterable[Batch], device: torch.device, precision: Precision) -> Evaluation:
    """Run `model` in eval mode over `batches` (`data.eval_batches` on `device`); its mode is put back afterwards."""
    was_training = model.training
    model.eval()
    labels, tops, p_labels, p_tops = [], [], [], []
    for batch in batches:
        with autocast(precision, device):
            logits = model(batch.images)
        probabilities = F.softmax(logits[: batch.valid].float(), dim=1)
        own = batch.labels[: batch.valid]
        labels.append(own)
        best = probabilities.topk(min(5, probabilities.shape[1]))
        tops.append(best.indices)
        p_tops.append(best.values[:, 0])
        p_labels.append(probabilities.gather(1, own[:, None])[:, 0])
    model.train(was_training)
    return Evaluation(*(torch.cat(parts).cpu() for parts in (labels, tops, p_labels, p_tops)))
