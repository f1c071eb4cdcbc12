"""The report of the shipped tables as Chromium shows it: plots, filters, theme, no network."""

import re

import pytest

from mla_tune.catalogue.found import found_tables
from mla_tune.report.material import gather
from mla_tune.report.page import page, sections_of
from report_material import ROOT, chromium

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--no-first-run", "--disable-component-update", "--disable-sync"),
]
MOST_BYTES = 10_000_000


@pytest.fixture(scope="module")
def browser():
    path = str(chromium())
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    found, problems = found_tables([ROOT / "tuned_configs"])
    material = gather(found, problems=problems)
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page(material, sections_of(material)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def shown(browser, report):
    """The page, and what its console and its network said."""
    told = []
    opened = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    opened.on("console", lambda message: told.append(message.text))
    opened.on("pageerror", lambda error: told.append(str(error)))
    opened.on("request", lambda request: told.append(request.url))
    opened.goto(report.as_uri())
    opened.wait_for_selector(".plot[data-drawn]")
    assert [line for line in told if line != report.as_uri()] == []
    yield opened, told
    # Nothing that a test did made an error or asked the network.
    assert [line for line in told if not line.startswith(("file:", "data:", "blob:"))] == []


def visible(opened):
    return opened.eval_on_selector_all(
        "figure:not([hidden])", "figures => figures.map(figure => figure.id)"
    )


def test_every_section_has_plots_with_marks(shown):
    opened, _ = shown
    for section in opened.query_selector_all("main section:has(.plot)"):
        plot = section.query_selector(".plot")
        plot.scroll_into_view_if_needed()
        opened.wait_for_function("plot => plot.dataset.drawn", arg=plot)
        marks = plot.query_selector_all(".points path, .hm image, .hm path, .heatmap-label")
        assert marks, section.get_attribute("id")
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_filters_by_click(shown):
    opened, _ = shown
    everything = visible(opened)
    # Filters are folded on a phone.
    opened.click("#filters summary")
    opened.click("#filters label:has(input[value=TRITON_MLA])")
    some = visible(opened)
    assert 0 < len(some) < len(everything)
    gpus = opened.eval_on_selector_all(
        "figure:not([hidden])[data-backend]", "all => all.map(one => one.dataset.backend)"
    )
    assert set(gpus) == {"TRITON_MLA"}
    opened.click("#filters button[type=reset]")
    opened.wait_for_function("count => document.querySelectorAll('figure:not([hidden])').length "
                             "=== count", arg=len(everything))  # fmt: skip


def test_filters_by_keyboard(shown):
    opened, _ = shown
    before = visible(opened)
    opened.focus("#filters summary")
    for _ in range(20):
        opened.keyboard.press("Tab")
        if opened.evaluate("document.activeElement.value") == "FLASHMLA":
            break
    ring = opened.evaluate("getComputedStyle(document.activeElement.nextSibling).outlineStyle")
    assert ring == "solid"  # focus is seen
    opened.keyboard.press("Space")
    assert 0 < len(visible(opened)) < len(before)
    rows = opened.eval_on_selector_all(
        "#tuned tbody tr:not([hidden])", "rows => rows.map(row => row.dataset.backend)"
    )
    assert set(rows) == {"FLASHMLA"}
    assert re.fullmatch(r"\d+ of \d+ figures", opened.inner_text("#shown"))
    opened.keyboard.press("Space")
    assert visible(opened) == before


def test_the_theme_follows_the_system_until_it_is_chosen(shown):
    opened, _ = shown
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = opened.evaluate(ground)
    opened.emulate_media(color_scheme="light")
    opened.wait_for_function(f"dark => {ground} !== dark", arg=dark)
    opened.focus("#theme input:checked")
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowRight")
    assert opened.evaluate(ground) == dark


def test_it_is_small_enough_to_send(report):
    assert report.stat().st_size < MOST_BYTES
