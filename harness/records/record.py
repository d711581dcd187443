"""The base of all records that are written to files."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base of all records: every field is documented, and unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
