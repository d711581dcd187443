"""The page in a real browser: it predicts, explains errors, and runs no code from texts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from harness.generation.text_model import TextModel

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from tests.harness.serving.conftest import Running, WatchedModel

Serve = Callable[..., "Running"]

HOSTILE = '<img src=x onerror=window.pwned=1><script>window.pwned=1</script> it\'s \\ "quoted"'


@pytest.fixture(autouse=True)
def _wide_window(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("chrome").set_window_size(1000, 1000)


def until(browser: Chrome, condition: str) -> None:
    """Wait until an expression of JavaScript is true."""
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 30, 0.02).until(lambda _: browser.execute_script(f"return {condition}"))


def text_of(browser: Chrome, element: str) -> str:
    return str(browser.execute_script(f"return document.getElementById('{element}').textContent"))


def open_page(browser: Chrome, running: Running) -> None:
    running.client.get("/health")  # It listens from here on.
    browser.get(running.url)
    until(browser, "document.querySelectorAll('#routes dt').length")
    until(browser, "!document.getElementById('model').textContent.startsWith('Asking')")


def predict(browser: Chrome, text: str, **fields: Any) -> str:
    """Fill in the form, send it and return the shown prediction."""
    for name, value in {"text": text, **fields}.items():
        field = browser.find_element("id", name)
        if field.tag_name == "select":
            browser.execute_script("arguments[0].value = arguments[1]", field, value)
        else:
            field.clear()
            field.send_keys(str(value))
    browser.find_element("id", "send").click()
    until(browser, "!document.getElementById('send').disabled")
    return text_of(browser, "prediction")


def test_it_shows_the_models_prediction_with_its_own_defaults(
    chrome: Chrome, running: Running, texts: list[str], expected: list[str]
) -> None:
    open_page(chrome, running)
    assert text_of(chrome, "model") == "nano-t5: 2 beams, texts of at most 512 tokens"
    assert predict(chrome, texts[0]) == expected[0]
    assert "tokens read" in text_of(chrome, "note")
    (adapted,) = running.generate(texts[1], adapter="two", max_new_tokens=4)
    assert predict(chrome, texts[1], adapter="two", max_new_tokens=4) == adapted
    assert chrome.get_log("browser") == []


def test_the_command_that_it_shows_does_the_same(
    chrome: Chrome, running: Running, texts: list[str]
) -> None:
    open_page(chrome, running)
    shown = predict(chrome, f"it's {texts[0]}")
    command = text_of(chrome, "curl")
    assert "it'\\''s" in command
    answer = subprocess.run(
        ["bash", "-c", f"{command} --silent --noproxy '*'"], capture_output=True, check=True
    )
    assert json.loads(answer.stdout)["outputs"][0]["text"] == shown


def test_no_code_from_texts_is_run(
    chrome: Chrome, serve: Serve, watched: WatchedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "predict", lambda sources, *_: [HOSTILE for _ in sources])
    open_page(chrome, serve(watched))
    assert predict(chrome, HOSTILE) == HOSTILE
    assert HOSTILE.replace('"', '\\"') in text_of(chrome, "curl").replace("'\\''", "'").replace(
        "\\\\", "\\"
    )
    assert chrome.execute_script("return window.pwned") is None
    assert chrome.execute_script("return document.querySelectorAll('img').length") == 0
    # The policy stops a script that is injected all the same.
    chrome.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.pwned = 1';"
        "document.body.append(s);"
    )
    assert chrome.execute_script("return window.pwned") is None
    assert any("Content Security Policy" in entry["message"] for entry in chrome.get_log("browser"))


def test_it_shows_the_reason_of_a_refusal(chrome: Chrome, serve: Serve) -> None:
    open_page(chrome, serve(max_characters=20))
    assert "at most 20 on this server" in predict(chrome, "a" * 30)
    assert chrome.execute_script("return document.getElementById('prediction').className") == "bad"
    assert predict(chrome, "short")
    assert chrome.execute_script("return document.getElementById('prediction').className") == ""
    chrome.get_log("browser")  # The refusal is reported there.


def test_it_asks_for_the_key(
    chrome: Chrome, serve: Serve, text_model: TextModel, texts: list[str], expected: list[str]
) -> None:
    open_page(chrome, serve(key="s3cret"))
    assert "API key" in text_of(chrome, "model")
    field = chrome.find_element("id", "key")
    assert field.is_displayed()
    field.send_keys("s3cret\t")
    until(chrome, "document.getElementById('model').textContent.includes('beams')")
    assert predict(chrome, texts[0]) == expected[0]
    assert "s3cret" not in text_of(chrome, "curl")
    assert "$HARNESS_API_KEY" in text_of(chrome, "curl")
    assert "s3cret" not in chrome.execute_script(
        "return document.cookie + JSON.stringify({...localStorage, ...sessionStorage})"
    )
    chrome.get_log("browser")  # The missing key is reported there.


def test_a_request_can_be_stopped(chrome: Chrome, serve: Serve, watched: WatchedModel) -> None:
    running = serve(watched)
    open_page(chrome, running)
    watched.gate.clear()
    chrome.find_element("id", "text").send_keys("a text")
    chrome.find_element("id", "send").click()
    assert watched.entered.acquire(timeout=30)
    chrome.find_element("id", "stop").click()
    until(chrome, "document.getElementById('note').textContent === 'Stopped.'")
    watched.gate.set()


def test_it_fits_a_phone_and_every_field_has_a_label(chrome: Chrome, running: Running) -> None:
    device = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
    try:
        open_page(chrome, running)
        assert chrome.execute_script("return document.documentElement.scrollWidth") <= 360
    finally:
        chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    unnamed = """return [...document.querySelectorAll("input, select, textarea, button")]
        .filter((e) => !(e.labels?.length || e.textContent.trim())).length"""
    assert chrome.execute_script(unnamed) == 0
