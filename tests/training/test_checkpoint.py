"""A checkpoint is whole or it is recognised as not."""

import io
import os
import random
import zipfile

import pytest
import torch

from training import checkpoint
from training.checkpoint import Damaged

CPU = torch.device("cpu")
STATE = {"epoch": 3, "weights": torch.arange(1000.0), "name": "x"}


def test_a_checkpoint_comes_back_as_it_was_and_the_one_before_is_kept(tmp_path) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {**STATE, "epoch": 2})
    checkpoint.save(path, STATE)
    loaded = checkpoint.load(path)
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["weights"], STATE["weights"])
    assert checkpoint.load(checkpoint.previous(path))["epoch"] == 2
    assert torch.load(path, weights_only=True)["epoch"] == 3, "torch reads it too"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt", "checkpoint.pt.previous"]


def kinds_of_damage(good: bytes) -> dict[str, bytes]:
    """Files that are no whole checkpoint, by what is wrong with them."""
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 0x10
    foreign, archive = io.BytesIO(), io.BytesIO()
    torch.save(STATE, foreign)  # another program's
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "text")
    return {
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "torn in its last byte": good[:-1],
        "a bit": bytes(flipped),
        "text": b"not a checkpoint" * 100,
        "torch's": foreign.getvalue(),
        "a zip": archive.getvalue(),
        "random": random.Random(0).randbytes(5000),
        "zeros": bytes(len(good)),
    }


def test_every_kind_of_damage_is_recognised_and_gives_way_to_the_one_before(
    tmp_path, capsys
) -> None:
    path = tmp_path / "c.pt"
    assert checkpoint.load_latest(path) is None
    for epoch in (2, 3):
        checkpoint.save(path, {**STATE, "epoch": epoch})
    good = path.read_bytes()
    assert checkpoint.load_latest(path)["epoch"] == 3
    for kind, content in kinds_of_damage(good).items():
        path.write_bytes(content)
        with pytest.raises(Damaged, match=r"^\S+/c\.pt is damaged: [^\n]+$"):
            checkpoint.load(path)
        assert checkpoint.load_latest(path)["epoch"] == 2, kind
        printed = capsys.readouterr().err
        assert "c.pt is damaged" in printed
        assert "resuming from the one before" in printed
        # The good one stays the previous one until there is a better: the next save must not
        # replace it.
        assert checkpoint.damaged(path).read_bytes() == content
        assert not path.exists()
        assert checkpoint.load_latest(path)["epoch"] == 2
        path.write_bytes(good)


def test_a_damaged_one_without_a_good_one_before_is_refused(tmp_path) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, STATE)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(Damaged, match=r"c\.pt is damaged"):
        checkpoint.load_latest(path)
    checkpoint.previous(path).write_bytes(b"torn")
    with pytest.raises(Damaged, match=r"c\.pt\.previous is damaged"):
        checkpoint.load_latest(path)
    path.unlink()
    with pytest.raises(Damaged, match=r"c\.pt\.previous is damaged"):
        checkpoint.load_latest(path)


@pytest.mark.parametrize("owner", [{"digest": "theirs"}, {}], ids=["other", "nobody"])
def test_another_runs_checkpoint_gives_way_too(owner, tmp_path) -> None:
    path, good = tmp_path / "c.pt", {**STATE, "digest": "ours"}
    checkpoint.save(path, {**STATE, **owner})
    with pytest.raises(Damaged, match=r"c\.pt belongs to another run: its digest is "):
        checkpoint.load_latest(path, "ours")
    checkpoint.save(tmp_path / "good.pt", good)
    (tmp_path / "good.pt").rename(checkpoint.previous(path))
    assert checkpoint.load_latest(path, "ours")["digest"] == "ours"


def test_a_disk_without_links_keeps_the_one_before_by_renaming(tmp_path, monkeypatch) -> None:
    def refuses(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuses)
    path = tmp_path / "c.pt"
    for epoch in (2, 3):
        checkpoint.save(path, {**STATE, "epoch": epoch})
    assert checkpoint.load(path)["epoch"] == 3
    assert checkpoint.load(checkpoint.previous(path))["epoch"] == 2


def test_loading_executes_nothing(tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'executed')!r}, 'w')",))

    path = tmp_path / "c.pt"
    checkpoint.save(path, {"trap": Trap()})  # a planted file with a valid checksum
    with pytest.raises(Damaged, match="not a checkpoint of plain tensors"):
        checkpoint.load(path)
    assert not (tmp_path / "executed").exists()


def test_there_is_no_moment_without_a_checkpoint(tmp_path, monkeypatch) -> None:
    path = tmp_path / "c.pt"
    checkpoint.save(path, {**STATE, "epoch": 2})

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_atomically", dies)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, STATE)
    assert checkpoint.load_latest(path)["epoch"] == 2
