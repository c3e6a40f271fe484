"""The checks of a GPU besides its rates: each function is a job (benchmarks.jobs).

All is done by the product's own functions: networks, update, loop, loader, answer to a lack of
memory. On the CPU the same code runs, and what only a GPU can show is "not measured".
"""

import contextlib
import io
import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ablations import PAPER, get_regime
from benchmarks.jobs import NOT_MEASURED, Finding
from benchmarks.measure import DrawnImages
from data import datasets
from data.loader import Batch, train_batches
from models.builder import build
from studies import run_queue
from studies.run import Run
from studies.study import open_study
from training import checkpoint
from training.device import (
    empty_cache,
    find_device,
    forget_peak,
    free_memory,
    no_waiting,
    peak_memory,
    set_up,
)
from training.execution import ComputeOptions, Execution, Stores, open_stores
from training.interrupt import STOPPED, Stopped, StopRequest
from training.recipe import CLASSIC, Precision, Recipe, StudyConfig
from training.spec import short_side
from training.train import train
from training.update import TrainState, gradients, noise, update

_FALL = 0.05
"""Of the loss that is compared, an update."""
_CLASSES = 10
"""Of the networks that are checked: few, so that a handful of updates is seen in the loss."""
_UPDATES = 3
"""Of which losses are compared."""
LOSS_BOUNDS: dict[str, float] = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1}
"""Largest difference to the CPU's losses in fp32, relative to the first of them."""
NORM_BOUNDS: dict[str, float] = {"fp32": 0.05, "fp16": 0.2, "bf16": 0.5}
"""Largest difference of a gradient's norm, relative to it and to 1 % of the norm of them all,
tensor by tensor."""


@dataclass(frozen=True)
class Setting:
    """What is checked, and how small."""

    device: str
    regime: str
    resolution: int
    """Pixels."""
    batch: int
    """Images."""
    workers: int
    threads: int
    """CPU threads of a job."""
    folder: Path
    """For files that jobs share."""

    def start(self, precision: Precision, deterministic: bool = False) -> torch.device:
        torch.set_num_threads(self.threads)
        device = find_device(self.device)
        set_up(device, precision, deterministic)
        return device

    def recipe(self, step: str) -> Recipe:
        """The recipe of the step, for a batch of the check.

        Without stochastic depth, which each device draws its own way, and with layer scale at 1: at
        1e-6 the branches would hardly be seen in the loss.
        """
        config = StudyConfig(regime=self.regime)
        recipe = PAPER.setup(step, get_regime(self.regime), config, _CLASSES).recipe
        scale = None if recipe.layer_scale is None else 1.0
        return recipe.change(
            drop_path=0.0, layer_scale=scale, batch_size=self.batch, micro_batches=1
        )

    def train_state(
        self,
        step: str,
        device: torch.device,
        precision: Precision,
        options: ComputeOptions = ComputeOptions(),
        **changes: Any,
    ) -> TrainState:
        """A new network, the same each time."""
        torch.manual_seed(0)
        recipe = self.recipe(step).change(**changes)
        architecture = PAPER.architecture(step, get_regime(self.regime), _CLASSES)
        model = build(
            architecture,
            drop_path=recipe.drop_path,
            layer_scale=recipe.layer_scale,
            init=recipe.init,
        )
        return TrainState(model, recipe, options, device, precision)


def _losses(
    setting: Setting, train_state: TrainState, lr: float | None = None
) -> tuple[dict[str, Any], Batch]:
    """Losses of updates by one batch, the norms of the first gradients, and the batch.

    Without a learning rate, the one that lowers the loss by `_FALL` an update as far as its slope
    tells: along the gradient for SGD, by the gradients' signs for AdamW. Larger ones would magnify
    what rounding does.
    """
    scaler = train_state.scaler
    if scaler.is_enabled():  # from 2^16, where it begins, the first updates would be skipped
        scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0**8})
    torch.manual_seed(1)
    batch = noise(setting.batch, setting.resolution, _CLASSES, train_state.device)
    gradients(train_state, 0, repeat(batch))
    grads = [p.grad.float() for p in train_state.model.parameters() if p.grad is not None]
    grads = [grad / scaler.get_scale() for grad in grads]
    if lr is None:
        sgd = train_state.recipe.optimizer == "sgd"
        slope = sum(float((each.square() if sgd else each.abs()).sum()) for each in grads)
        lr = _FALL * math.log(_CLASSES) / slope
    norms = [float(each.norm()) for each in grads]
    train_state.optimizer.zero_grad()
    losses = []
    for number in range(_UPDATES):
        update(train_state, number, repeat(batch), lr)
        train_state.monitor.drain()
        losses.append(train_state.monitor.last)
    return {"losses": losses, "norms": norms, "lr": lr}, batch


def _apart(found: Mapping[str, Any], truth: Mapping[str, Any]) -> float:
    """The largest difference of two lists of losses, relative to the first."""
    return float(np.max(np.abs(np.array(found["losses"]) - truth["losses"])) / truth["losses"][0])


def _of_the_cpu(step: str, setting: Setting) -> dict[str, Any]:
    """`_losses` of the plain network on the CPU in fp32, computed once for all jobs."""
    kept = setting.folder / f"{step}.json"
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(kept.read_text()))
    torch.set_num_threads(setting.threads)
    cpu = torch.device("cpu")
    set_up(cpu, "fp32")
    plain = setting.train_state(step, cpu, "fp32", ComputeOptions(channels_last=False))
    found, _ = _losses(setting, plain)
    kept.write_text(json.dumps(found))
    return found


def losses(
    step: str, precision: Precision, options: ComputeOptions, setting: Setting
) -> Iterator[Finding]:
    """Whether the device's losses are the CPU's, and whether an update waits for it."""
    truth = _of_the_cpu(step, setting)
    device = setting.start(precision)
    train_state = setting.train_state(step, device, precision, options)
    found, batch = _losses(setting, train_state, truth["lr"])
    apart = _apart(found, truth)
    own, theirs = np.array(found["norms"]), np.array(truth["norms"])
    norms = float(np.max(np.abs(own - theirs) / (theirs + 0.01 * np.linalg.norm(theirs))))
    held = apart <= LOSS_BOUNDS[precision] and norms <= NORM_BOUNDS[precision]
    waits = hidden_waiting(train_state, repeat(batch), device)
    text = f"losses {apart:.1e} apart, norms of gradients {norms:.1e}{'; ' * bool(waits)}{waits}"
    figures = {"losses": found["losses"], "cpu": truth["losses"], "norms_apart": norms}
    yield Finding(f"{step}, {precision}, {options}", held and not waits, text, figures)
    empty_cache(device)


def dropped(step: str, precision: Precision, setting: Setting) -> Iterator[Finding]:
    """Whether stochastic depth drops the same branches compiled and not."""
    truth = _of_the_cpu(step, setting)
    device = setting.start(precision)
    eager, compiled = (
        _losses(
            setting,
            setting.train_state(
                step, device, precision, ComputeOptions(compile=compile), drop_path=0.5
            ),
            truth["lr"],
        )[0]
        for compile in (False, True)
    )
    apart, moved = _apart(compiled, eager), _apart(eager, truth)
    text = f"losses {apart:.1e} apart where dropping moves them by {moved:.1e}"
    held = apart <= LOSS_BOUNDS[precision] < moved
    yield Finding(f"{step}, {precision}, stochastic depth compiled", held, text)


def hidden_waiting(train_state: TrainState, batches: Iterator[Batch], device: torch.device) -> str:
    """What in two updates made the host wait for the device unasked; nothing on the CPU.

    Raises:
        AssertionError: torch does not notice waiting, so that nothing could be said.
    """
    if device.type != "cuda":
        return ""
    with no_waiting(device):
        try:
            for number in range(2):
                update(train_state, number, batches, 1e-6)
        except RuntimeError as error:
            return f"an update waits: {error}"
        with contextlib.suppress(RuntimeError):
            torch.ones(1, device=device).item()
            raise AssertionError("torch.cuda.set_sync_debug_mode did not notice .item()")
    train_state.monitor.drain()
    return ""


def waiting(
    step: str, precision: Precision, ema: float | None, setting: Setting
) -> Iterator[Finding]:
    """Whether an update waits that takes its images from the loader, mixed and erased on the
    device."""
    device = setting.start(precision)
    train_state = setting.train_state(step, device, precision, ema=ema, drop_path=0.1)
    batches = train_batches(
        DrawnImages(8 * setting.batch, short_side(setting.resolution)),
        train_state.recipe.augmentation,
        setting.resolution,
        seed=0,
        epoch=0,
        batch_size=setting.batch,
        workers=setting.workers,
        device=device,
    )
    with contextlib.closing(batches):
        for number in range(4):  # constants are moved to the device once, kernels are chosen
            update(train_state, number, batches, 1e-6)
        waits = hidden_waiting(train_state, batches, device)
    what = f"{step}, {precision}, images from the loader{', averaged weights' if ema else ''}"
    text = waits or "two updates did not wait, and torch would have noticed"
    if device.type != "cuda":
        text = f"{NOT_MEASURED}: torch notices waiting on CUDA only"
    yield Finding(what, not waits if device.type == "cuda" else None, text)


class _After(StopRequest):
    """Asks a run to stop after so many updates."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.updates = updates

    def __bool__(self) -> bool:
        self.updates -= 1
        self.requested = self.requested or self.updates <= 0
        return self.requested


def _study(
    folder: Path, setting: Setting, step: str, precision: Precision, batch: int, images: int
) -> tuple[Run, Stores]:
    """A run of three epochs of the step in a study of its own, on `images` drawn JPEGs a class."""
    root, side = folder / "images", setting.resolution + 16
    random = np.random.default_rng(0)
    for name in ("one", "other"):
        (root / name).mkdir(parents=True)
        for number in range(images):
            image = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
                (side, side)
            )
            image.save(root / name / f"{number:04}.jpg")
    dataset = datasets.load(f"imagefolder:{root}", root)
    with contextlib.redirect_stderr(io.StringIO()):  # decoding says what it does
        stores = open_stores(dataset, folder / "cache", short_side(setting.resolution))
    regime = get_regime(setting.regime)
    modern, classic = (
        each.change(epochs=3, warmup_epochs=0, batch_size=batch) for each in (Recipe(), CLASSIC)
    )
    config = StudyConfig(
        dataset.name, setting.regime, setting.resolution, precision, modern, classic
    )
    setup = PAPER.setup(step, regime, config, len(dataset.classes))
    fingerprint = dataset.fingerprint()
    study = open_study(folder / "runs" / "study", config, dataset.summary, fingerprint)
    return Run(
        study, step, PAPER.step(step, regime).number, 0, setup.architecture, setup.recipe
    ), stores


def resumed(
    step: str, precision: Precision, deterministic: bool, setting: Setting
) -> Iterator[Finding]:
    """Whether a run that is stopped in mid-epoch and goes on ends where one that is not stopped
    does."""
    device = setting.start(precision, deterministic)
    execution = Execution(device, setting.workers, ComputeOptions(), deterministic=deterministic)
    states: list[dict[str, Any]] = []
    for stops in ((7,), (4, 3)):  # of six updates an epoch
        with tempfile.TemporaryDirectory() as name:
            run, stores = _study(Path(name), setting, step, precision, 8, 30)
            for updates in stops:
                with contextlib.suppress(Stopped):
                    train(run.spec, stores, execution, _After(updates))
            states.append(checkpoint.load(run.folder / checkpoint.NAME))
    whole, parted = (
        dict(_tensors({name: state[name] for name in ("model", "optimizer", "scaler")}))
        for state in states
    )
    same = sum(torch.equal(whole[name], parted[name]) for name in whole)
    apart = max(
        float((whole[name] - parted[name]).norm() / (whole[name].norm() + 1e-12)) for name in whole
    )
    where = [(state["state"]["epoch"], state["state"]["batch"]) for state in states]
    text = f"{same} of {len(whole)} tensors are the same to the bit, the farthest {apart:.1e} apart"
    what = f"{step}, {precision}, stopped and resumed{', deterministic' if deterministic else ''}"
    held = (
        where[0] == where[1]
        and whole.keys() == parted.keys()
        and (same == len(whole) or not deterministic)
    )
    yield Finding(what, held, text, {"same": same, "tensors": len(whole), "apart": apart})


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All numbers in a nested state, by their place."""
    if isinstance(state, torch.Tensor):
        yield name, state.double()
    elif isinstance(state, dict | list | tuple):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from _tensors(value, f"{name}.{key}")
    elif isinstance(state, int | float):
        yield name, torch.tensor(float(state), dtype=torch.float64)


def answered(step: str, precision: Precision, setting: Setting) -> Iterator[Finding]:
    """Check that a batch too large for the memory is answered by one that fits."""
    device, batch = setting.start(precision), 64
    what = f"{step}, {precision}, a batch that ends a run"
    if device.type != "cuda":
        yield Finding(what, None, f"{NOT_MEASURED}: for a GPU; a test emulates it")
        return
    with tempfile.TemporaryDirectory() as name:
        run, stores = _study(Path(name), setting, step, precision, batch, 40)
        forget_peak(device)
        _run(run, stores, setting, device, _After(2))
        free_bytes = int(0.6 * (peak_memory(device) or 0))
    with tempfile.TemporaryDirectory() as name:
        run, stores = _study(Path(name), setting, step, precision, batch, 40)
        with _limit_memory(device, free_bytes):
            message, code = _run(run, stores, setting, device, StopRequest())
        named = re.search(r"micro-batches (\d+)", message)
        if named is None:
            yield Finding(what, False, f"exit code {code}, no batch was named: {message}")
            return
        study = replace(run.study, folder=run.study.folder.with_name("again"))
        recipe = run.recipe.change(micro_batches=int(named[1]))
        with _limit_memory(device, free_bytes):
            again = replace(run, study=study, recipe=recipe)
            why, code = _run(again, stores, setting, device, _After(2))
    went = "with that it was trained" if code == STOPPED else f"with that it was not: {why}"
    yield Finding(what, code == STOPPED, f"{message}; {went}", {"free_bytes": free_bytes})


def _run(
    run: Run, stores: Stores, setting: Setting, device: torch.device, stop: StopRequest
) -> tuple[str, int]:
    """Train the run. Returns the last message and the exit code."""
    with contextlib.redirect_stderr(io.StringIO()) as captured:
        code = run_queue.run_all([run], stores, Execution(device, setting.workers), stop)
    return captured.getvalue().strip().rpartition("runner.py: ")[2], code


@contextlib.contextmanager
def _limit_memory(device: torch.device, free_bytes: int) -> Iterator[None]:
    """Within the block only so many bytes of the device are free."""
    empty_cache(device)
    size = max(0, free_memory(device) - free_bytes)
    taken = torch.empty(size, dtype=torch.uint8, device=device)
    try:
        yield
    finally:
        del taken
        empty_cache(device)
