"""Dialogues as lists of turns: which texts come before an answer, and which text is the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.data.table import Table, kind_of
from harness.errors import HarnessError

_ANSWERERS = frozenset({"assistant", "gpt", "chatgpt", "bot", "model"})
_FORMS = (("role", "content"), ("from", "value"), ("speaker", "text"))
"""Keys of a turn's speaker and text: those of chat services, of ShareGPT, and plain ones."""


class Turn(NamedTuple):
    """One turn of a dialogue; a plain text has no speaker."""

    speaker: str | None
    text: str


class Exchange(NamedTuple):
    """Turns before an answer, and the answer; None where there is none."""

    source: str | None
    answer: str | None


@dataclass(frozen=True)
class Joining:
    """Rules by which turns are joined to one text.

    Attributes:
        labels: speaker as the data name it -> as the text shall; empty leaves it out.
        between: speaker and text of a turn.
        separator: between turns.
        answerer: the speaker whose turns are answers; None means assistant, gpt and their like, or
            else whoever speaks last.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    between: str = ": "
    separator: str = "\n"
    answerer: str | None = None

    def text(self, turns: list[Turn]) -> str:
        """Join turns."""
        return self.separator.join(map(self._one, turns))

    def _one(self, turn: Turn) -> str:
        label = self.labels.get(turn.speaker, turn.speaker) if turn.speaker else ""
        return f"{label}{self.between}{turn.text}" if label else turn.text


def turn_column(table: Table, name: str) -> list[list[Turn] | None]:
    """Return a column of dialogues and missing values.

    Raises:
        HarnessError: a value is no list of turns; it names the row.
    """
    return [
        None if value is None else _turns(table, name, number, value)
        for number, value in enumerate(table.columns[name], start=1)
    ]


def _turns(table: Table, name: str, number: int, value: object) -> list[Turn]:
    turns = [_turn(entry) for entry in value] if isinstance(value, list) else None
    if turns is None or None in turns:
        what = kind_of(value)
        if isinstance(value, list):
            what = f"turn {turns.index(None) + 1} is no turn" if turns else what
        raise HarnessError(
            f"{table.path}: row {number}, column {name!r}: {what} where a dialogue's turns belong.",
            'A turn is {"role": ..., "content": ...}, {"from": ..., "value": ...}, '
            '{"speaker": ..., "text": ...} or a text.',
        )
    return [turn for turn in turns if turn is not None]


def _turn(entry: object) -> Turn | None:
    if isinstance(entry, str):
        return Turn(None, entry)
    if isinstance(entry, dict):
        for who, what in _FORMS:
            text, speaker = entry.get(what), entry.get(who)
            if isinstance(text, list):  # Of parts; only those of text can be read.
                parts = [part.get("text") for part in text if isinstance(part, dict)]
                whole = len(parts) == len(text) and all(isinstance(p, str) for p in parts)
                text = "".join(map(str, parts)) if whole else None
            if isinstance(text, str) and isinstance(speaker, str | None):
                return Turn(speaker, text)
            # A call of a tool has no text.
            if what in entry and text is None and isinstance(speaker, str) and who in entry:
                return Turn(speaker, "") if entry[what] is None else None
    return None


def exchanges(turns: list[Turn], joining: Joining, each: bool) -> Iterator[Exchange]:
    """Yield what was said before the last answer, with it, or the same for each answer.

    Args:
        turns: of one dialogue.
        joining: how turns become one text.
        each: whether every answer makes an example, each once.
    """
    turns = [turn for turn in turns if turn.text.strip()]
    places = _answers(turns, joining.answerer)
    if not places:
        yield Exchange(joining.text(turns) or None, None)
        return
    for place in places if each else places[-1:]:
        yield Exchange(joining.text(turns[:place]) or None, turns[place].text)


def _answers(turns: list[Turn], answerer: str | None) -> list[int]:
    """Return the places of answers that something stands before, or the last one at least."""
    if not turns:
        return []
    if turns[-1].speaker is None and answerer is None:
        # Texts without speakers alternate; the last one is an answer.
        last = len(turns) - 1
        return [place for place in range(last % 2, last + 1, 2) if place] or [last]
    usual: set[str | None] = {turn.speaker for turn in turns if turn.speaker in _ANSWERERS}
    names: set[str | None] = {answerer} if answerer else usual or {turns[-1].speaker}
    places = [place for place, turn in enumerate(turns) if turn.speaker in names]
    return [place for place in places if place] or places
