"""Batches are a function of (seed, epoch): whoever makes them, in however many pieces, from
wherever they start."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np
import pytest
import torch
from torch import Tensor

from data.augment import centre_crop, finish
from data.augmentation import Augmentation
from data.loader import (
    Batch,
    batches_per_epoch,
    epoch_order,
    eval_batches,
    train_batches,
)

FULL = Augmentation()
TENSORS = ("images", "labels", "partner_labels", "weight", "indices")
OFF = Augmentation(rand_augment_magnitude=0, color_jitter=0, random_erasing=0, mixup=0, cutmix=0)


class Store:
    """Images of two sizes in memory; the label of an image is its index."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand((count, 3, 6, 8), generator=generator) * 350 - 50
        planes = torch.nn.functional.interpolate(coarse, size=(56, 70), mode="bicubic").clamp(
            0, 255
        )
        upright = planes.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        self.images = [
            one if row % 3 else one.transpose(0, 1).contiguous() for row, one in enumerate(upright)
        ]
        self.labels = torch.arange(count)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


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
    return list(train_batches(store, FULL, 48, seed=3, epoch=2, batch_size=16))


def test_an_epoch_is_full_batches_of_distinct_images(store: Store, epoch: list[Batch]) -> None:
    assert [batch.images.shape for batch in epoch] == [(16, 3, 48, 48)] * 4
    labels = torch.cat([batch.labels for batch in epoch])
    assert len(labels.unique()) == 64
    assert labels.tolist() == epoch_order(70, 3, 2)[:64].tolist()
    for batch in epoch:
        assert batch.images.dtype == batch.weight.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == batch.partner_labels.dtype == torch.int64
        assert batch.partner_labels.tolist() == batch.labels.view(-1, 2).flip(1).flatten().tolist()
        assert len(batch.weight.unique()) == 1
        assert 0 <= batch.weight[0] <= 1
        assert batch.valid == 16


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_bytes(
    store: Store, epoch: list[Batch], workers: int
) -> None:
    assert_same(
        list(train_batches(store, FULL, 48, seed=3, epoch=2, batch_size=16, workers=workers)), epoch
    )


@pytest.mark.parametrize("start", [1, 3, 4])
def test_an_epoch_taken_up_in_its_middle_goes_on_with_the_same_bytes(
    store: Store, epoch: list[Batch], start: int
) -> None:
    assert_same(
        list(train_batches(store, FULL, 48, seed=3, epoch=2, batch_size=16, start=start)),
        epoch[start:],
    )


@pytest.mark.parametrize(
    ("world", "micro_batches"), [(1, 2), (2, 2), (2, 4), (3, 4), (4, 4), (3, 8)]
)
def test_the_parts_of_all_processes_put_together_are_the_batch(
    store: Store, epoch: list[Batch], world: int, micro_batches: int
) -> None:
    shares = [
        list(
            train_batches(
                store,
                FULL,
                48,
                seed=3,
                epoch=2,
                batch_size=16,
                rank=rank,
                world=world,
                micro_batches=micro_batches,
                start=1,
            )
        )
        for rank in range(world)
    ]
    sizes = [len(each) // 3 for each in shares]
    assert max(sizes) - min(sizes) <= 1
    whole = [
        joined(
            [
                part
                for each, size in zip(shares, sizes, strict=True)
                for part in each[batch * size :][:size]
            ]
        )
        for batch in range(3)
    ]
    assert_same(whole, epoch[1:])


def _share(rank: int, world: int, workers: int, pipe: Connection) -> None:
    """What a process of its own makes, as plain arrays."""
    torch.set_num_threads(1)
    made = train_batches(
        Store(70),
        FULL,
        48,
        seed=3,
        epoch=2,
        batch_size=16,
        rank=rank,
        world=world,
        micro_batches=2,
        workers=workers,
        start=2,
    )
    pipe.send([[getattr(batch, name).numpy() for name in TENSORS] for batch in made])


def test_two_processes_with_workers_of_their_own_make_the_batches_of_one(
    epoch: list[Batch],
) -> None:
    processes, ends = multiprocessing.get_context("fork"), []
    for rank, workers in ((0, 0), (1, 2)):
        end, far = processes.Pipe(duplex=False)
        process = processes.Process(target=_share, args=(rank, 2, workers, far))
        process.start()
        far.close()
        ends.append((process, end))
    shares = [end.recv() for _, end in ends]
    for process, _ in ends:
        process.join()
    assert [len(share) for share in shares] == [2, 2]
    whole = [
        Batch(*(torch.from_numpy(np.concatenate(parts)) for parts in zip(*halves, strict=True)))
        for halves in zip(*shares, strict=True)
    ]
    assert_same(whole, epoch[2:])


def test_the_number_of_threads_does_not_matter(store: Store, epoch: list[Batch]) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert_same(list(train_batches(store, FULL, 48, seed=3, epoch=2, batch_size=16)), epoch)
    finally:
        torch.set_num_threads(threads)


def test_global_random_state_is_neither_read_nor_moved(store: Store, epoch: list[Batch]) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    assert_same(list(train_batches(store, FULL, 48, seed=3, epoch=2, batch_size=16)), epoch)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


def test_a_store_is_read_and_never_written(store: Store) -> None:
    before = [image.clone() for image in store.images]
    list(train_batches(store, FULL, 48, seed=0, epoch=0, batch_size=16))
    list(eval_batches(store, 48, batch_size=16))
    assert all(torch.equal(now, then) for now, then in zip(store.images, before, strict=True))


def test_another_epoch_or_seed_is_another_order() -> None:
    orders = [epoch_order(1000, seed, epoch).tolist() for seed in range(3) for epoch in range(3)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert len({tuple(order[:5]) for order in orders}) == 9


def test_without_mixing_a_label_has_all_the_weight_and_odd_shares_are_fine(store: Store) -> None:
    batches = list(
        train_batches(
            store, OFF, 32, seed=0, epoch=0, batch_size=14, micro_batches=2, world=2, rank=1
        )
    )
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
        list(eval_batches(store, 32, batch_size=16, rank=rank, world=world))
        for rank in range(world)
    ]
    assert_same([batch for each in shares for batch in each], alone)
    assert torch.equal(torch.cat([batch.indices for batch in alone]), torch.arange(70))


def test_a_store_smaller_than_a_batch_names_the_batch_that_fits(store: Store) -> None:
    with pytest.raises(
        ValueError, match="one batch of 71 needs more than the 70 .* batch size of 70 or less fits"
    ):
        train_batches(store, OFF, 32, seed=0, epoch=0, batch_size=71)
    assert len(list(train_batches(store, OFF, 32, seed=0, epoch=0, batch_size=70))) == 1
    with pytest.raises(ValueError, match="at least 1"):
        batches_per_epoch(70, 0)
    with pytest.raises(ValueError, match="nothing to train on"):
        batches_per_epoch(0, 1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"world": 3, "micro_batches": 2},
            "3 processes cannot share a batch of 2 micro-batches; start fewer",
        ),
        ({"micro_batches": 3}, "multiple of 6"),
        ({"micro_batches": 16}, "multiple of 32"),
        ({"micro_batches": 0}, "0 micro-batches"),
        ({"rank": 1}, "rank 1 of 1"),
        ({"start": 5}, "batch 5 of 4"),
    ],
)
def test_impossible_shares_are_refused_when_asked_for(
    store: Store, wrong: dict[str, int], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        train_batches(store, FULL, 48, seed=0, epoch=0, batch_size=16, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_in_one_go_are_the_epochs_one_by_one(store: Store, workers: int) -> None:
    alone = [
        list(train_batches(store, FULL, 48, seed=3, epoch=number, batch_size=16))
        for number in (2, 3, 4)
    ]
    together = list(
        train_batches(
            store, FULL, 48, seed=3, epoch=2, epochs=3, batch_size=16, start=3, workers=workers
        )
    )
    assert_same(together, [*alone[0][3:], *alone[1], *alone[2]])
    assert not torch.equal(alone[0][0].labels, alone[1][0].labels)
    assert list(train_batches(store, FULL, 48, seed=3, epoch=2, epochs=0, batch_size=16)) == []


def test_closing_the_iterator_early_leaves_no_worker_behind(store: Store) -> None:
    batches = train_batches(store, OFF, 32, seed=0, epoch=0, batch_size=4, workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_a_failing_image_fails_the_training_process_and_its_workers_end(store: Store) -> None:
    class Broken(Store):
        def __getitem__(self, index: int) -> Tensor:
            if index == 40:
                raise OSError("image 40 is unreadable")
            return super().__getitem__(index)

    for workers in (0, 2):
        with pytest.raises(OSError, match="image 40 is unreadable"):
            list(train_batches(Broken(64), OFF, 32, seed=0, epoch=0, batch_size=8, workers=workers))
    assert multiprocessing.active_children() == []


def test_a_worker_that_cannot_hand_over_its_images_is_not_waited_for(store: Store) -> None:
    class Cramped(Store):
        def __getitem__(
            self, index: int
        ) -> Tensor:  # in a worker: its shared memory is limited as a full disk is
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
            return super().__getitem__(index)

    def waited_too_long(*_: object) -> None:
        raise TimeoutError("the training process waits for a batch that never comes")

    before = signal.signal(signal.SIGALRM, waited_too_long)
    signal.alarm(60)
    try:
        with pytest.raises(OSError, match=r"could not hand over its images .*--shm-size"):
            list(train_batches(Cramped(64), OFF, 32, seed=0, epoch=0, batch_size=8, workers=1))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert multiprocessing.active_children() == []
