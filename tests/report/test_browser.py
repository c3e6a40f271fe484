"""report.html in a real browser: what a reader sees, presses, prints and carries on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from report.page import write
from tests.report.conftest import StudyFolder

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright, which drives the browser, is not installed"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
STEPS = (
    "baseline",
    "training-recipe",
    "stage-ratio",
    "depthwise",
    "kernel-5",
    "kernel-7",
    "separate-downsampling",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine rows, three seeds, and one row with a name that HTML would read."""
    study = StudyFolder(tmp_path_factory.mktemp("runs") / "demo", test=300)
    path = study.root / "study.json"
    path.write_text(path.read_text().replace('"pizza"', '"<b>p</b></script>"'))
    rng = np.random.default_rng(0)
    for place, step in enumerate((*STEPS, "patchify-stem", "depthwise-first")):
        for seed in range(3):
            study.add(step, rng.uniform(size=300) < 0.5 + 0.04 * place, seed=seed)
    write(study.root)
    return study.root / "report" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, report: Path) -> Iterator[Any]:
    """open_page(**how) -> the report in a context of its own; whatever a test does, nothing may be
    complained of."""
    contexts, complaints, requests = [], [], []

    def opened(width: int = 1280, **how: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **how)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.as_uri())
        page.wait_for_selector("[data-figure=steps] .points path", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [
        report.as_uri()
    ] * len(contexts)


def points(page: Any, figure: str) -> int:
    """Markers drawn in a figure."""
    return int(page.locator(f"[data-figure={figure}] .scatterlayer .points path").count())


def column(page: Any, place: int) -> list[str]:
    return list(page.locator(f"table >> nth=0 >> tbody tr td:nth-child({place})").all_inner_texts())


def test_every_figure_is_drawn_and_every_link_leads_somewhere(open_page: Any) -> None:
    page = open_page()
    for figure in page.locator("[data-figure]").all():
        assert figure.locator("svg.main-svg").count() > 0
        assert figure.get_attribute("aria-label")
    broken = (
        "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => "
        "!document.getElementById(a.hash.slice(1)))"
    )
    assert page.evaluate(f"{broken}.map(a => a.hash)") == []
    assert page.locator("figure .headerlink").count() == page.locator("figure").count()


def test_a_table_sorts_by_mouse_and_by_keyboard_and_says_so(open_page: Any) -> None:
    page = open_page()
    head = page.locator("table >> nth=0 >> th:nth-child(6)")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    levels = [float(text.split()[0]) for text in column(page, 6) if text != "–"]
    assert levels == sorted(levels)
    assert column(page, 6)[-1] == "–", "what has no number comes last"
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    levels = [float(text.split()[0]) for text in column(page, 6) if text != "–"]
    assert levels == sorted(levels, reverse=True)
    page.locator("table >> nth=0 >> th:nth-child(2)").get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "none"
    assert column(page, 2) == sorted(column(page, 2))


def test_a_table_filters(open_page: Any) -> None:
    page = open_page()
    page.get_by_label("Filter: The steps").fill("kernel 5x5")
    assert page.locator("table >> nth=0 >> tbody tr:visible").count() == 1
    assert "1 of 18" in page.locator(".filter").first.inner_text()


def test_means_and_seeds_and_the_x_axis_are_switched(open_page: Any) -> None:
    page = open_page()
    assert points(page, "steps") == 9
    title = page.locator("[data-figure=accuracy_vs_gflops] .xtitle")
    assert title.text_content() == "GFLOPs"
    page.get_by_label("Points").select_option("seeds")
    page.get_by_label("x axis").select_option("training (ms an image)")
    page.wait_for_function(
        "document.querySelectorAll('[data-figure=steps] .points path').length === 27"
    )
    assert points(page, "accuracy_vs_gflops") == 27
    assert title.text_content() == "training (ms an image)"


def test_a_point_tells_its_seeds_and_interval_and_leads_to_its_runs(open_page: Any) -> None:
    page = open_page()
    point = page.locator("[data-figure=steps] .points path").nth(1)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = page.locator("[data-figure=steps] .hoverlayer .hovertext")
    told.wait_for()
    assert "seeds 0, 1, 2" in told.text_content()
    assert "new seeds on new images [" in told.text_content()
    page.wait_for_timeout(100)  # plotly takes no click on what it is still drawing
    page.mouse.down()
    page.mouse.up()
    page.wait_for_function("location.hash.startsWith('#runs-')")


def background(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_dark_follows_the_system_and_the_switch(open_page: Any) -> None:
    page = open_page(color_scheme="dark")
    dark, ink = background(page), "[data-figure=steps] .xtick text"
    assert dark == "rgb(15, 20, 26)"
    light_on_dark = page.locator(ink).first.evaluate("e => getComputedStyle(e).fill")
    page.get_by_label("Colours").select_option("light")
    assert background(page) == "rgb(255, 255, 255)"
    page.wait_for_timeout(300)
    assert page.locator(ink).first.evaluate("e => getComputedStyle(e).fill") != light_on_dark
    page.get_by_label("Colours").select_option("auto")
    assert background(page) == dark


def test_a_phone_shows_all_and_only_tables_and_drawn_figures_scroll_sideways(
    open_page: Any,
) -> None:
    page = open_page(width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    outside = """[...document.querySelectorAll("main *")].filter(e => !e.closest(".wide, .broad, svg")
        && e.getBoundingClientRect().right > 391).map(e => e.outerHTML.slice(0, 80))"""
    assert page.evaluate(outside) == []
    box = page.locator(".wide").first
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('.wide').scrollLeft > 0")
    drawn = page.locator(".broad").first
    assert drawn.evaluate("e => e.scrollWidth > e.clientWidth"), (
        "a figure as wide as the phone could not be read"
    )


def test_paper_gets_every_column_and_no_controls(open_page: Any) -> None:
    page = open_page(color_scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.set_viewport_size({"width": 690, "height": 980})  # A4 less its margins, at 96 dots an inch
    page.emulate_media(media="print")
    page.wait_for_timeout(300)
    assert background(page) == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert (
        page.evaluate(
            "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth + "
            "1).length"
        )
        == 0
    )
    wide = (
        "[...document.querySelectorAll('.plot svg')].filter(e => "
        "e.getBoundingClientRect().right > 690).length"
    )
    assert page.evaluate(wide) == 0


def test_names_from_files_are_words(open_page: Any) -> None:
    page = open_page()
    assert page.locator("td b").count() == 0
    assert page.get_by_text("<b>p</b></script>").count() > 0
