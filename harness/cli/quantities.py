"""Shares, sizes and times as users write them on the command line."""

from __future__ import annotations

import re

from harness.errors import HarnessError

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """Return the seconds of a time such as ``50ms`` or ``0.05s``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)\s*", text)
    if not match:
        raise HarnessError(
            f"--max-latency {text!r} is not a time.", "Write, for example: --max-latency 50ms"
        )
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def ratio(text: str, option: str) -> float:
    """Return the number that ``95%`` or ``0.95`` stands for."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    if not match:
        raise HarnessError(
            f"{option} {text!r} is not a share.", f"Write, for example: {option} 95%"
        )
    number = float(match[1])
    if not match[2] and number > 10:
        raise HarnessError(
            f"{option} {text} would be {number:g} times full fine-tuning.",
            f"Write {option} {number:g}%",
        )
    return number / 100 if match[2] else number


def size(text: str, option: str) -> int:
    """Return the bytes of a size such as ``16GiB``, ``16 GB`` or a plain number."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not match or match[2].lower() not in _BYTES:
        raise HarnessError(
            f"{option} {text!r} is not a size.", f"Write, for example: {option} 16GiB"
        )
    return round(float(match[1]) * _BYTES[match[2].lower()])


def times(text: str, option: str) -> float:
    """Return the number that ``2x``, ``200%`` or ``2`` stands for."""
    return ratio(text.strip().removesuffix("x"), option)


def time_span(text: str, option: str) -> float:
    """Return the seconds of a time such as ``2h``, ``90m`` or ``1h30m``."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([smhd])", text)
    if not parts or re.sub(r"\d+(?:\.\d+)?\s*[smhd]|\s", "", text):
        raise HarnessError(f"{option} {text!r} is not a time.", f"Write, for example: {option} 2h")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)
