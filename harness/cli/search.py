"""``harness search``: finds a recipe within a budget of time, speed, memory and quality."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options, quantities

if TYPE_CHECKING:
    from rich.console import Console

    from harness.searching.record import SearchResult


def search(
    backbone: options.OneBackbone = "nano-t5",
    compressor: Annotated[
        str | None,
        typer.Option(
            help="Recipes with alternatives in braces, separated by commas: "
            "'lora_ff:r={8|16}+lprun,lprun:select={alternate|loss}'.",
            show_default="LoRA, pruning of layers and neurons, and both",
        ),
    ] = None,
    task: Annotated[
        str, typer.Option(help="Task: a name, or your own file or folder.")
    ] = "radiology_demo",
    source_column: options.SourceColumn = None,
    target_column: options.TargetColumn = None,
    id_column: options.IdColumn = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    budget: Annotated[
        str, typer.Option(help="Wall time with all starts and the finals: 2h, 90m, 1h30m.")
    ] = "2h",
    speed: Annotated[
        str | None,
        typer.Option(
            help="Least training speed relative to full fine-tuning: 1.5x or 150%.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Largest share of full fine-tuning's peak memory: 50%.", show_default=False
        ),
    ] = None,
    min_quality: Annotated[
        str, typer.Option(help="Share of full fine-tuning's quality that a recipe must keep.")
    ] = "95%",
    seeds: Annotated[int, typer.Option(min=1, help="Fresh seeds of the finals.")] = 3,
    finalists: Annotated[
        int, typer.Option(min=1, help="Recipes of the finals, beside full fine-tuning.")
    ] = 3,
    rates: Annotated[
        int,
        typer.Option(
            min=1,
            help="Learning rates of each recipe, full fine-tuning too; its own is the middle one, "
            "and neighbours differ by a factor of 2.",
        ),
    ] = 3,
    round_size: Annotated[
        int, typer.Option(min=2, help="Most candidates that start together.")
    ] = 8,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the search and of its runs before the finals.")
    ] = 0,
    plugin: options.PluginFiles = None,
    preset: options.Preset = None,
    settings: options.Settings = None,
    out: Annotated[Path, typer.Option(help="Folder of the search.")] = Path("search"),
    executor: Annotated[
        str, typer.Option(help="Executor of the runs: local, local:jobs=2.")
    ] = "local",
    as_json: options.Json = False,
) -> None:
    """Search recipes, options and learning rates, and test the best with fresh seeds.

    Candidates whose planned costs exceed the limits are not trained. The others train a quarter of
    the steps, the better half of them goes on, and so on. The search compares scores on the eval
    split; only the finals use the test split. Give the same command again to resume a search that
    was stopped, or a larger budget to go on with one that has ended.

    Example: harness search --budget 2h --speed 1.5x --memory 80% --min-quality 95%
    """
    from rich.console import Console

    import harness
    from harness.spec.run_spec import parse_settings

    console = Console(stderr=True, highlight=False)

    def on_message(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    try:
        result = harness.search(
            backbone,
            compressor,
            task,
            budget=quantities.time_span(budget, "--budget"),
            min_speed=quantities.times(speed, "--speed") if speed is not None else None,
            max_memory=quantities.ratio(memory, "--memory") if memory is not None else None,
            min_quality=quantities.ratio(min_quality, "--min-quality"),
            seeds=seeds,
            finalists=finalists,
            rates=rates,
            round_size=round_size,
            seed=seed,
            preset=preset,
            task_options=options.given(
                source_column=source_column,
                target_column=target_column,
                id_column=id_column,
                encoding=encoding,
                delimiter=delimiter,
            ),
            settings=parse_settings(settings or []),
            folder=out,
            executor=executor,
            on_message=on_message,
        )
    except KeyboardInterrupt:
        on_message("The search was stopped. Give the same command to resume it.")
        raise
    _write_page(console, result, out)
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        _print(result)
    if not result.command:
        raise typer.Exit(1)


def _write_page(console: Console, result: SearchResult, out: Path) -> None:
    """Write the charts of the finals, if the packages for that are installed."""
    import harness
    from harness.errors import HarnessError
    from harness.records.atomic import write_text
    from harness.reporting.page.render import page
    from harness.searching.course import FINALS

    if result.summary is None:
        return
    try:
        text = page(result.summary, harness.load_reports(out / FINALS))
    except HarnessError as error:
        console.print(f"{error.message} {error.hint or ''}", style="dim", soft_wrap=True)
        return
    write_text(out / "report.html", text)


def _print(result: SearchResult) -> None:
    from harness.cli.loading import terminal_table
    from harness.reporting.text_columns import printable

    if result.summary is not None:
        typer.echo(terminal_table(result.summary))
    for line in _lines(result):
        typer.echo(printable(line))
    if result.command:
        typer.echo(f"\n    {result.command}\n")


def _lines(result: SearchResult) -> Iterator[str]:
    from harness.sweeps.view import duration

    rejected = len(result.candidates) - result.trained
    yield (
        f"Looked at {len(result.candidates)} of {result.space:,} combinations: {rejected} rejected "
        f"by their planned costs, {result.trained - result.finished} stopped early, "
        f"{result.finished} trained to the end, in {duration(result.spent_seconds)}."
    )
    for finalist in result.finalists:
        yield (
            f"{finalist.recipe}: learning rate {finalist.learning_rate:g}, the best of "
            f"{finalist.rates_tried} tried."
        )
    yield from result.notes
    yield from result.to_know_more
    if result.recommendation:
        for verdict in result.recommendation.verdicts:
            if verdict.recipe != result.recommendation.chosen:
                yield f"{verdict.recipe}: {'; '.join(verdict.reasons)}."
    if result.command:
        assert result.recommendation
        yield f"Recommended: {result.recommendation.chosen}"
    else:
        yield "No recipe is shown to satisfy all needs."
