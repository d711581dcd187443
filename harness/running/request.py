"""Settings of a run, from the arguments of the command line or of Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.api.plugins import installed
from harness.spec.run_spec import RunSpec, overlay, read_toml, resolve
from harness.spec.settings import nested_settings


def run_spec(
    spec: str | Path | RunSpec | None,
    named: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
) -> RunSpec:
    """Resolve the settings of a run.

    Args:
        spec: a spec file or a spec to start from.
        named: settings that have an argument of their own; those that are None are left out.
        settings: any settings, by dotted or nested names; they replace all others.

    Raises:
        HarnessError: an unknown name, or a value that is not valid.
    """
    values: dict[str, Any] = {}
    if isinstance(spec, RunSpec):
        values = spec.model_dump(mode="json")
    elif spec is not None:
        values = read_toml(Path(spec))
    given = {name: value for name, value in named.items() if value not in (None, {})}
    values = overlay(overlay(values, given), nested_settings(settings or {}))
    # Names are looked up first: a mistyped name is reported before anything heavy is imported.
    # They are converted to text: a file can hold any value, and only resolve validates it.
    plugins = installed()
    reference = str(values.get("backbone", RunSpec.model_fields["backbone"].default))
    plugins.tasks.find(str(values.get("task", RunSpec.model_fields["task"].default)))
    return resolve(values, plugins.backbone(reference).preset)
