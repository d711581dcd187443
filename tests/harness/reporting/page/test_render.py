"""The page as a file: complete, self-contained, and no markup from data."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from harness.records.run_folder import read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.page import contents
from harness.reporting.page.render import page
from harness.reporting.paired_comparison import Comparisons


class Elements(HTMLParser):
    """Collects each element with its attributes and the text right after its start tag."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data)


def parsed(text: str) -> Elements:
    elements = Elements()
    elements.feed(text)
    elements.close()
    return elements


def test_the_page_fetches_nothing(hostile_page: str) -> None:
    for tag, attributes in parsed(hostile_page).elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "img"}
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
        assert not [name for name in attributes if name.startswith("on")]


def test_the_only_scripts_are_the_data_and_the_one_that_the_policy_names(
    hostile_page: str,
) -> None:
    document = parsed(hostile_page)
    scripts = [attributes for tag, attributes in document.elements if tag == "script"]
    assert [s["type"] for s in scripts] == ["application/json", "module"]
    (policy,) = [
        attributes["content"]
        for tag, attributes in document.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    code = hostile_page.split('<script type="module">')[1].split("</script>", maxsplit=1)[0]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-eval" not in policy


def test_data_cannot_escape_their_element(hostile_page: str) -> None:
    text = hostile_page.split('id="data">')[1].split("</script>", maxsplit=1)[0]
    assert "<" not in text
    data = json.loads(text)
    (hostile, plain) = data["examples"]
    (example, *_) = hostile["examples"]
    assert example["source"].startswith("Source 0 of the notes.</script><script>")
    assert len(example["predictions"]) == 2
    assert len(plain["examples"]) == 2
    # Names are row values or labels, never a field name or an expression.
    for chart in data["charts"]:
        for key, value in specification(chart):
            if isinstance(value, str) and "pwned" in value:
                assert key in {"recipe", "measure", "sort", "title"}


def specification(value: Any, key: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [pair for k, v in value.items() for pair in specification(v, k)]
    if isinstance(value, list):
        return [pair for v in value for pair in specification(v, key)]
    return [(key, value)]


def test_the_table_is_in_the_markup(hostile_page: str) -> None:
    rows = re.findall(r'<tbody data-recipe="([^"]*)"', hostile_page)
    assert sorted(row[:7] for row in rows) == ["full", "lora_ff", "lora_qv", "lprun&l"]
    assert "<td data-value=" in hostile_page
    assert "oom in &lt;/script&gt;" in hostile_page


def test_large_folders_are_subsampled_and_the_page_says_so(
    tmp_path: Path, write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3 * contents.EXAMPLES
    for backbone in ("a", "b"):
        for recipe in ("full", "lprun"):
            folder = write_run(
                tmp_path,
                {"rouge1": [float(n) for n in range(count)]},
                backbone=backbone,
                recipe=recipe,
            )
            text = (folder / "predictions.jsonl").read_text()
            long = text.replace("Source 0 of", "Source 0 " + "x" * 2 * contents.CHARACTERS)
            (folder / "predictions.jsonl").write_text(long)
            steps = [{"step": n, "loss": 1.0} for n in range(1, 10 * contents.POINTS)]
            (folder / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in steps))
    runs = read_runs(tmp_path)[0]
    monkeypatch.setattr(contents, "TOTAL", 1000)
    html = page(summarize(runs, Comparisons(None)), runs)
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])
    (group,) = data["examples"]
    ids = [example["id"] for example in group["examples"]]
    assert ids == [f"t{3 * n}" for n in range(contents.EXAMPLES)]
    assert group["examples"][0]["source"].endswith(" … [cut]")
    assert len(group["examples"][0]["source"]) < contents.CHARACTERS + 20
    assert f"at most {contents.EXAMPLES} test examples a group" in html
    assert "1 groups have none here" in html
    losses = contents.curves(runs, "rouge1")[0]
    assert len(losses) <= contents.POINTS * len(runs)
    assert max(row["step"] for row in losses) == 10 * contents.POINTS - 1


def test_the_command_writes_the_page(
    harness: Callable[..., Result], hostile_results: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    result = harness("report", str(hostile_results), "--format", "html", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert out.read_text().startswith("<!doctype html>")


def test_missing_packages_are_named_with_the_command_that_installs_them(
    harness: Callable[..., Result], hostile_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    result = harness("report", str(hostile_results), "--format", "html")
    assert result.exit_code == 2
    assert "pip install 'seq2seq-harness[html]'" in result.stderr
