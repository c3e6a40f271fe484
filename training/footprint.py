"""What a trained network costs whoever uses it, or trains it again: time of inference, and memory."""

import statistics
import time

import torch

from training import memory
from training.device import autocast, wait_for
from training.layout import memory_format
from training.update import Learner

LARGE = 64
"""Pictures of a large batch: enough for a rate, and little enough for a processor."""
_SECONDS = 0.05
"""For the calls of one size of batch that count, of which there is one at least."""


def begin(device: torch.device) -> None:
    """Forget what memory was in use before, where the device counts it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def measure(learner: Learner, resolution: int) -> dict[str, float]:
    """For result.json, of a run that has been tested, for its statistics of batch norm change here.

    `inference_ms_1` and `inference_ms_64`: milliseconds of a batch of so many pictures that lie on the device, the
    median, in the run's precision, layout and threads, but never compiled. `peak_memory_mb`: on CUDA the most that
    tensors took since `begin`; elsewhere, where nobody counts, weights, gradients, moments and what a part of the batch
    keeps for its backward pass, as `training.memory` measures it.
    """
    recipe, device = learner.recipe, learner.device
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        rows = recipe.batch_size // recipe.micro_batches
        kept = memory.bytes_per_picture(learner.model.train(), resolution, learner.precision, device)
        peak = memory.state_bytes(learner.model, recipe) + rows * kept
    latencies = {f"inference_ms_{count}": round(_milliseconds(learner, resolution, count), 4) for count in (1, LARGE)}
    return {**latencies, "peak_memory_mb": round(peak / 1e6, 2)}


@torch.inference_mode()
def _milliseconds(learner: Learner, resolution: int, count: int) -> float:
    model = learner.judged.eval()
    images = torch.zeros(count, 3, resolution, resolution, device=learner.device)
    images = images.contiguous(memory_format=memory_format(learner.layout))

    def call() -> float:
        started = time.perf_counter()
        with autocast(learner.precision, learner.device):
            model(images)
        wait_for(learner.device)
        return time.perf_counter() - started

    call()  # the first allocates and chooses kernels
    times = [call()]
    while sum(times) < _SECONDS:
        times.append(call())
    return 1000 * statistics.median(times)
