"""Names with options as text, such as ``lora_ff:r=8,alpha=16``, and lists of them."""

from __future__ import annotations

import re

from harness.errors import HarnessError

_OPTION = re.compile(r"[^:+=]+=")
GRAMMAR = "Write name[:option=value[,option=value]] joined by '+', as in lora_ff:r=8+lprun"


def split_parts(text: str) -> list[str]:
    """Split a list of names with options, such as ``full,lora_ff:r=8,alpha=16,lprun``.

    Commas separate names and options; an option starts with ``key=``.
    """
    parts: list[str] = []
    for item in text.split(","):
        if parts and _OPTION.match(item):
            parts[-1] += f",{item}"
        elif item.strip():
            parts.append(item.strip())
    return parts


def read_part(text: str) -> tuple[str, dict[str, str]]:
    """Read ``name:option=value,option=value``.

    Raises:
        HarnessError: bad grammar.
    """
    name, colon, options = text.strip().partition(":")
    return name, read_options(options if colon else None, text)


def read_options(text: str | None, part: str) -> dict[str, str]:
    """Read ``option=value,option=value`` into option -> text; None has no options.

    Args:
        text: the options.
        part: the whole text, for messages.

    Raises:
        HarnessError: bad grammar, or an option given twice.
    """
    options: dict[str, str] = {}
    for item in text.split(",") if text is not None else []:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise HarnessError(f"The recipe cannot be read at {part!r}: {item!r}.", GRAMMAR)
        if key.strip() in options:
            raise HarnessError(f"{part!r} gives the option {key.strip()!r} twice.", "Give it once.")
        options[key.strip()] = value.strip()
    return options
