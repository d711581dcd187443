"""The base of all records that are written to files."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of all that is reported: documented fields, and no unknown ones."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
