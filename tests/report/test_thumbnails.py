"""The images that turned are in the report, wherever it is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from report import collect, difference_plots, flips, thumbnails
from report.page import write
from report.tables import Summary
from studies import pack
from tests.report.conftest import Store, StudyFolder

Make = Callable[..., StudyFolder]


@pytest.fixture
def study(make_study: Make) -> StudyFolder:
    """Of 400 images the first 200 are right at the beginning; the first three are not at the end,
    200 to 211 are."""
    made = make_study()
    right = np.arange(400) < 200
    for seed in (0, 1, 2):
        made.add("baseline", right, seed=seed)
        made.add(
            "training-recipe",
            right ^ np.isin(np.arange(400), [0, 1, 2, *range(200, 212)]),
            seed=seed,
        )
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_strips_are_drawn_from_thumbnails_that_the_study_keeps(study: StudyFolder) -> None:
    flips.keep_images(study.root, "paper", Store(400))
    summary = Summary(collect.read(study.root))
    assert len(summary.study.thumbnails) == 13, "ten are shown a direction"
    assert thumbnails.pixels(summary.study.thumbnails["apple_pie/00000"]).shape == (48, 64, 3)
    figure = difference_plots.turned(summary)
    assert figure is not None
    shown = [float(axes.images[0].get_array().mean()) for axes in figure.axes if axes.images]
    assert len({round(grey) for grey in shown[:10]} & set(range(200, 212))) == 10
    assert shown[10:] == pytest.approx([0, 1, 2], abs=1), "by name"
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert [titles[0], titles[-1]] == ["\napple_pie\n0 → 100 %", "\nramen\n100 → 0 %"]
    write(study.root)
    page = (study.root / "report" / "report.md").read_text()
    assert "![Test images that most seeds turned](turned.png)" in page
    assert "data:image/svg+xml" in (study.root / "report" / "report.html").read_text()


def test_a_pack_has_them_too_and_gives_the_same_report(study: StudyFolder, tmp_path: Path) -> None:
    flips.keep_images(study.root, "paper", Store(400))
    write(study.root)
    pack.pack(study.root, tmp_path / "demo.pack")
    write(tmp_path / "demo.pack")
    assert files(tmp_path / "demo-report") == files(study.root / "report")
    pack.merge([study.root, tmp_path / "demo.pack"], tmp_path / "both.pack")
    assert (tmp_path / "both.pack").read_bytes() == (tmp_path / "demo.pack").read_bytes()


def test_without_them_there_is_no_figure(study: StudyFolder) -> None:
    write(study.root)
    assert not list((study.root / "report").glob("turned.*"))


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"paper": {"a": "AAAA"}}', b'{"paper": {"a": 1}}', b"\xff"]
)
def test_damaged_ones_are_told_and_left_out(study: StudyFolder, content: bytes) -> None:
    (study.root / thumbnails.FILE).write_bytes(content)
    read = collect.read(study.root)
    assert len(read.oddities) == 1
    assert "thumbnails.json is damaged" in read.oddities[0]
    assert not read.thumbnails
    flips.keep_images(study.root, "paper", Store(400))
    assert len(thumbnails.read(study.root)["paper"]) == 13


def test_a_report_is_made_without_damaged_ones(study: StudyFolder) -> None:
    (study.root / thumbnails.FILE).write_bytes(b"[1]")
    told: list[str] = []
    write(study.root, tell=told.append)
    assert ["thumbnails.json is damaged" in sentence for sentence in told] == [True]
    assert not list((study.root / "report").glob("turned.*"))


def test_a_image_that_is_too_large_for_a_thumbnail_is_none(tmp_path: Path) -> None:
    Image.new("RGB", (65, 10)).save(tmp_path / "large.jpg")
    with pytest.raises(ValueError, match="65 x 10"):
        thumbnails.pixels((tmp_path / "large.jpg").read_bytes())
