"""``harness storage``: disk space of many tasks, measured on exported files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.export.storage import RecipeStorage, StorageOfTasks


def storage(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders of runs, a results folder, or folders of harness export."),
    ],
    tasks: Annotated[str, typer.Option(help="Numbers of tasks, separated by commas.")] = "1,2,5,10",
    plugin: options.PluginFiles = None,
    as_json: options.Json = False,
) -> None:
    """Compare the disk space of many tasks: a model for each, or a base and an adapter for each.

    One run of each recipe and task is exported into a temporary folder and its files are measured.
    Adapters share their base. Sums over more tasks than were measured are computed.

    Example: harness storage results
    """
    import harness
    from harness.cli.export import progress

    with progress(quiet=as_json) as on_progress:
        results = harness.storage(
            runs,
            tasks=_numbers(tasks),
            on_progress=lambda name: on_progress(f"Exporting {name}"),
        )
    if as_json:
        typer.echo(json.dumps([result.model_dump(mode="json") for result in results], indent=2))
        return
    for result in results:
        _print(result)


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise HarnessError(
            f"--tasks {text!r} is not a list of numbers.", "Write, for example: --tasks 1,2,5,10"
        ) from error


def _print(result: StorageOfTasks) -> None:
    from rich.console import Console
    from rich.table import Table

    from harness.cli.file_sizes import readable

    table = Table(title=f"Disk space of many tasks with {result.backbone}", box=None)
    table.title_justify = table.caption_justify = "left"
    table.add_column("recipe", no_wrap=True)
    table.add_column("stored as")
    for heading in ("each task", "its weights", "once", *_headings(result)):
        table.add_column(heading, justify="right")
    for recipe in result.recipes:
        weights = max(files.weights for files in recipe.measured.values())
        once = readable(recipe.base_bytes) if recipe.base_bytes else "-"
        sizes = [readable(recipe.bytes_per_task), readable(weights), once]
        table.add_row(recipe.recipe, recipe.form, *sizes, *_sums(recipe))
    table.caption = "\n".join(_notes(result))
    Console(highlight=False).print(table)


def _headings(result: StorageOfTasks) -> list[str]:
    return [f"{s.tasks} task{'s' * (s.tasks > 1)}" for s in result.recipes[0].sums]


def _sums(recipe: RecipeStorage) -> Iterator[str]:
    from harness.cli.file_sizes import readable

    for entry in recipe.sums:
        share = entry.relative_to_full
        yield readable(entry.total_bytes) + ("" if share is None else f"\n{share:.1%}")


def _notes(result: StorageOfTasks) -> Iterator[str]:
    names = sorted({task for recipe in result.recipes for task in recipe.measured})
    yield f"Measured: the files of exported models of {', '.join(names)}, without a model card."
    yield "Computed: N tasks = N x each task + once. In %: of a full model for each task."
    yield f"Full fine-tuning was measured on {result.full_measured_on}."
    for recipe in result.recipes:
        if recipe.base_is_shared is False:
            yield f"{recipe.recipe}: the bases of the tasks differ, so that each has its own."
    for folder, reason in result.skipped.items():
        yield f"Not measured: {folder}: {reason}"
