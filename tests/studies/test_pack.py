"""A pack is a study: the same report, byte for byte, from one small file."""

import bz2
import json
import lzma
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from report.page import write
from studies import pack
from tests.report.conftest import StudyFolder

Make = Callable[..., StudyFolder]


@pytest.fixture
def study(make_study: Make) -> StudyFolder:
    """Finished, unfinished and shared runs."""
    study = make_study(test=60)
    for seed in range(2):
        study.add("depthwise", 40 + seed, seed=seed)
        study.add("width", 45 - seed, seed=seed)
    study.add("gelu", 0, finished=False, epochs=2)
    study.add("layer-norm", 30, images=[f"a, b/{i}" for i in range(60)])  # other images
    twin = study.folder("kernel-7")
    twin.mkdir(parents=True)
    config = (study.folder("width") / "config.json").read_text()
    (twin / "config.json").write_text(config.replace('"step": "width"', '"step": "kernel-7"'))
    return study


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    paths = [path for path in paths if "tensorboard" not in path.parts]  # event files have times
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def columns(predictions: bytes) -> list[list[str]]:
    header, *rows = (line.split(",") for line in predictions.decode().splitlines())
    keep = [header.index(name) for name in ("image", "label", "p_top1", "top1")]
    return [[row[place] for place in keep] for row in rows]


def test_the_report_of_a_pack_is_that_of_the_folder_byte_for_byte(
    study: StudyFolder, tmp_path: Path
) -> None:
    out = tmp_path / "elsewhere/s.pack"
    out.parent.mkdir()
    pack.pack(study.root, out)
    page = write(study.root)
    assert write(out) == tmp_path / "elsewhere/s-report/report.md"
    assert contents(tmp_path / "elsewhere/s-report") == contents(page.parent)


def test_a_pack_holds_the_records_and_what_a_report_reads_of_predictions(
    study: StudyFolder, tmp_path: Path
) -> None:
    before = contents(study.root)
    for name in ("model.safetensors", "checkpoint.pt", "events.out.tfevents.1"):
        (study.folder("width") / name).write_bytes(b"much")
    pack.pack(study.root, tmp_path / "a.pack")
    with pack.opened(tmp_path / "a.pack") as folder:
        after = contents(folder)
        pack.pack(folder, tmp_path / "b.pack")
    assert (tmp_path / "a.pack").read_bytes() == (tmp_path / "b.pack").read_bytes()
    assert json.loads(after.pop("study.json")) == json.loads(before.pop("study.json"))
    assert after.keys() == before.keys()
    for name, content in before.items():
        if not name.endswith("predictions.csv"):
            assert after[name] == content
        elif "layer-norm" not in name:
            assert columns(after[name]) == columns(content)


def test_predictions_take_under_three_bytes_each(study: StudyFolder, tmp_path: Path) -> None:
    path, size = study.folder("width") / "predictions.csv", 20_000
    rows = [f"test/{i:05},{i % 10},1,0.{i * 7919 % 9000 + 999},{i % 10}" for i in range(size)]
    path.write_text("image,label,p_label,p_top1,top1\n" + "\n".join(rows) + "\n")
    pack.pack(study.root, tmp_path / "one.pack")
    path.unlink()
    pack.pack(study.root, tmp_path / "none.pack")
    sizes = [(tmp_path / name).stat().st_size for name in ("one.pack", "none.pack")]
    assert sizes[0] - sizes[1] < 3 * size


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (lambda good: good[: len(good) // 2], "is damaged or no pack"),
    "a bit": (lambda good: good[:900] + bytes([good[900] ^ 4]) + good[901:], "is damaged or no"),
    "empty": (lambda good: b"", "is damaged or no pack"),
    "old": (lambda good: lzma.compress(bz2.decompress(good)), "it is of an older version"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_pack_is_refused_in_one_line_and_nothing_is_written(
    study: StudyFolder, tmp_path: Path, damage: str
) -> None:
    change, message = DAMAGES[damage]
    path = tmp_path / "s.pack"
    pack.pack(study.root, path)
    path.write_bytes(change(path.read_bytes()))
    before = contents(tmp_path)
    for attempt in (
        lambda: write(path),
        lambda: pack.merge([study.root, path], tmp_path / "out.pack"),
    ):
        with pytest.raises(ValueError, match=rf"^{path} [^\n]*{message}[^\n]*$"):
            attempt()
    assert contents(tmp_path) == before


def test_a_pack_of_another_format_is_refused(
    study: StudyFolder, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(pack, "FORMAT", 1)
    pack.pack(study.root, tmp_path / "old.pack")
    monkeypatch.undo()
    with (
        pytest.raises(ValueError, match="is a pack of format 1, and this version reads 2"),
        pack.opened(tmp_path / "old.pack"),
    ):
        pass


@pytest.fixture
def parts(study: StudyFolder, tmp_path: Path) -> tuple[Path, Path]:
    """The study from two machines: seed 0 and an unfinished run; seed 1 and that run."""
    one, other = tmp_path / "one", tmp_path / "other"
    for part in (one, other):
        shutil.copytree(study.root, part)
    for run in one.glob("*/seed-1"):
        shutil.rmtree(run)
    for run in other.glob("*/seed-0"):
        if run.parent.name != "width":
            shutil.rmtree(run)
    for name in ("result.json", "predictions.csv"):
        (one / "width/seed-0" / name).unlink()
    return one, other


def test_parts_from_two_machines_are_merged_into_the_whole(
    study: StudyFolder, parts, tmp_path: Path
) -> None:
    for part, designs in zip(parts, (["a", "b"], ["b", "c"]), strict=True):
        record = json.loads((part / "study.json").read_text())
        config = record["config"] | {"dataset": f"imagefolder:{part}"}  # of the same hash
        dataset = record["dataset"] | {"name": config["dataset"]}
        record |= {"designs": designs, "config": config, "dataset": dataset}
        (part / "study.json").write_text(json.dumps(record))
    pack.pack(parts[1], tmp_path / "other.pack")
    pack.merge([parts[0], tmp_path / "other.pack"], tmp_path / "whole.pack")
    pack.pack(study.root, tmp_path / "s.pack")
    with pack.opened(tmp_path / "whole.pack") as merged, pack.opened(tmp_path / "s.pack") as whole:
        files, expected = contents(merged), contents(whole)
        assert json.loads(files.pop("study.json"))["designs"] == ["a", "b", "c"]
        del expected["study.json"]
        assert files == expected


def test_a_run_with_different_results_in_two_parts_is_named(
    study: StudyFolder, parts, tmp_path: Path
) -> None:
    shutil.copytree(study.folder("depthwise"), parts[1] / "depthwise/seed-0")  # the same, twice
    pack.merge(parts, tmp_path / "whole.pack")
    for name, old, new, differ in (
        ("predictions.csv", "0.6,", "0.61,", "predictions"),
        ("config.json", '"digest": "depthwise-0"', '"digest": "another"', "digest"),
    ):
        path = parts[1] / "depthwise/seed-0" / name
        path.write_text(path.read_text().replace(old, new))
        with pytest.raises(ValueError, match=f"have depthwise/seed-0 and differ in its {differ}"):
            pack.merge(parts, tmp_path / "whole.pack")


def test_parts_of_different_studies_are_refused(
    make_study: Make, study: StudyFolder, tmp_path: Path
) -> None:
    other = make_study("other", test=60)
    other.add("gelu", 20)
    path = other.root / "study.json"
    path.write_text(path.read_text().replace("0123456789ab", "ffffffffffff"))
    with pytest.raises(ValueError, match="are of different studies: their hash differs"):
        pack.merge([study.root, other.root], tmp_path / "out.pack")
    assert not (tmp_path / "out.pack").exists()


def test_a_pipe_is_not_packed(study: StudyFolder, tmp_path: Path) -> None:
    path = study.folder("width") / "metrics.jsonl"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(OSError, match="metrics.jsonl"):
        pack.pack(study.root, tmp_path / "s.pack")
