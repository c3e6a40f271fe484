"""A checkpoint is whole or it is recognised as not."""

import pickle

import pytest
import torch

from training import checkpoint

CPU = torch.device("cpu")
STATE = {"epoch": 3, "weights": torch.arange(1000.0), "name": "x"}


def test_a_checkpoint_comes_back_as_it_was_and_the_one_before_is_kept(tmp_path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {**STATE, "epoch": 2})
    checkpoint.save(path, STATE)
    loaded = checkpoint.load(path, CPU)
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["weights"], STATE["weights"])
    assert checkpoint.load(checkpoint.previous(path), CPU)["epoch"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "checkpoint.pt.previous"]


def test_torch_reads_it_too(tmp_path) -> None:
    checkpoint.save(tmp_path / "c.pt", STATE)
    assert torch.load(tmp_path / "c.pt", weights_only=True)["epoch"] == 3


def test_every_kind_of_damage_is_recognised(tmp_path) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, STATE)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 0x10
    for damaged in (b"", good[: len(good) // 2], good[:-1], bytes(flipped), b"not a checkpoint" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            checkpoint.load(path, CPU)


def test_loading_executes_nothing(tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'executed')!r}, 'w')",))

    path = tmp_path / "c.pt"
    checkpoint.save(path, {"trap": Trap()})  # a planted file with a valid checksum
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(path, CPU)
    assert not (tmp_path / "executed").exists()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys) -> None:
    path = tmp_path / "c.pt"
    assert checkpoint.load_latest(path, CPU) is None
    for epoch in (2, 3):
        checkpoint.save(path, {**STATE, "epoch": epoch})
    assert checkpoint.load_latest(path, CPU)["epoch"] == 3
    path.write_bytes(path.read_bytes()[:-10])
    assert checkpoint.load_latest(path, CPU)["epoch"] == 2
    assert "going on from the one before" in capsys.readouterr().err
    checkpoint.previous(path).unlink()
    with pytest.raises(ValueError, match="delete it to begin this run anew"):
        checkpoint.load_latest(path, CPU)


def test_there_is_no_moment_without_a_checkpoint(tmp_path, monkeypatch) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, {**STATE, "epoch": 2})

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_atomically", dies)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, STATE)
    assert checkpoint.load_latest(path, CPU)["epoch"] == 2
