"""Grids of a sweep: products of backbones, recipes, tasks and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.api.options import Options, validate
from harness.api.plugins import Plugins
from harness.errors import HarnessError, did_you_mean
from harness.spec.run_spec import RunSpec, overlay, read_toml, resolve

_SHIPPED = Path(__file__).parent


class Grid(Options):
    """One product of backbones, recipes and tasks."""

    backbone: list[str] = Field(["nano-t5"], min_length=1)
    """Backbones: names, hub ids or folders."""
    compressor: list[str] = Field(["lora_ff+lprun"], min_length=1)
    """Recipes: compressors joined by ``+``."""
    task: list[str] = Field(["radiology_demo"], min_length=1)
    """Tasks: names, files or folders."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the runs, as in a spec file."""


class SweepFile(Options):
    """Contents of a sweep's TOML file."""

    seeds: int = Field(1, ge=1)
    """Number of seeds: 3 runs each cell with the seeds 0, 1 and 2."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of all runs; the settings of a grid replace them."""
    grid: list[Grid] = Field(min_length=1)
    """Grids; their runs are executed in this order."""


def read_sweep(reference: str) -> SweepFile:
    """Read a sweep file, or one that ships with the package.

    Args:
        reference: a path, or a name such as ``paper/table3``.

    Raises:
        HarnessError: there is no such file, or a field in it is unknown or not valid.
    """
    path = Path(reference)
    if not path.exists() and path.suffix != ".toml":
        shipped = {
            file.relative_to(_SHIPPED).with_suffix("").as_posix(): file
            for file in _SHIPPED.rglob("*.toml")
        }
        if reference not in shipped:
            raise HarnessError(
                f"There is no sweep {reference!r}.", did_you_mean(reference, shipped)
            )
        path = shipped[reference]
    return validate(SweepFile, read_toml(path), f"The sweep {reference!r}")


def specs(sweep: SweepFile, settings: Mapping[str, Any], plugins: Plugins) -> list[RunSpec]:
    """Return the spec of each run of a sweep; equal specs are returned once.

    Args:
        sweep: the contents of the sweep file.
        settings: settings that replace those of the file.
        plugins: the plugins of this environment.

    Raises:
        HarnessError: an unknown name, option or setting.
    """
    unique: dict[str, RunSpec] = {}
    for spec in _resolved(sweep, settings, plugins):
        unique.setdefault(spec.digest(), spec)
    return list(unique.values())


def _resolved(sweep: SweepFile, settings: Mapping[str, Any], plugins: Plugins) -> Iterator[RunSpec]:
    for grid in sweep.grid:
        for seed, task, backbone, recipe in product(
            range(sweep.seeds), grid.task, grid.backbone, grid.compressor
        ):
            plugins.tasks.find(task)
            preset = plugins.backbone(backbone).preset
            plugins.recipe(recipe)
            cell = {"backbone": backbone, "recipe": recipe, "task": task, "seed": seed}
            values = overlay(overlay(sweep.settings, grid.settings), settings)
            yield resolve(overlay(values, cell), preset)
