"""``harness list``: plugins, their origin and their options."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from harness.api.options import describe
from harness.api.plugins import installed
from harness.api.registry import Entry, Registry
from harness.cli.options import Json, PluginFiles
from harness.errors import HarnessError


class Kind(StrEnum):
    """A kind of plugin."""

    BACKBONES = "backbones"
    COMPRESSORS = "compressors"
    TASKS = "tasks"
    METRICS = "metrics"
    EXECUTORS = "executors"


_WITH_OPTIONS = {Kind.COMPRESSORS, Kind.TASKS, Kind.METRICS, Kind.EXECUTORS}


def list_plugins(
    kind: Annotated[
        Kind | None, typer.Argument(help="List only this kind.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="Show this plugin with its options.", show_default=False)
    ] = None,
    plugin: PluginFiles = None,
    matrix: Annotated[
        bool,
        typer.Option(
            "--matrix",
            help="Try compressors on tiny models of each family; minutes for all of them.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """List backbones, compressors, tasks, metrics and executors, or show one with its options.

    Examples: harness list compressors, harness list compressors lora_ff, harness list compressors
    --matrix
    """
    if matrix:
        if kind not in (None, Kind.COMPRESSORS):
            raise HarnessError(
                f"There is no matrix of {kind}.", "harness list compressors --matrix"
            )
        from harness.cli.matrix import show_matrix

        show_matrix(name, as_json)
        return
    registries = installed().registries
    if kind is not None and name is not None:
        _show_one(kind, registries[kind].find(name), as_json)
        return
    shown = {kind.value: registries[kind]} if kind else registries
    if as_json:
        records = {
            plural: {
                "names": [_record(entry) for entry in registry],
                "families": [_record(entry) for entry in registry.families],
            }
            for plural, registry in shown.items()
        }
        typer.echo(json.dumps(records, indent=2))
        return
    console = Console()
    for plural, registry in shown.items():
        console.print(_table(plural, registry))


def _table(plural: str, registry: Registry) -> Table:
    table = Table(title=plural, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    table.add_column("origin", style="dim", no_wrap=True)
    for entry in registry:
        table.add_row(entry.name, entry.summary, str(entry.origin))
    for entry in registry.families:
        table.add_row(f"<{entry.name}>", entry.summary, str(entry.origin), style="italic")
    return table


def _show_one(kind: Kind, entry: Entry, as_json: bool) -> None:
    # A backbone has no options, and loading its module would import torch.
    model = getattr(entry.load(), "Options", None) if kind in _WITH_OPTIONS else None
    options = describe(model) if model is not None else []
    if as_json:
        fields = ("name", "type", "default", "doc")
        described = [dict(zip(fields, option, strict=True)) for option in options]
        typer.echo(json.dumps({**_record(entry), "options": described}, indent=2))
        return
    console = Console(highlight=False)
    console.print(entry.name, style="bold", markup=False)
    console.print(f"{entry.summary} ({entry.origin})", markup=False)
    if not options:
        console.print("It has no options.")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("option", no_wrap=True)
    table.add_column("type", max_width=26)
    table.add_column("default")
    table.add_column("what it does", ratio=1)
    for option, kind_of_value, default, doc in options:
        table.add_row(option, kind_of_value, _visible(default), doc)
    console.print(table)


def _visible(default: str) -> str:
    """Return a default as it is, or quoted and escaped if some of it could not be seen."""
    plain = default.isprintable() and default == default.strip() != ""
    return default if plain else repr(default)


def _record(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "summary": entry.summary,
        "origin": {"package": entry.origin.package, "version": entry.origin.version},
    }
