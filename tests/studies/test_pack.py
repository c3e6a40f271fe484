"""A pack is a study: the same report, byte for byte, from one small file."""

import json
import lzma
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from report.page import write
from studies import compact, pack
from tests.report.conftest import StudyFolder
from training.spec import predictions_csv

Make = Callable[..., StudyFolder]


@pytest.fixture
def study(make_study: Make) -> StudyFolder:
    """Finished, unfinished, shared and damaged runs."""
    made = make_study(test=60)
    for seed in range(2):
        made.add("depthwise", 40 + seed, seed=seed)
        made.add("width", 45 - seed, seed=seed)
    made.add("gelu", 0, finished=False, epochs=2)
    made.add("layer-norm", 30, images=[f"a, b/{i}" for i in range(60)])  # other images
    made.add("fewer-norms", 30)
    path = made.folder("fewer-norms") / "predictions.csv"
    path.write_text(path.read_text().replace("0.6", "0.60", 1))  # not as training writes it
    twin = made.folder("kernel-7")
    twin.mkdir(parents=True)
    shutil.copy(made.folder("width") / "config.json", twin)
    path = twin / "config.json"
    path.write_text(path.read_text().replace('"step": "width"', '"step": "kernel-7"'))
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_report_of_a_pack_is_that_of_the_folder_byte_for_byte(
    study: StudyFolder, tmp_path: Path
) -> None:
    out = tmp_path / "elsewhere/s.pack"
    out.parent.mkdir()
    pack.pack(study.root, out)
    heard: list[list[str]] = [[], []]
    page = write(study.root, tell=heard[0].append)
    assert write(out, tell=heard[1].append) == tmp_path / "elsewhere/s-report/report.md"
    assert contents(tmp_path / "elsewhere/s-report") == contents(page.parent)
    assert heard[0] == heard[1]
    assert len(heard[0]) > 0


def test_a_pack_holds_every_file_that_a_report_reads_as_it_was_and_no_other(
    study: StudyFolder, tmp_path: Path
) -> None:
    before = contents(study.root)
    for name in ("model.safetensors", "checkpoint.pt", "events.out.tfevents.1", ".lock"):
        (study.folder("width") / name).write_bytes(b"much")
    (study.root / ".requested.json").write_text("{}")
    pack.pack(study.root, tmp_path / "s.pack")
    with pack.opened(tmp_path / "s.pack") as folder:
        after = contents(folder)
    assert json.loads(after.pop("study.json")) == json.loads(before.pop("study.json"))
    assert after == before


def test_the_same_study_gives_the_same_file(study: StudyFolder, tmp_path: Path) -> None:
    for name in ("a.pack", "b.pack"):
        pack.pack(study.root, tmp_path / name)
    assert (tmp_path / "a.pack").read_bytes() == (tmp_path / "b.pack").read_bytes()
    with pack.opened(tmp_path / "a.pack") as folder:  # also from the pack itself
        pack.pack(folder, tmp_path / "c.pack")
    assert (tmp_path / "a.pack").read_bytes() == (tmp_path / "c.pack").read_bytes()


def repacked(content: bytes, old: bytes, new: bytes) -> bytes:
    """As somebody would who unfolds the archive, edits it and folds it again."""
    return lzma.compress(lzma.decompress(content).replace(old, new, 1))


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (lambda good: good[: len(good) // 2], "is cut, damaged or no pack"),
    "a byte less": (lambda good: good[:-1], "is cut, damaged or no pack"),
    "a bit": (
        lambda good: good[:900] + bytes([good[900] ^ 4]) + good[901:],
        "is cut, damaged or no pack",
    ),
    "more": (lambda good: good + b"x", "is cut, damaged or no pack"),
    "edited": (
        lambda good: repacked(good, b'"loss": 0.5', b'"loss": 0.4'),
        "was changed",
    ),
    "another archive": (lambda good: lzma.compress(b"text"), "is cut, damaged or no pack"),
    "of later": (
        lambda good: repacked(good, b'"format": 1', b'"format": 2'),
        "of format 2",
    ),
    "text": (lambda good: b"not a pack", "is no pack of a study"),
    "empty": (lambda good: b"", "is no pack of a study"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_no_whole_pack_is_refused(
    study: StudyFolder, tmp_path: Path, damage: str
) -> None:
    path, (change, said) = tmp_path / "s.pack", DAMAGES[damage]
    pack.pack(study.root, path)
    path.write_bytes(change(path.read_bytes()))
    before = contents(tmp_path)
    for attempt in (
        lambda: write(path),
        lambda: pack.merge([study.root, path], tmp_path / "out.pack"),
    ):
        with pytest.raises(ValueError, match=rf"^{path} [^\n]*{said}[^\n]*$"):
            attempt()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "a/b/config.json", "a/seed-0/../../../evil", "model.pt"]
)
def test_a_pack_writes_only_the_files_of_a_study(
    study: StudyFolder, tmp_path: Path, monkeypatch, name: str
) -> None:
    encode = compact.encode
    monkeypatch.setattr(compact, "encode", lambda runs: encode(runs) | {name: b"evil"})
    pack.pack(study.root, tmp_path / "s.pack")
    with (
        pytest.raises(ValueError, match="holds what no study has"),
        pack.opened(tmp_path / "s.pack"),
    ):
        pass


def test_a_pack_is_not_written_over_another_file(study: StudyFolder, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match="exists and is no pack"):
        pack.pack(study.root, tmp_path / "thesis.tex")
    pack.pack(study.root, tmp_path / "s.pack")
    pack.pack(study.root, tmp_path / "s.pack")


@pytest.fixture
def parts(study: StudyFolder, tmp_path: Path) -> tuple[Path, Path]:
    """The study as two machines made it: one has seed 0 and an unfinished run, the other seed 1 and
    that run."""
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


def test_parts_made_on_two_machines_are_merged_into_the_whole(
    study: StudyFolder, parts, tmp_path: Path
) -> None:
    pack.pack(parts[1], tmp_path / "other.pack")
    pack.merge([parts[0], tmp_path / "other.pack"], tmp_path / "whole.pack")
    pack.pack(study.root, tmp_path / "s.pack")
    with pack.opened(tmp_path / "whole.pack") as merged, pack.opened(tmp_path / "s.pack") as whole:
        assert contents(merged) == contents(whole)


def test_the_designs_of_both_parts_are_kept(parts, tmp_path: Path) -> None:
    for part, designs in zip(parts, (["a", "b"], ["b", "c"]), strict=True):
        study = json.loads((part / "study.json").read_text())
        (part / "study.json").write_text(json.dumps(study | {"designs": designs}))
    pack.merge(parts, tmp_path / "whole.pack")
    with pack.opened(tmp_path / "whole.pack") as merged:
        assert json.loads((merged / "study.json").read_text())["designs"] == ["a", "b", "c"]


def test_a_run_that_came_out_differently_is_named(
    study: StudyFolder, parts, tmp_path: Path
) -> None:
    shutil.copytree(study.folder("depthwise"), parts[1] / "depthwise/seed-0")  # the same, twice
    pack.merge(parts, tmp_path / "whole.pack")
    path = parts[1] / "depthwise/seed-0/predictions.csv"
    path.write_text(path.read_text().replace("0.6,", "0.61,", 1))
    with pytest.raises(
        ValueError, match="both have depthwise/seed-0, and they differ in their predictions"
    ):
        pack.merge(parts, tmp_path / "whole.pack")
    path = parts[1] / "depthwise/seed-0/config.json"
    path.write_text(path.read_text().replace('"digest": "depthwise-0"', '"digest": "another"'))
    with pytest.raises(ValueError, match="differ in what the run is"):
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


def test_what_is_no_file_is_not_packed(study: StudyFolder, tmp_path: Path) -> None:
    path = study.folder("width") / "metrics.jsonl"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="no file"):
        pack.pack(study.root, tmp_path / "s.pack")


def predictions(runs: int, images: int, classes: int, seed: int = 0) -> list[tuple[str, bytes]]:
    """As of networks that agree in part: a score of each image's own and one of each run's."""
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    ids = [f"class {label}/{i}" for i, label in enumerate(labels)]
    common = 1.5 * rng.normal(size=(images, classes)) + 6 * (np.arange(classes) == labels[:, None])
    made = []
    for run in range(runs):
        scores = np.exp(common + rng.normal(size=common.shape))
        p = scores / scores.sum(1, keepdims=True)
        p[:4, 0] = (0, 1, 1e-9, 1.4e-45)
        top = np.argsort(-p, axis=1, kind="stable")[:, : min(5, classes)]
        p_label, p_top1 = (
            p[np.arange(images), at].astype(np.float32).tolist() for at in (labels, top[:, 0])
        )
        made.append(
            (
                f"step/seed-{run}",
                predictions_csv(ids, labels.tolist(), p_label, p_top1, top.tolist()),
            )
        )
    return made


@pytest.mark.parametrize("classes", [2, 3, 101, 300])
@pytest.mark.parametrize("runs", [1, 7])
def test_predictions_come_back_to_the_byte(classes: int, runs: int) -> None:
    made = predictions(runs, 400, classes)
    assert dict(compact.decode(compact.encode(made))) == dict(made)


def test_names_of_any_kind_come_back() -> None:
    ids = ["a, b", 'say "x"', "two\nlines", "\udcff", "ü"]
    made = [("s/seed-0", predictions_csv(ids, range(5), [0.5] * 5, [0.5] * 5, [[0, 1]] * 5))]
    files = compact.encode(made)
    assert not any("as-is" in name for name in files)
    assert dict(compact.decode(files)) == dict(made)


HEADER = b"image,label,p_label,p_top1,top1\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"a,b\n",
        b"\xff\x00",
        *(
            HEADER + rows
            for rows in (
                b"",
                b"x,0,0.5,0.5,0\ny,1\n",
                b"x,0,nan,0.5,0\n",
                b"x,0,0.5,0.5,-1\n",
                b"x,0,.5,.5,0\n",
                b"x,0,0.5,0,0\n",
            )
        ),
    ],
)
def test_predictions_of_another_form_are_kept_as_they_are(content: bytes) -> None:
    made = [*predictions(2, 10, 3), ("odd/seed-0", content)]
    files = compact.encode(made)
    assert files["predictions/as-is/odd/seed-0"] == content
    assert dict(compact.decode(files)) == dict(made)


def test_predictions_take_few_bytes(tmp_path: Path) -> None:
    """5.2 an image; a study of 90 runs has 6.6 to stay under 15 MB, its other files included."""
    files = compact.encode(predictions(90, 1000, 101))
    kept = sum(len(lzma.compress(content, filters=pack._FILTERS)) for content in files.values())
    assert kept / (90 * 1000) < 5.4
