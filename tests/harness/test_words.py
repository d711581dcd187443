"""The words of code, help and docs: no abandoned name, no docstring that begins as a question."""

from __future__ import annotations

import ast
import contextlib
import io
import keyword
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import harness
from harness.cli.main import app

ROOT = Path(harness.__file__).parents[1]

OLD_NAMES = re.compile(
    r"""
    Trainee | trainee | equip | Arm | time_arm | told | tell | tick | listen
    | settle_\w+ | Snapshots? | Predictor | HandOver | deaf_children
    | lean_norms | fused_lora | CheapDropout | dismiss | ALONE
    | Journal | History | Ledger | take_up | claim | tidy | cut_sources
    | beside_paper | relate_to_earlier | set_beside_limit
    | Surveyed | survey | Ending | last_words
    """,
    re.VERBOSE,
)
"""Names that were given up for the field's words; ``git log -S NAME`` shows each successor."""

FIELDS = {"cut_sources"}
"""Old names that stay as fields of records, since users' files have them."""

METHODS = {"tell"}
"""Old names that are methods of Python's own classes, such as files."""

CODE = ["harness", "compressors", "tasks", "benchmarks", "scripts", "examples", "tests"]
DOCUMENTED = [folder for folder in CODE if folder != "tests"]
PAGES = ["README.md", "CONTRIBUTING.md", "docs/**/*.md"]

QUESTION = re.compile(r"(What|Which|Where|How|Whether|When|Say|Of)\b")
"""First words that make a docstring a riddle: it begins with a verb or a noun instead."""


ENGLISH = {
    "told",
    "tell",
    "tick",
    "listen",
    "claim",
    "tidy",
    "survey",
    "equip",
    "dismiss",
    "History",
}
"""Old names that are words of ordinary prose as well."""


def modules(folders: list[str]) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def names_in(code: str) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of each identifier, also of those in programs that are strings.

    Left out are ``FIELDS`` where they are attributes, keywords or annotated, and ``METHODS`` where
    they are attributes.
    """
    tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            is_attribute = before.string == "."
            if token.string in METHODS and is_attribute:
                continue
            if token.string in FIELDS and (is_attribute or after.string in ("=", ":")):
                continue
            yield token.start[0], token.string
        elif token.type == tokenize.STRING and "import " in token.string and "\n" in token.string:
            yield from ((token.start[0], name) for name in _names_in_string(token.string))


def _names_in_string(literal: str) -> Iterator[str]:
    """Yield the identifiers of a program that is a string; none where the string is no program."""
    text = ast.literal_eval(literal.lstrip("f"))
    # An error of tokenization, or an indentation that no block has.
    with contextlib.suppress(tokenize.TokenError, IndentationError):
        yield from (name for _, name in names_in(text))


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, docstring) of a module, and of its classes, functions, fields and constants."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text.lstrip()


def help_texts(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield (command, text) of a command's help, of its options and of its commands."""
    yield name, command.help or ""
    for parameter in command.params:
        yield name, " ".join([*parameter.opts, getattr(parameter, "help", None) or ""])
    for inner in getattr(command, "commands", {}).values():
        yield from help_texts(inner, f"{name} {inner.name}")


def test_code_uses_no_abandoned_name() -> None:
    wrong = [
        f"{name_of(path)}:{line} {name}"
        for path in modules(CODE)
        if path != Path(__file__)
        for line, name in names_in(path.read_text())
        if OLD_NAMES.fullmatch(name)
    ]
    assert not wrong


def test_help_uses_no_abandoned_name() -> None:
    command = typer.main.get_command(app)
    wrong = [
        f"{name}: {word}"
        for name, text in help_texts(command, "harness")
        for word in re.findall(r"\w+", text)
        if OLD_NAMES.fullmatch(word) and word not in ENGLISH
    ]
    assert not wrong


def test_docs_use_no_abandoned_name() -> None:
    wrong = [
        f"{name_of(path)}: {word}"
        for pattern in PAGES
        for path in sorted(ROOT.glob(pattern))
        for word in re.findall(r"\w+", path.read_text())
        if OLD_NAMES.fullmatch(word) and word not in ENGLISH
    ]
    assert not wrong


@pytest.mark.parametrize("folder", DOCUMENTED)
def test_no_docstring_begins_as_a_question(folder: str) -> None:
    wrong = [
        f"{name_of(path)}:{line} {text.splitlines()[0]}"
        for path in modules([folder])
        for line, text in docstrings(path)
        if QUESTION.match(text)
    ]
    assert not wrong
