"""What a trained network costs whoever uses it, or trains it again: time of inference, and
memory."""

import statistics
import time

import torch

from training import memory
from training.compute_options import memory_format
from training.device import autocast, wait_for
from training.update import TrainState

LARGE = 64
"""Images of a large batch: enough for a rate, and little enough for a processor."""
_SECONDS = 0.05
"""For the calls of one size of batch that count, of which there is one at least."""


def begin(device: torch.device) -> None:
    """Forget what memory was in use before, where the device counts it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def measure(train_state: TrainState, resolution: int) -> dict[str, float]:
    """For result.json, of a run that has been tested, for its statistics of batch norm change here.

    `inference_ms_1` and `inference_ms_64`: milliseconds of a batch of so many images that lie on
    the device, the median, in the run's precision, layout and threads, but never compiled.
    `peak_memory_mb`: on CUDA the most that tensors took since `begin`; elsewhere, where nobody
    counts, weights, gradients, moments and what a part of the batch keeps for its backward pass, as
    `training.memory` measures it.
    """
    recipe, device = train_state.recipe, train_state.device
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        rows = recipe.batch_size // recipe.micro_batches
        kept = memory.bytes_per_image(
            train_state.model.train(), resolution, train_state.precision, device
        )
        peak = memory.state_bytes(train_state.model, recipe) + rows * kept
    latencies = {
        f"inference_ms_{count}": round(_milliseconds(train_state, resolution, count), 4)
        for count in (1, LARGE)
    }
    return {**latencies, "peak_memory_mb": round(peak / 1e6, 2)}


@torch.inference_mode()
def _milliseconds(train_state: TrainState, resolution: int, count: int) -> float:
    model = train_state.judged.eval()
    images = torch.zeros(count, 3, resolution, resolution, device=train_state.device)
    images = images.contiguous(memory_format=memory_format(train_state.layout))

    def call() -> float:
        started = time.perf_counter()
        with autocast(train_state.precision, train_state.device):
            model(images)
        wait_for(train_state.device)
        return time.perf_counter() - started

    call()  # the first allocates and chooses kernels
    times = [call()]
    while sum(times) < _SECONDS:
        times.append(call())
    return 1000 * statistics.median(times)
