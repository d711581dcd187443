"""``harness recommend``: names the recipe to use, and the reason against each other one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli import options, quantities
from harness.cli.export import export_and_show
from harness.cli.loading import load, summarize
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.reporting.recommendation import Recommendation, Verdict
    from harness.reporting.summary import Summary


def recommend(
    results: options.Results = Path("results"),
    min_quality: Annotated[
        str, typer.Option(help="Share of full fine-tuning's quality that a recipe must keep.")
    ] = "95%",
    max_memory: Annotated[
        str | None, typer.Option(help="Largest peak memory, e.g. 16GiB.", show_default=False)
    ] = None,
    min_speed: Annotated[
        str | None,
        typer.Option(
            help="Lowest speed relative to full fine-tuning, e.g. 150%.", show_default=False
        ),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(
            help="Longest time to decode one example, e.g. 50ms or 0.05s; measured at batch 1.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="Metric that measures quality.", show_default="the first, e.g. rouge1"),
    ] = None,
    by: Annotated[
        Literal["speed", "memory", "parameters", "latency"],
        typer.Option(
            help="Meaning of cheapest: fastest training, least memory, fewest trained parameters, "
            "or fastest decoding of one example."
        ),
    ] = "speed",
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Backbone that you want to train, if not that of the runs: its memory is planned.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Export the recommended recipe's best seed, merged, as harness export does.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Name the cheapest recipe that keeps enough of full fine-tuning's quality.

    A recipe keeps enough if the lower bound of the 95 % interval of its quality, relative to full
    fine-tuning, is at least --min-quality. The exit status is 1 if no recipe is good enough on any
    backbone and task.

    To choose for a model that you have not trained yet, from the runs of another one:
    harness recommend results/study --backbone t5-large --device cuda --max-memory 24GB
    """
    import harness

    quality = quantities.ratio(min_quality, "--min-quality")
    memory = quantities.size(max_memory, "--max-memory") if max_memory is not None else None
    speed = quantities.ratio(min_speed, "--min-speed") if min_speed is not None else None
    latency = quantities.seconds(max_latency) if max_latency is not None else None
    summary = summarize(load(results), metric)
    recommendations = harness.recommend(
        summary,
        min_quality=quality,
        max_memory_bytes=memory,
        min_speed=speed,
        max_latency_seconds=latency,
        by=by,
        backbone=backbone,
        device=device,
    )
    if as_json:
        from pydantic import TypeAdapter

        from harness.reporting.recommendation import Recommendation

        adapter = TypeAdapter(list[Recommendation])
        typer.echo(adapter.dump_json(recommendations, indent=2).decode())
    else:
        for recommended in recommendations:
            typer.echo("\n".join(_lines(recommended)) + "\n")
    if not any(recommended.chosen for recommended in recommendations):
        raise typer.Exit(1)
    if export is not None:
        winner = _winner(recommendations, summary, results)
        export_and_show(winner, export, overwrite=overwrite, quiet=as_json)


def _winner(recommendations: Sequence[Recommendation], summary: Summary, results: Path) -> Path:
    """Return the folder of the recommended recipe's best seed.

    Raises:
        HarnessError: there are recommendations for several backbones or tasks.
    """
    from harness.records.run_choice import best_of

    rows = [
        next(row for row in group.rows if row.recipe == recommended.chosen)
        for group, recommended in zip(summary.groups, recommendations, strict=True)
        if recommended.chosen
    ]
    if len(rows) > 1:
        raise HarnessError(
            f"There are {len(rows)} recommendations, for different backbones, tasks or settings.",
            "Export one: harness export RUN --out FOLDER",
        )
    return best_of([results / folder for folder in rows[0].folders])


def _lines(recommended: Recommendation) -> Iterator[str]:
    from harness.reporting.text_columns import printable

    where = printable(f"{recommended.backbone} on {recommended.task}")
    for verdict in recommended.verdicts:
        name = printable(verdict.recipe)
        if verdict.recipe == recommended.chosen:
            yield f"{where}: {typer.style(name, bold=True)}"
            yield f"  {_facts(verdict)}"
        else:
            if verdict is recommended.verdicts[0]:
                yield f"{where}: {typer.style('no recipe is good enough', fg='red')}"
            yield f"{name}: {printable('; '.join(verdict.reasons))}."
    yield from (typer.style(printable(note), dim=True) for note in recommended.notes)


def _facts(verdict: Verdict) -> str:
    from harness.reporting.inference_row import milliseconds
    from harness.reporting.wording import bounds, count, memory, percent

    share = verdict.retention
    kept = (
        f"keeps {percent(share.value, 1)} ({bounds(share, 100, 1)})"
        if share
        else "is no worse than full fine-tuning"
    )
    latency = verdict.latency_seconds
    decodes = "" if latency is None else f", decodes an example in {milliseconds(latency)}"
    trains = "" if verdict.speed is None else f", trains at {percent(verdict.speed)}"
    size = verdict.memory_bytes
    takes = "" if size is None else f", takes {memory(size, 'GiB')} GiB"
    return f"{kept}{trains}{takes}, trains {count(verdict.trainable)} parameters{decodes}"
