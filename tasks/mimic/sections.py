"""The titled sections of a clinical note, and the choice of source and target sections."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from harness import HarnessError, Options, validate

BUILT_IN = Path(__file__).with_name("sections.toml")


class Titles(Options):
    """Section titles of one kind of note, in lower case."""

    target: list[str] = Field(min_length=1)
    """Titles of sections that form the target."""
    source: list[str] = Field(min_length=1)
    """Titles of sections that form the source."""
    ends: list[str] = Field(default_factory=list)
    """Titles of other sections, which are not used."""


class Pair(NamedTuple):
    """Source and target that the sections of a note make.

    Attributes:
        source: text of the source sections; empty if there is none.
        target: text of the first target section with text; None if no section has a target
            title.
    """

    source: str
    target: str | None


class SectionReader:
    """Finds titles at the beginnings of lines of a lower-cased note.

    Args:
        titles: section titles to find.
    """

    def __init__(self, titles: Titles) -> None:
        self._targets = set(titles.target)
        self._sources = set(titles.source)
        # Longest first: "discharge diagnosis" must not hide a longer title that begins with it.
        words = sorted({*titles.target, *titles.source, *titles.ends}, key=len, reverse=True)
        choices = "|".join(map(re.escape, words))
        self._title = re.compile(rf"^[ \t]*({choices})[ \t\r]*(?::|$)", re.MULTILINE)

    def read(self, note: str) -> Pair:
        """Return source and target, in lower case and with single spaces."""
        sources: list[str] = []
        target: str | None = None
        for title, text in self._sections(note.lower()):
            if title in self._targets:
                target = target or text
            elif title in self._sources and text:
                sources.append(f"{title}: {text}")
        return Pair(" ".join(sources), target)

    def _sections(self, note: str) -> Iterator[tuple[str, str]]:
        """Yield (title, text) in order of appearance."""
        # split() with one group returns: text before, title, text, title, text, ...
        pieces = self._title.split(note)
        for title, text in zip(pieces[1::2], pieces[2::2], strict=True):
            yield title, " ".join(text.split())


def read_titles(kind: str, path: Path = BUILT_IN) -> Titles:
    """Read the titles of one kind of note from a TOML file.

    Raises:
        HarnessError: the file is missing or malformed, or a title is given twice.
    """
    hint = f"Edit a copy of the built-in file: {BUILT_IN}"
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise HarnessError(
            f"The section titles {str(path)!r} cannot be read: {error}.", hint
        ) from (error)
    if not isinstance(tables.get(kind), dict):
        raise HarnessError(f"{path}: there is no table [{kind}].", hint)
    titles = validate(Titles, tables[kind], f"{path}, table [{kind}]")
    counts = Counter([*titles.target, *titles.source, *titles.ends])
    for title, count in counts.items():
        if count > 1 or not title.strip() or title != title.lower():
            problem = "given twice" if count > 1 else "not a title in lower case"
            raise HarnessError(f"{path}, table [{kind}]: {title!r} is {problem}.", hint)
    return titles
