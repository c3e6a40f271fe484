"""Batches are a function of (seed, epoch), for any number of workers, processes and restarts."""

import multiprocessing
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import Tensor

from data.augment import centre_crop, finish
from data.augmentation import Augmentation
from data.loader import Batch, Prepared, batches_per_epoch, epoch_order, eval_batches, train_batches

FULL = Augmentation()
TENSORS = ("images", "labels", "partner_labels", "weight", "indices")
OFF = Augmentation(rand_augment_magnitude=0, color_jitter=0, random_erasing=0, mixup=0, cutmix=0)


class Store:
    """Images of two sizes in memory; the label of an image is its index."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand((count, 3, 6, 8), generator=generator) * 350 - 50
        planes = torch.nn.functional.interpolate(coarse, size=(56, 70), mode="bicubic")
        upright = planes.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        self.images = [
            one if row % 3 else one.transpose(0, 1).contiguous() for row, one in enumerate(upright)
        ]
        self.labels = torch.arange(count)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def train(store, augmentation=FULL, **changes) -> list[Batch]:
    options = {"seed": 3, "epoch": 2, "batch_size": 16, **changes}
    return list(train_batches(store, augmentation, 48, **options))


def assert_same(ours: Sequence[Batch], theirs: Sequence[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in TENSORS:
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def joined(batches: Sequence[Batch]) -> Batch:
    return Batch(*(torch.cat([getattr(batch, name) for batch in batches]) for name in TENSORS))


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(70)


@pytest.fixture(scope="module")
def epoch(store: Store) -> list[Batch]:
    return train(store)


def test_an_epoch_is_full_batches_of_distinct_images(store: Store, epoch: list[Batch]) -> None:
    assert [batch.images.shape for batch in epoch] == [(16, 3, 48, 48)] * 4
    labels = torch.cat([batch.labels for batch in epoch])
    assert len(labels.unique()) == 64
    assert labels.tolist() == epoch_order(70, 3, 2)[:64].tolist()
    for batch in epoch:
        assert batch.images.dtype == batch.weight.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.partner_labels.tolist() == batch.labels.view(-1, 2).flip(1).flatten().tolist()
        assert len(batch.weight.unique()) == 1
        assert 0 <= batch.weight[0] <= 1


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 4}, {"start": 1}, {"start": 4}])
def test_workers_and_restarts_give_the_same_bytes(store: Store, epoch, options) -> None:
    assert_same(train(store, **options), epoch[options.get("start", 0) :])


@pytest.mark.parametrize(("world", "parts"), [(1, 2), (2, 2), (2, 4), (3, 4), (4, 4), (3, 8)])
def test_the_parts_of_all_processes_together_are_the_batch(store, epoch, world, parts) -> None:
    shares = [
        train(store, rank=rank, world=world, micro_batches=parts, start=1) for rank in range(world)
    ]
    sizes = [len(share) // 3 for share in shares]
    assert max(sizes) - min(sizes) <= 1
    for batch in range(3):
        pieces = [share[batch * size :][:size] for share, size in zip(shares, sizes, strict=True)]
        whole = joined([part for piece in pieces for part in piece])
        assert_same([whole], [epoch[1 + batch]])


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_need_no_fork(store: Store, epoch: list[Batch], method: str) -> None:
    """As on Windows and Macs, and from Python 3.14 on."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        assert_same(train(store, workers=1, start=2), epoch[2:])
    finally:
        multiprocessing.set_start_method(before, force=True)


@pytest.mark.parametrize(
    ("device", "pinned", "ahead"),
    [("mps", False, False), ("mps", True, False), ("cuda", False, False), ("cuda", True, True)],
)
def test_only_pinned_memory_is_copied_while_the_host_goes_on(
    device: str, pinned: bool, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies, to = [], torch.Tensor.to

    def copy(tensor: Tensor, *args, non_blocking: bool = False, **options) -> Tensor:
        if args[:1] != (torch.device(device),):
            return to(tensor, *args, **options)
        copies.append(non_blocking)
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", copy)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: pinned)
    images, labels = torch.zeros(2, 8, 8, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    Prepared(images, labels, np.arange(2)).finish(torch.device(device))
    assert copies == [ahead, ahead]


def test_the_loader_never_waits_for_the_gpu(store: Store, monkeypatch) -> None:
    """The limit of batches in flight is the training's, which books the time that it waits."""
    stream = MagicMock()
    for name in ("Stream", "current_stream", "stream"):
        monkeypatch.setattr(torch.cuda, name, stream)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    finish_here = Prepared.finish
    cpu = torch.device("cpu")
    monkeypatch.setattr(Prepared, "finish", lambda batch, _: finish_here(batch, cpu))
    assert len(train(store, micro_batches=8, device="cuda")) == 32
    assert not [call for call in stream.mock_calls if "synchronize" in str(call)]


def test_threads_and_global_random_state_do_not_matter(store: Store, epoch: list[Batch]) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert_same(train(store), epoch)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_another_epoch_or_seed_is_another_order() -> None:
    orders = [epoch_order(1000, seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert len({tuple(order[:5]) for order in orders}) == 9


def test_without_mixing_a_label_has_all_the_weight_and_odd_shares_are_fine(store: Store) -> None:
    batches = train(store, OFF, batch_size=14, micro_batches=2, world=2, rank=1)
    assert len(batches) == 5
    for batch in batches:
        assert batch.labels.tolist() == batch.partner_labels.tolist()
        assert batch.weight.tolist() == [1.0] * 7


def test_evaluation_takes_every_image_in_order_and_pads_the_last_batch(store: Store) -> None:
    batches = list(eval_batches(store, 32, batch_size=32))
    assert [batch.valid for batch in batches] == [32, 32, 6]
    assert {batch.images.shape for batch in batches} == {(32, 3, 32, 32)}
    labels = torch.cat([batch.labels[: batch.valid] for batch in batches])
    images = torch.cat([batch.images[: batch.valid] for batch in batches])
    assert labels.tolist() == list(range(70))
    views = torch.stack([centre_crop(store[row], 32).permute(1, 2, 0) for row in range(70)])
    assert torch.equal(images, finish(views))
    assert_same(list(eval_batches(store, 32, batch_size=32, workers=2)), batches)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_an_evaluation_is_shared_by_whole_batches(store: Store, world: int) -> None:
    alone = list(eval_batches(store, 32, batch_size=16))
    shares = [
        batch
        for rank in range(world)
        for batch in eval_batches(store, 32, batch_size=16, rank=rank, world=world)
    ]
    assert_same(shares, alone)
    assert torch.equal(torch.cat([batch.indices for batch in alone]), torch.arange(70))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"world": 3, "micro_batches": 2}, "3 processes cannot share a batch of 2 micro-batches"),
        ({"micro_batches": 3}, "multiple of 6"),
        ({"micro_batches": 16}, "multiple of 32"),
        ({"micro_batches": 0}, "0 micro-batches"),
        ({"batch_size": 71}, "one batch of 71 needs more .* a batch size of 70 or less fits"),
        ({"batch_size": 0}, "at least 1"),
    ],
)
def test_impossible_batches_are_refused_at_once(store: Store, wrong, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_batches(store, FULL, 48, **{"seed": 0, "epoch": 0, "batch_size": 16, **wrong})
    with pytest.raises(ValueError, match="nothing to train on"):
        batches_per_epoch(0, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_in_one_go_are_the_epochs_one_by_one(store: Store, workers: int) -> None:
    alone = [train(store, epoch=number) for number in (2, 3, 4)]
    together = train(store, epochs=3, start=3, workers=workers)
    assert_same(together, [*alone[0][3:], *alone[1], *alone[2]])
    assert not torch.equal(alone[0][0].labels, alone[1][0].labels)
    assert train(store, epochs=0) == []


def test_closing_the_iterator_early_leaves_no_worker_behind(store: Store) -> None:
    batches = train_batches(store, OFF, 32, seed=0, epoch=0, batch_size=4, workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


class Broken(Store):
    def __getitem__(self, index: int) -> Tensor:
        if index == 40:
            raise OSError("image 40 is unreadable")
        return super().__getitem__(index)


class Cramped(Store):
    """In a worker: its shared memory is limited as a full disk is."""

    def __getitem__(self, index: int) -> Tensor:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        return super().__getitem__(index)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("kind", "workers", "message"),
    [
        (Broken, 0, "^image 40 is unreadable$"),
        (Broken, 2, "^image 40 is unreadable$"),
        (Cramped, 1, r"could not hand over its images .*--shm-size"),
    ],
)
def test_a_failure_reaches_the_training_process_and_workers_end(kind, workers, message) -> None:
    with pytest.raises(OSError, match=message):
        train(kind(64), OFF, workers=workers)
    assert multiprocessing.active_children() == []


FEW_FILES = """
import resource, sys
from tests.data.test_loader import OFF, Store, train
store = Store(64)
used = len(__import__("os").listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, used + 12))
try: train(store, OFF, workers=8)
except OSError as error: print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_workers_that_cannot_all_be_started_end_with_one_line() -> None:
    """Those that did start used to keep the process from ending."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FEW_FILES],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "give fewer --workers" in done.stdout
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
