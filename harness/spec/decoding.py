"""Settings of the generation that a score rests on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from harness.api.options import Options

EarlyStopping = Annotated[
    Literal[False, True, "never"],
    # Python's spelling, which TOML does not know and so arrives as text.
    BeforeValidator(lambda value: {"True": True, "False": False}.get(str(value), value)),
]


class DecodingSettings(Options):
    """How predictions are generated: greedy or beam search, with the meaning that transformers'
    ``generate`` gives to the same settings."""

    beams: int = Field(6, ge=1)
    """Hypotheses kept for each example; 1 is greedy search."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest prediction in tokens, with its closing token."""
    no_repeat_ngram: int = Field(3, ge=0)
    """No n-gram of this many tokens occurs twice in a prediction; 0 allows all."""
    # The bounds keep scores within the numbers that the search marks unfinished hypotheses by.
    length_penalty: float = Field(1.0, ge=-2, le=10)
    """Beam search divides a finished hypothesis' log-probability by its length to this power: above
    0 favours long predictions, below 0 short ones. Greedy search ignores it."""
    min_new_tokens: int = Field(0, ge=0)
    """Shortest prediction in tokens, without its closing token."""
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
    """Tokens that the prediction already holds become less likely above 1, more likely below 1:
    beam search multiplies their log-probabilities by it, greedy search multiplies negative logits
    and divides positive ones."""
    early_stopping: EarlyStopping = False
    """When beam search ends an example that has as many finished hypotheses as beams. true: at
    once. false: when the best unfinished one, at its present length, scores no better than the
    worst finished one. never: when it could not do so at the greatest length either (which differs
    from false where the length penalty is above 0). Greedy search ignores it."""
    batch_size: int = Field(16, ge=1)
    """Examples decoded at once; changes speed and memory, not the search."""

    @field_validator("min_new_tokens")
    @classmethod
    def _fits(cls, value: int, info: ValidationInfo) -> int:
        longest = info.data.get("max_new_tokens", value)
        if value > longest:
            raise ValueError(f"is more than max_new_tokens={longest}")
        return value
