"""Capabilities of a recipe on a backbone, found by trying it on shapes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.records.record import Record


class Capabilities(Record):
    """Properties of a recipe on a backbone, found by trying it on a skeleton."""

    changes_structure: bool
    """True if some weights of the backbone are gone or replaced."""
    merges: bool | None
    """True if merging leaves only modules and weights that the backbone has; null if merging needs
    values."""
    packs: bool
    """True if sequences are trained in packed rows, without padding."""
    shares_beams: bool
    """True if the beams of an example share a cache."""
    acts_in_training: bool
    """True if a compressor acts between steps; such a recipe trains in one process."""
    adds_to_loss: bool
    """True if a compressor adds to the loss."""
    needs_data: bool
    """True if a compressor looks at training examples."""
    needs_teacher: bool
    """True if the original model is in memory during training."""
    adapter_format: Literal["peft"] | None
    """Format in which its adapters can be saved; null if there is none."""
    obstacles: dict[str, str] = Field(default_factory=dict)
    """Property that is false or null -> the reason, where one is known."""
