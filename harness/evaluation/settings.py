"""Settings of the generation that a score rests on."""

from __future__ import annotations

from pydantic import Field

from harness.options import Options


class DecodingSettings(Options):
    """How predictions are generated: beam search, length-normalised."""

    beams: int = Field(6, ge=1)
    """Hypotheses kept for each example; 1 is greedy search."""
    max_new_tokens: int = Field(128, ge=1)
    """Longest prediction in tokens, with its closing token."""
    no_repeat_ngram: int = Field(3, ge=0)
    """No n-gram of this many tokens occurs twice in a prediction; 0 allows all."""
    batch_size: int = Field(16, ge=1)
    """Examples decoded at once; changes speed and memory, not the search."""
