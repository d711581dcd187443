"""The settings in which two runs differ, for a note below a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.records.run_folder import SPEC
from harness.spec.run_spec import TUNED, VARIED, RunSpec, read_toml


def settings_difference(earlier: Path, later: Path) -> str:
    """Return the settings in which two runs differ, in brackets.

    Args:
        earlier: folder of the run that the text calls "there".
        later: folder of the run that the text calls "here".

    Returns:
        The text, with a space before it; empty if a run's settings cannot be read.
    """
    try:
        # A setting that a spec lacks had its default: older versions did not know it.
        defaults = _flat(RunSpec().model_dump(mode="json"))
        before, after = (
            {**defaults, **_flat(read_toml(folder / SPEC))} for folder in (earlier, later)
        )
    except HarnessError:
        return ""
    different = [
        f"{key} {_shown(before.get(key))} there, {_shown(after.get(key))} here"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
        and key.partition(".")[0] not in VARIED
        and key != f"train.{TUNED}"
    ]
    return f" ({'; '.join(different)})" if different else ""


def _shown(value: object) -> str:
    if value is None:
        return "unset"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat
