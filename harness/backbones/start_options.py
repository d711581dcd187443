"""Options that a backbone's reference may end with: how to start from a checkpoint that is odd."""

from __future__ import annotations

import re
from typing import Literal

from harness import HarnessError, Options, validate

_SUFFIX = re.compile(r"(?P<reference>.+?)(?P<options>(:\w+=\w*)+)")


class StartOptions(Options):
    """Written as ``REFERENCE:option=value``."""

    missing_weights: Literal["error", "random"] = "error"
    """Weights that the checkpoint lacks: an error, or drawn at random."""
    extra_tokens: Literal["error", "resize"] = "error"
    """Tokens beyond the model's embeddings: an error, or the embedding grows and is trained."""


def has_options(reference: str) -> bool:
    """Whether a reference ends with options."""
    return _SUFFIX.fullmatch(reference) is not None


def split_options(reference: str) -> tuple[str, StartOptions]:
    """Return a reference without its options, and these.

    Raises:
        HarnessError: an option is unknown or does not fit.
    """
    match = _SUFFIX.fullmatch(reference)
    if match is None:
        return reference, StartOptions()
    pairs = [pair.split("=") for pair in match["options"].split(":")[1:]]
    options = validate(StartOptions, dict(pairs), f"backbone {match['reference']!r}")
    if len({name for name, _ in pairs}) != len(pairs):
        raise HarnessError(f"An option is given twice in {reference!r}.", "Leave one of them out.")
    return match["reference"], options


def written(options: StartOptions) -> str:
    """Return what options that are not the default look like at the end of a reference."""
    given = options.model_dump(exclude_defaults=True)
    return "".join(f":{name}={value}" for name, value in sorted(given.items()))


def notes_on_weights(
    reference: str, options: StartOptions, missing: list[str], unexpected: list[str]
) -> list[str]:
    """Return notes on weights that a checkpoint lacks, or has and the model does not use.

    Raises:
        HarnessError: weights are missing, which the options do not allow.
    """
    if missing and options.missing_weights == "error":
        raise HarnessError(
            f"The checkpoint {reference!r} lacks {_count(missing)}.",
            "Take a whole checkpoint, or correct config.json if the model is smaller. To draw "
            f"them at random: --backbone {reference}{written(options)}:missing_weights=random",
        )
    notes = []
    if missing:
        notes.append(f"The checkpoint lacks {_count(missing)}; they were drawn at random.")
    if unexpected:
        notes.append(f"The checkpoint holds {_count(unexpected)} which the model does not use.")
    return notes


def _count(names: list[str]) -> str:
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names):,} weight{'s' * (len(names) > 1)} ({', '.join(names[:3])}{more})"
