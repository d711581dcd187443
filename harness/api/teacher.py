"""The teacher of a compressor: the model whose outputs its loss is computed from."""

from __future__ import annotations

from dataclasses import dataclass

ORIGINAL = "original"
"""Names the backbone's own model, as it was before any compressor."""


@dataclass(frozen=True)
class Teacher:
    """The model that a compressor with the need "teacher" learns from.

    Attributes:
        weights: ``original``; the folder of a finished run, whose trained and merged model is
            loaded; or any other reference of a backbone, such as the folder of a model.
        top: number of the most likely tokens whose logits are computed once, before training, and
            stored in ``$HARNESS_CACHE``; ``Outputs.teacher_top`` has them. None computes the logits
            of all tokens in every step.
        beams: number of beams of a search whose predictions replace the targets of the training
            examples. The teacher predicts each source once, before training, and what it predicts
            is stored in ``$HARNESS_CACHE``. None keeps the targets of the data.
        logits: whether the loss reads its outputs; false if only its predictions are used.
    """

    weights: str = ORIGINAL
    top: int | None = None
    beams: int | None = None
    logits: bool = True
