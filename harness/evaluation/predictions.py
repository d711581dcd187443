"""Files of predictions: JSON lines with one example per line, from a run or another program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.dialect import likely_encoding_hint
from harness.errors import HarnessError

_SHAPE = 'Each line is an object: {"prediction": "...", "reference": "..."}'


Reference = str | list[str]
"""One reference, or several for the same example."""


class PredictionRow(NamedTuple):
    """One line of a file of predictions.

    Attributes:
        line: the line's number, or the row's number in a table, from 1.
        prediction: the text that a model generated.
        reference: the expected text, or a list of several.
        source: the model's input, or None if it is not known.
        cluster: a name that dependent examples share (one patient, say), or None.
    """

    line: int
    prediction: str
    reference: Reference
    source: str | None
    cluster: str | None = None


def read_predictions(
    path: Path,
    prediction: str = "prediction",
    reference: str = "reference",
    source: str = "source",
) -> list[PredictionRow]:
    """Read a file of predictions in JSON lines; blank lines and further fields are ignored.

    Args:
        path: the file.
        prediction: name of the field of predictions.
        reference: name of the field of references; its value may be a list of several.
        source: name of the field of sources; it need not exist.

    Raises:
        HarnessError: the file is missing, empty or malformed; the message names the line.
    """
    rows = []
    names = (prediction, reference, source)
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    rows.append(_row(line, number, path, names))
    except OSError as error:
        raise HarnessError(f"{path} cannot be read: {error.strerror}.") from error
    if not rows:
        raise HarnessError(f"{path} holds no predictions.", _SHAPE)
    return rows


def _row(line: bytes, number: int, path: Path, names: tuple[str, str, str]) -> PredictionRow:
    place = f"{path}, line {number}"
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise HarnessError(
            f"{place}: not UTF-8 text ({error.reason}).", likely_encoding_hint(line)
        ) from error
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{place}: not JSON ({error}).") from error
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise HarnessError(f"{place}: it holds a {kind} instead of an object.", _SHAPE)
    prediction, reference, source = names
    text = _text(record, source, place) if record.get(source) is not None else None
    cluster = _text(record, "cluster", place) if isinstance(record.get("cluster"), str) else None
    predicted = _text(record, prediction, place)
    return PredictionRow(number, predicted, _reference(record, reference, place), text, cluster)


def _reference(record: dict[str, Any], name: str, place: str) -> Reference:
    """Return the reference, or a list of several; a list of one text is that text."""
    value = record.get(name)
    if not isinstance(value, list) or not value:
        return _text(record, name, place)
    texts = [_text({name: text}, name, place) for text in value]
    return texts if len(texts) > 1 else texts[0]


def _text(record: dict[str, Any], field: str, place: str) -> str:
    if field not in record:
        raise HarnessError(
            f"{place}: the field {field} is missing.",
            f"Fields of this line: {', '.join(map(repr, record)) or 'none'}. "
            "Choose one with --prediction-column NAME or --reference-column NAME",
        )
    value = record[field]
    if not isinstance(value, str):
        raise HarnessError(f"{place}: the field {field} holds {value!r:.40}, which is not text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise HarnessError(
            f"{place}: the field {field} holds half of a surrogate pair, which is not a character."
        ) from error
    return value
