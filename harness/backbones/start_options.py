"""Options at the end of a backbone's reference, for checkpoints that lack weights or embeddings."""

from __future__ import annotations

import re
from typing import Literal

from harness import HarnessError, Options, validate

_SUFFIX = re.compile(r"(?P<reference>.+?)(?P<options>(:\w+=\w*)+)")


class StartOptions(Options):
    """Options written as ``REFERENCE:option=value``."""

    missing_weights: Literal["error", "random"] = "error"
    """Treatment of weights that the checkpoint lacks: an error, or random values."""
    extra_tokens: Literal["error", "resize"] = "error"
    """Treatment of tokens beyond the model's embeddings: an error, or a larger embedding, which is
    then trained."""


def has_options(reference: str) -> bool:
    """Return whether a reference ends with options."""
    return _SUFFIX.fullmatch(reference) is not None


def split_options(reference: str) -> tuple[str, StartOptions]:
    """Split a reference into the part before its options, and the options.

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
    """Write the options that are not the default, as they end a reference."""
    given = options.model_dump(exclude_defaults=True)
    return "".join(f":{name}={value}" for name, value in sorted(given.items()))


def notes_on_weights(
    reference: str, options: StartOptions, missing: list[str], unexpected: list[str]
) -> list[str]:
    """Return notes on the weights that are missing or unused.

    Raises:
        HarnessError: weights are missing, and the options do not allow that.
    """
    if missing and options.missing_weights == "error":
        raise HarnessError(
            f"The checkpoint {reference!r} lacks {_count(missing)}.",
            "Use a complete checkpoint, or correct config.json if the model is smaller. To draw "
            f"the missing weights at random: --backbone "
            f"{reference}{written(options)}:missing_weights=random",
        )
    notes = []
    if missing:
        notes.append(f"The checkpoint lacks {_count(missing)}; they were drawn at random.")
    if unexpected:
        notes.append(f"The checkpoint has {_count(unexpected)} that the model does not use.")
    return notes


def _count(names: list[str]) -> str:
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names):,} weight{'s' * (len(names) > 1)} ({', '.join(names[:3])}{more})"
