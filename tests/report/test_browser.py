"""report.html in a real browser: wide, on a phone, dark and in print."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.report.conftest import StudyFolder

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright, which drives the browser, is not installed"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
STEPS = ("baseline", "training-recipe", "stage-ratio", "patchify-stem", "depthwise", "width")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight steps with three seeds."""
    study = StudyFolder(tmp_path_factory.mktemp("runs") / "demo", test=300)
    rng = np.random.default_rng(0)
    for place, step in enumerate((*STEPS, "kernel-5", "kernel-7")):
        for seed in range(3):
            study.add(step, rng.uniform(size=300) < 0.5 + 0.04 * place, seed=seed)
    study.write()
    return study.root / "report" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, report: Path) -> Iterator[Any]:
    """open_page(**options) opens the report in a new context; at the end nothing was logged and
    nothing else was requested."""
    contexts, complaints, requests = [], [], []

    def opened(width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []
    fetched = [url for url in requests if not url.startswith("data:")]
    assert fetched == [report.as_uri()] * len(contexts)


def test_every_link_leads_somewhere_and_every_id_is_unique(open_page: Any) -> None:
    page = open_page()
    ids = "[...document.querySelectorAll('[id]')].map(e => e.id)"
    found = page.evaluate(ids)
    assert len(found) == len(set(found))
    links = page.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.hash)")
    assert {link[1:] for link in links} <= set(found)


def test_figures_are_drawn_with_text_and_tooltips(open_page: Any) -> None:
    page = open_page()
    figures = page.locator("figure")
    assert figures.count() == 4
    for figure in figures.all():
        assert figure.locator("svg[role=img]").get_attribute("aria-label")
        assert figure.locator("svg text").count() > 3
    tooltips = page.locator("#figure-steps title").all_text_contents()
    assert len(tooltips) == 8
    about = (
        r"1 +training-recipe: top-1 [\d.]+ ± [\d.]+ %, n = 3; \S+ \[\S+, \S+\] from baseline, .+"
    )
    assert re.fullmatch(about, tooltips[1])


def test_a_table_sorts_by_mouse_and_by_keyboard(open_page: Any) -> None:
    page = open_page()
    table = page.locator("#the-steps ~ .wide table").first
    head = table.locator("th").nth(1)

    def numbers() -> list[float]:
        cells = table.locator("tbody td:nth-child(2)").all_inner_texts()
        assert cells[-1] == "–", "a cell without a number comes last"
        return [float(cell.replace("−", "-")) for cell in cells if cell != "–"]

    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert numbers() == sorted(numbers())
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert numbers() == sorted(numbers(), reverse=True)


def color(page: Any, selector: str, name: str) -> str:
    script = f"e => getComputedStyle(e).{name}"
    return str(page.locator(selector).first.evaluate(script))


def test_dark_follows_the_system_in_page_and_figures(open_page: Any) -> None:
    light, dark = open_page(color_scheme="light"), open_page(color_scheme="dark")
    assert color(light, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert color(dark, "body", "backgroundColor") == "rgb(15, 20, 26)"
    assert color(light, "figure svg text", "fill") == "rgb(28, 33, 40)"
    assert color(dark, "figure svg text", "fill") == "rgb(230, 237, 243)"
    fills = "[...document.querySelectorAll('figure svg *')].map(e => getComputedStyle(e).fill)"
    assert "rgb(255, 255, 255)" not in dark.evaluate(fills), "no white slab"
    assert dark.locator("figure svg image").count() == 0


def test_a_phone_scrolls_only_tables_and_figures_sideways(open_page: Any) -> None:
    page = open_page(width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for selector in (".wide", ".drawing"):
        box = page.locator(selector).first
        assert box.evaluate("e => e.scrollWidth > e.clientWidth")
        box.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"document.querySelector('{selector}').scrollLeft > 0")


def test_claims_and_steps_are_whole_on_a_tablet(open_page: Any) -> None:
    page = open_page(width=768)
    for title in ("the-papers-claims", "the-steps"):
        table = page.locator(f"#{title} ~ .wide").first
        assert table.evaluate("e => e.scrollWidth <= e.clientWidth"), title


def test_print_has_every_column_and_no_controls(open_page: Any) -> None:
    page = open_page(color_scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.set_viewport_size({"width": 690, "height": 980})  # A4 less its margins, at 96 dots an inch
    page.emulate_media(media="print")
    assert color(page, "body", "backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".headerlink").first.is_visible()
    cut = "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth + 1)"
    assert page.evaluate(f"{cut}.length") == 0
    heights = "[...document.querySelectorAll('figure')].map(e => e.offsetHeight)"
    assert max(page.evaluate(heights)) < 450, "a figure leaves half a page for the text"
