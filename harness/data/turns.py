"""Dialogues as lists of turns: extracts answers and the turns before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.data.table import Table, kind_of
from harness.errors import HarnessError

_ANSWERERS = frozenset({"assistant", "gpt", "chatgpt", "bot", "model"})
_FORMS = (("role", "content"), ("from", "value"), ("speaker", "text"))
"""Keys of a turn's speaker and text: of chat services, of ShareGPT, and plain ones."""


class Turn(NamedTuple):
    """One turn of a dialogue; a plain text has no speaker."""

    speaker: str | None
    text: str


class Exchange(NamedTuple):
    """An answer and the turns before it; None if missing."""

    source: str | None
    answer: str | None


@dataclass(frozen=True)
class Joining:
    """Settings for joining turns into one text.

    Attributes:
        labels: speaker in the data -> label in the text; an empty label is left out.
        between: text between the speaker and the text of a turn.
        separator: text between turns.
        answerer: speaker whose turns are answers; None means assistant, gpt, chatgpt, bot or
            model, or else the last speaker.
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
        HarnessError: a value is not a list of turns; the message names the row.
    """
    return [
        None if value is None else _turns(table, name, number, value)
        for number, value in enumerate(table.columns[name], start=table.first_row)
    ]


def _turns(table: Table, name: str, number: int, value: object) -> list[Turn]:
    turns = [_turn(entry) for entry in value] if isinstance(value, list) else None
    if turns is None or None in turns:
        what = kind_of(value)
        if isinstance(value, list):
            what = f"turn {turns.index(None) + 1} cannot be read as a turn" if turns else what
        raise HarnessError(
            f"{table.path}: row {number}, column {name!r}: {what}, but the turns of a dialogue "
            "are expected.",
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
            if isinstance(text, list):  # A list of parts; only text parts can be read.
                parts = [part.get("text") for part in text if isinstance(part, dict)]
                whole = len(parts) == len(text) and all(isinstance(p, str) for p in parts)
                text = "".join(map(str, parts)) if whole else None
            if isinstance(text, str) and isinstance(speaker, str | None):
                return Turn(speaker, text)
            # A tool call has no text.
            if what in entry and text is None and isinstance(speaker, str) and who in entry:
                return Turn(speaker, "") if entry[what] is None else None
    return None


def exchanges(turns: list[Turn], joining: Joining, every_answer: bool) -> Iterator[Exchange]:
    """Yield the last answer with the turns before it, or every answer.

    Args:
        turns: the turns of one dialogue.
        joining: the settings for joining turns into one text.
        every_answer: true to yield every answer.
    """
    turns = [turn for turn in turns if turn.text.strip()]
    places = _answers(turns, joining.answerer)
    if not places:
        yield Exchange(joining.text(turns) or None, None)
        return
    for place in places if every_answer else places[-1:]:
        yield Exchange(joining.text(turns[:place]) or None, turns[place].text)


def _answers(turns: list[Turn], answerer: str | None) -> list[int]:
    """Return the places of answers with a turn before them, or at least of the last answer."""
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
