"""Settings of generation, which scores depend on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from harness.api.options import Options

EarlyStopping = Annotated[
    Literal[False, True, "never"],
    # TOML does not know Python's spelling, so it arrives as text.
    BeforeValidator(lambda value: {"True": True, "False": False}.get(str(value), value)),
]


class DecodingSettings(Options):
    """Settings of greedy and beam search, with the same meaning as in transformers'
    ``generate``."""

    beams: int = Field(6, ge=1)
    """Number of beams; 1 is greedy search."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest prediction in tokens, including the end token."""
    no_repeat_ngram: int = Field(3, ge=0)
    """Size of the n-grams that may not occur twice in a prediction; 0 allows all."""
    # The bounds keep scores above the value that marks unfinished hypotheses in the search.
    length_penalty: float = Field(1.0, ge=-2, le=10)
    """Exponent of the length by which beam search divides a finished hypothesis' log-probability.
    Values above 0 favour long predictions, values below 0 short ones. Greedy search ignores it."""
    min_new_tokens: int = Field(0, ge=0)
    """Shortest prediction in tokens, without the end token."""
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
    """Penalty for tokens that the prediction already contains: above 1 they become less likely,
    below 1 more likely. Beam search multiplies their log-probabilities by it. Greedy search
    multiplies negative logits and divides positive ones."""
    early_stopping: EarlyStopping = False
    """End of beam search for an example that has as many finished hypotheses as beams. true: it
    ends at once. false: it ends when the best unfinished hypothesis, at its present length, scores
    no better than the worst finished one. never: it ends when that holds at the greatest length
    too, which differs from false if the length penalty is above 0. Greedy search ignores it."""
    batch_size: int = Field(16, ge=1)
    """Examples decoded at once. It changes speed and memory, not the predictions."""

    def of_search(self) -> DecodingSettings:
        """Return the settings of the search alone, without those that a subclass adds."""
        names = set(DecodingSettings.model_fields)
        return DecodingSettings.model_validate(self.model_dump(include=names))

    @field_validator("min_new_tokens")
    @classmethod
    def _fits(cls, value: int, info: ValidationInfo) -> int:
        longest = info.data.get("max_new_tokens", value)
        if value > longest:
            raise ValueError(f"is more than max_new_tokens={longest}")
        return value
