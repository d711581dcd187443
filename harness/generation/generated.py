"""Record of what a stream predicted."""

from __future__ import annotations

from pydantic import computed_field

from harness.generation.progress import Progress
from harness.records.record import Record


class Generated(Record):
    """Summary of generated texts."""

    output: str
    """The output; - is the standard output."""
    records: int
    """Records of the input, bad ones included."""
    errors: int
    """Bad records, which have no prediction."""
    errors_file: str | None
    """File with the line and the reason of each bad record; null if there is none."""
    blank: int
    """Blank sources; they are not given to the model, and their prediction is empty."""
    truncated: int
    """Sources that were longer than the limit."""
    resumed_after: int
    """Records that an earlier command had predicted before it was killed; 0 for a whole run."""
    seconds: float
    """Time of reading, predicting and writing, earlier commands included; loading is not."""
    source_tokens: int
    """Tokens of the sources, with the prefix."""
    prediction_tokens: int
    """Tokens of the predictions, as the tokenizer counts the texts."""
    batch_tokens: int
    """Token budget of a batch at the end; smaller than requested if memory ran out."""
    notes: list[str]
    """Sentences on guesses and on what the format of the output could not hold."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tokens_per_s(self) -> float | None:
        """Predicted tokens per second; null if no time passed."""
        return self.prediction_tokens / self.seconds if self.seconds else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def records_per_s(self) -> float | None:
        """Records per second; null if no time passed."""
        return self.records / self.seconds if self.seconds else None

    @classmethod
    def of(
        cls,
        progress: Progress,
        *,
        output: str,
        errors_file: str | None,
        resumed_after: int,
        notes: list[str],
    ) -> Generated:
        """Summarize the progress at the end of a stream."""
        counts = {
            name: getattr(progress, name)
            for name in cls.model_fields
            if name in type(progress).model_fields
        }
        del counts["output"]
        return cls(
            **counts,
            output=output,
            errors_file=errors_file,
            resumed_after=resumed_after,
            notes=notes,
        )
