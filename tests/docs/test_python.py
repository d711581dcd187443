"""The snippets of the page on Python run as they are written."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import harness

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "python.md").read_text()
SNIPPETS = [
    textwrap.dedent(block)
    for block in re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", TEXT)
    if "import harness" in block
]
MEASURE = re.compile(r"harness\.(run|sweep|profile)\(")
TINY = {
    "device": "cpu",
    "train.max_steps": 2,
    "train.batch_size": 2,
    "train.eval_examples": 2,
    "greedy.max_new_tokens": 4,
    "test.examples": 2,
    "test.beams": 1,
    "test.max_new_tokens": 4,
    "probe.warmup_steps": 1,
    "probe.steps": 1,
    "probe.rounds": 2,
    "probe.inference": False,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the committed sweep as its results."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "results" / "sweep", "results")
    return tmp_path


def test_the_page_has_a_snippet_for_every_function() -> None:
    assert len(SNIPPETS) == 12
    for name in re.findall(r"`harness\.(\w+)`", TEXT):
        assert hasattr(harness, name)
        assert f"harness.{name}" in TEXT


def test_every_call_on_the_page_has_arguments_that_exist() -> None:
    spans = [" ".join(span.split()) for span in re.findall(r"`(harness\.\w+\([^`]*\))`", TEXT)]
    calls = [
        node
        for code in (*SNIPPETS, *spans)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and re.fullmatch(r"harness\.\w+", ast.unparse(node.func))
    ]
    assert len(calls) >= 8
    for call in calls:
        function = getattr(harness, ast.unparse(call.func).removeprefix("harness."))
        named = {keyword.arg: None for keyword in call.keywords if keyword.arg}
        inspect.signature(function).bind(*call.args, **named)


@pytest.mark.parametrize(
    "code",
    [
        # A large model is planned for some ten seconds.
        pytest.param(code, marks=pytest.mark.slow if "t5-large" in code else ())
        for code in SNIPPETS
        if not MEASURE.search(code)
    ],
)
def test_a_snippet_runs(code: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "python.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("code", [code for code in SNIPPETS if MEASURE.search(code)])
def test_a_snippet_that_measures_runs(
    code: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run", "sweep", "profile"):
        function = getattr(harness, name)

        def small(
            *words: Any,
            function: Callable[..., Any] = function,
            settings: dict[str, Any] | None = None,
            **named: Any,
        ) -> Any:
            sizes = {key: value for key, value in TINY.items() if "." in key}
            return function(*words, settings={**(settings or {}), **sizes}, **named)

        monkeypatch.setattr(harness, name, small)
    exec(compile(code, "python.md", "exec"), {})
    assert capsys.readouterr().out
