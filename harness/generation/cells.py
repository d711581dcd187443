"""Values of columns as JSON and as cells of text."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any


def to_json(row: Mapping[str, Any]) -> str:
    """Return a row as a line of JSON."""
    return json.dumps(row, ensure_ascii=False, default=_plain) + "\n"


def as_text(value: Any) -> str | None:
    """Return a value as text: texts as they are, null as it is, others as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, date | datetime | time | bytes):
        return _plain(value)
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    """Return a value of Arrow that JSON does not have: dates by ISO 8601, bytes in base64."""
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)
