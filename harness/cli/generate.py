"""``harness generate``: predicts the texts of a file with a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options
from harness.cli.adapters import read_adapters

if TYPE_CHECKING:
    from harness.generation.generated import Generated


def generate(
    model: Annotated[
        str, typer.Argument(help="A run, an export, a folder of save_pretrained or a hub id.")
    ],
    texts: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="JSONL, CSV, TSV, Parquet, Arrow or a text per line; - is the standard input.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(help="JSONL, CSV, TSV, Parquet or a text per line; - is standard output."),
    ],
    source_column: options.SourceColumn = None,
    prediction_column: Annotated[
        str, typer.Option(help="New column of the predictions.")
    ] = "prediction",
    beams: Annotated[
        int | None, typer.Option(min=1, help="Beams; 1 is greedy.", show_default="the model's")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest prediction in tokens.", show_default="the model's"),
    ] = None,
    no_repeat_ngram: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Size of n-grams that may not occur twice; 0 allows all.",
            show_default="the model's",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Further setting of the search, e.g. length_penalty=2; repeatable.",
            show_default=False,
        ),
    ] = None,
    prefix: options.Prefix = None,
    max_source_length: options.MaxSourceLength = None,
    adapter: options.Adapters = None,
    adapter_column: Annotated[
        str | None,
        typer.Option(
            help="Column with the name of the adapter of each record; empty is none of them.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    decoder: options.Decoder = "harness",
    input_format: Annotated[
        str | None,
        typer.Option(
            help="jsonl, csv, text, parquet or arrow.", show_default="by suffix or first byte"
        ),
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option(help="jsonl, csv, text or parquet.", show_default="by suffix or the input's"),
    ] = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    window: Annotated[
        int, typer.Option(min=1, help="Records that are sorted by length and written together.")
    ] = 2048,
    plugin: options.PluginFiles = None,
    batch_tokens: options.BatchTokens = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output, and start again.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Predict all texts of a file, of any size, in its order and with all of its columns.

    Repeat the command to resume it after it was killed. Bad records go to OUT.errors.jsonl and do
    not stop the rest; the exit status is then 1. Example: harness generate results/RUN notes.jsonl
    --out predicted.jsonl
    """
    import harness
    from harness.cli.generation_progress import GenerationProgress
    from harness.spec.run_spec import parse_settings

    with GenerationProgress() as progress:
        generated = harness.generate(
            model,
            texts,
            out,
            source_column=source_column,
            prediction_column=prediction_column,
            beams=beams,
            max_new_tokens=max_new_tokens,
            no_repeat_ngram=no_repeat_ngram,
            settings=parse_settings(settings or []),
            prefix=prefix,
            max_source_length=max_source_length,
            adapters=read_adapters(adapter or []),
            adapter_column=adapter_column,
            device=device,
            precision=precision,
            decoder=decoder,
            input_format=input_format,
            output_format=output_format,
            encoding=encoding,
            delimiter=delimiter,
            window=window,
            batch_tokens=batch_tokens,
            overwrite=overwrite,
            on_progress=progress.on_progress,
            on_note=progress.on_note,
        )
    assert isinstance(generated, harness.Generated)
    _show(generated, as_json=as_json)


def _show(generated: Generated, *, as_json: bool) -> None:
    """Print a summary: on standard error if the predictions are on standard output."""
    predictions_shown = generated.output == "-"
    if as_json:
        typer.echo(generated.model_dump_json(), err=predictions_shown)
    else:
        rate = generated.tokens_per_s
        speed = f", {rate:,.0f} predicted tokens/s" if rate else ""
        parts = [f"{generated.records:,} records in {generated.seconds:,.1f} s{speed}"]
        parts += [f"{generated.truncated:,} sources truncated"] if generated.truncated else []
        parts += [f"{generated.blank:,} sources blank"] if generated.blank else []
        typer.echo("; ".join(parts), err=predictions_shown)
        if generated.errors:
            where = f", see {generated.errors_file}" if generated.errors_file else ""
            typer.echo(f"{generated.errors:,} records are bad{where}", err=True)
        if not predictions_shown:
            typer.echo(f"Written: {generated.output}")
    if generated.errors:
        raise typer.Exit(1)
