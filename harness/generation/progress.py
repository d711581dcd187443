"""Progress: the position of a partial output, and what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from harness.errors import HarnessError, first_line
from harness.records.record import Record

_AGAIN = "Repeat the command as it was, or start again: --overwrite"


class Progress(Record):
    """Position of a partial output, after a whole number of windows."""

    schema_version: int = 1
    """Version of this record's schema."""
    identity: dict[str, str]
    """Everything that can change the output: model, settings, formats and versions."""
    windows: int = 0
    """Windows of the input that are done."""
    records: int = 0
    """Records of these windows, bad ones included."""
    input_sha256: str = ""
    """Hash of these records."""
    output: int = 0
    """End of the output: bytes, or parts of a Parquet file."""
    error_bytes: int = 0
    """End of the file of errors."""
    errors: int = 0
    """Bad records."""
    blank: int = 0
    """Blank sources, whose prediction is empty."""
    truncated: int = 0
    """Sources that were longer than the limit."""
    source_tokens: int = 0
    """Tokens of the sources, with the prefix."""
    prediction_tokens: int = 0
    """Tokens of the predictions."""
    seconds: float = 0.0
    """Time of all windows that are done."""
    batch_tokens: int
    """Token budget of a batch; smaller than requested once memory ran out."""
    source_column: str | None = None
    """Column of the sources, once it is known."""
    columns: list[str] = Field(default_factory=list)
    """Columns of the output so far."""

    def require_identity(self, out: Path, identity: Mapping[str, str]) -> None:
        """Raise an error if a command would now do something else.

        Args:
            out: the output, for messages.
            identity: everything that can change the output now.
        """
        for name in dict.fromkeys([*identity, *self.identity]):
            then, now = self.identity.get(name, "unset"), identity.get(name, "unset")
            if then != now:
                raise HarnessError(
                    f"The partial output of {str(out)!r} was made with {name} {then}, and now it "
                    f"is {now}.",
                    _AGAIN,
                )

    def require_input(self, out: Path, sha256: str) -> None:
        """Raise an error if the records that are done are not those of the input.

        Args:
            out: the output, for messages.
            sha256: hash of as many records of the input now.
        """
        if sha256 != self.input_sha256:
            raise HarnessError(
                f"The partial output of {str(out)!r} belongs to another input: its first "
                f"{self.records:,} records differ.",
                _AGAIN,
            )


def read_progress(path: Path) -> Progress:
    """Read a progress file.

    Raises:
        HarnessError: it is damaged or of another version.
    """
    try:
        return Progress.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise HarnessError(
            f"The partial output {str(path)!r} cannot be read: {first_line(error)}.",
            "Start again: --overwrite",
        ) from error
