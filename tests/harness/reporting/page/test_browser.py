"""The page in a real browser: it draws, filters, sorts and browses, and runs no code from data."""

import contextlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

webdriver = pytest.importorskip("selenium.webdriver", reason="the package selenium is missing")


@pytest.fixture
def opened(chrome: "Chrome", hostile_page: str, tmp_path: Path) -> "Chrome":
    path = tmp_path / "report.html"
    path.write_text(hostile_page)
    chrome.set_window_size(1200, 900)
    chrome.get(path.as_uri())
    return chrome


DRAWN = """
const done = arguments[0];
window.dispatchEvent(new Event("beforeprint"));
const wait = () => {
  const boxes = [...document.querySelectorAll("[data-chart]")];
  if (boxes.every((box) => box.dataset.drawn)) done(boxes.length);
  else setTimeout(wait, 50);
};
wait();
"""


def all_charts_drawn(browser: "Chrome") -> int:
    return int(browser.execute_async_script(DRAWN))


def script(browser: "Chrome", text: str, *arguments: Any) -> Any:
    return browser.execute_script(f"return {text}", *arguments)


def type_into(browser: "Chrome", box: str, text: str) -> None:
    field = browser.find_element("id", box)
    field.clear()
    field.send_keys(text)


def visible_recipes(browser: "Chrome") -> list[str]:
    recipes = script(
        browser,
        "[...document.querySelectorAll('section.group tbody')]"
        ".filter((b) => b.offsetParent).map((b) => b.dataset.recipe.slice(0, 7))",
    )
    return sorted(recipes)


def test_every_chart_is_drawn_and_the_console_is_silent(opened: "Chrome") -> None:
    count = all_charts_drawn(opened)
    # The hostile group has two trade-offs, a comparison, loss and score; the plain one no speed.
    assert count == 5 + 1 + 1
    assert script(opened, "document.querySelectorAll('.chart svg').length") == count
    marks = script(opened, "document.querySelectorAll('.chart svg path').length")
    assert marks > count
    assert opened.get_log("browser") == []


def test_no_code_from_data_is_run(opened: "Chrome") -> None:
    all_charts_drawn(opened)
    for point in opened.find_elements("css selector", ".chart svg path[aria-label]")[:5]:
        with contextlib.suppress(Exception):  # A mark may lie below another one.
            webdriver.ActionChains(opened).move_to_element(point).perform()
    assert script(opened, "window.pwned") is None
    assert script(opened, "document.querySelectorAll('img').length") == 0
    title = opened.find_element("css selector", "section.group h2").text
    assert "<script>window.pwned=1</script>" in title
    assert "{{7*7}}" in title


def test_the_policy_stops_an_injected_script(opened: "Chrome") -> None:
    opened.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.pwned = 1';"
        "document.body.append(s);"
    )
    assert script(opened, "window.pwned") is None
    assert any("Content Security Policy" in entry["message"] for entry in opened.get_log("browser"))


def test_the_filter_shows_matching_rows_and_their_number(opened: "Chrome") -> None:
    assert visible_recipes(opened) == ["full", "lora_ff", "lora_qv", "lprun</"]
    type_into(opened, "filter", "lora")
    assert visible_recipes(opened) == ["lora_ff", "lora_qv"]
    type_into(opened, "filter", "lora plain")
    assert visible_recipes(opened) == ["lora_qv"]
    assert opened.find_element("id", "filter-status").text == "1 row match"
    hidden = script(opened, "document.querySelectorAll('section.group[hidden]').length")
    assert hidden == 1


def test_headings_sort_by_number(opened: "Chrome") -> None:
    order = "[...document.querySelector('table').tBodies].map((b) => b.dataset.recipe.slice(0, 5))"
    button = opened.find_element("xpath", "//th/button[text()='R-1']")
    button.click()
    assert script(opened, order) == ["full", "lprun", "lora_"]
    assert script(opened, "arguments[0].parentNode.ariaSort", button) == "descending"
    button.click()
    assert script(opened, order) == ["lprun", "full", "lora_"]


def test_examples_are_browsed_and_searched_from_the_keyboard(opened: "Chrome") -> None:
    place = opened.find_element("id", "example-place")
    assert place.text.startswith("1 of 3: t0")
    articles = opened.find_elements("css selector", "#example article")
    assert len(articles) == 4
    assert "Source 0 of the notes.</script>" in articles[0].text
    assert "Prediction 0 of lprun" in articles[3].text
    assert "rouge1" in articles[3].text
    button = opened.find_element("id", "example-after")
    button.send_keys("\ue007")
    assert place.text.startswith("2 of 3: t1")
    button.send_keys("\ue012")  # arrow left
    assert place.text.startswith("1 of 3: t0")
    type_into(opened, "example-search", "prediction 2")
    assert place.text.startswith("1 of 1: t2")
    type_into(opened, "example-search", "no such words")
    assert place.text == "no example matches"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in_light_and_dark(opened: "Chrome", scheme: str) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    all_charts_drawn(opened)
    style = "getComputedStyle(document.querySelector(arguments[0]))"
    ink = script(opened, f"{style}.color", "body")
    background = script(opened, f"{style}.backgroundColor", "body")
    assert contrast(ink, background) > 7
    assert contrast(script(opened, f"{style}.color", "figcaption"), background) > 4.5
    # Charts use the page's text color, also on axes and legends.
    assert script(opened, f"{style}.fill", ".chart svg text") == ink


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""

    def luminance(color: str) -> float:
        channels = [int(c) / 255 for c in color[color.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_it_fits_a_phone(opened: "Chrome") -> None:
    device = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    try:
        opened.refresh()
        all_charts_drawn(opened)
        wide = """[...document.body.querySelectorAll("*")]
            .filter((e) => !e.closest(".scroll, .chart"))
            .filter((e) => e.getBoundingClientRect().right > 361)
            .map((e) => e.outerHTML.slice(0, 80))"""
        assert script(opened, wide) == []
        assert script(opened, "document.documentElement.scrollWidth") <= 360
        assert script(opened, "document.querySelector('.chart svg').clientWidth") <= 360
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_screen_reader_finds_landmarks_and_headings(opened: "Chrome") -> None:
    all_charts_drawn(opened)
    assert script(opened, "document.documentElement.lang") == "en"
    unnamed = """[...document.querySelectorAll("input, select, button, [role=img], [role=region]")]
        .filter((e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).length"""
    assert script(opened, unnamed) == 0
    levels = script(
        opened,
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))",
    )
    assert levels[0] == 1
    # Heading levels are never skipped downwards, except in the boxes of the examples.
    assert all(b - a <= 1 for a, b in pairwise(levels) if b < 4)
    assert script(opened, "document.querySelectorAll('th:not([scope])').length") == 0


@pytest.fixture
def narrow(opened: "Chrome") -> Iterator["Chrome"]:
    """The page in a window narrower than its tables."""
    opened.set_window_size(620, 800)
    opened.refresh()
    yield opened
    opened.set_window_size(1200, 900)


def left_of(browser: "Chrome", selector: str) -> float:
    return float(
        script(
            browser, "document.querySelector(arguments[0]).getBoundingClientRect().left", selector
        )
    )


def test_a_table_wider_than_the_window_scrolls_visibly_and_its_first_column_stays(
    narrow: "Chrome",
) -> None:
    hint = narrow.find_element("css selector", ".wide-hint")
    assert hint.is_displayed()
    assert "scroll the table sideways" in hint.text
    box = "document.querySelector('.scroll')"
    # The scroll bar takes space, so it is visible before anything is scrolled.
    assert script(narrow, f"{box}.offsetHeight - {box}.clientHeight") > 5
    first, second = ".scroll tbody th", ".scroll tbody td"
    before = left_of(narrow, first), left_of(narrow, second)
    narrow.execute_script(f"{box}.scrollLeft = 120")
    assert left_of(narrow, first) == pytest.approx(before[0], abs=1)
    assert left_of(narrow, second) == pytest.approx(before[1] - 120, abs=1)
    # Cells that scroll below the first column do not show through it.
    style = "getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
    assert script(narrow, style, first) == script(narrow, style, "body")


def test_a_table_that_fits_has_no_scroll_hint(opened: "Chrome") -> None:
    # The hostile names of the other group fit no window.
    _, plain = opened.find_elements("css selector", ".wide-hint")
    assert not plain.is_displayed()
    assert not script(opened, "document.querySelectorAll('.scroll')[1].matches('.overflows')")


def test_columns_can_be_chosen(narrow: "Chrome") -> None:
    def headings() -> list[str]:
        cells = narrow.find_elements("css selector", ".recipes thead th")
        return [cell.get_attribute("data-column") or "" for cell in cells if cell.is_displayed()]

    before = headings()
    narrow.find_element("css selector", "#columns summary").click()
    boxes = narrow.find_elements("css selector", "#columns input")
    labels = [label.text for label in narrow.find_elements("css selector", "#columns label")]
    assert labels[:3] == ["speed", "trained", "peak GiB"]
    assert labels.index("R-1 kept") == labels.index("R-1") + 1
    for box, label in zip(boxes, labels, strict=True):
        if label != "R-1":
            box.click()
    # Both tables keep the recipe and one column, and the failed run's cell fits.
    assert headings() == ["", "R-1", "", "R-1"]
    assert script(narrow, "document.querySelector('[data-spans]').colSpan") == 1
    hints = narrow.find_elements("css selector", ".wide-hint")
    assert [hint.is_displayed() for hint in hints] == [False, False]
    narrow.find_element("xpath", "//th/button[text()='R-1']").click()  # Sorting still works.
    for box in boxes:
        if not box.is_selected():
            box.click()
    assert headings() == before


def test_choosing_columns_runs_no_code_from_data(narrow: "Chrome") -> None:
    narrow.find_element("css selector", "#columns summary").click()
    labels = [label.text for label in narrow.find_elements("css selector", "#columns label")]
    assert any("</script><script>window.pwned=1</script>" in label for label in labels)
    assert script(narrow, "window.pwned") is None
