"""``harness profile``: measures recipes on this device, without downloading anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli import options
from harness.costs.data_choice import DataChoice


def profile(
    backbone: options.OneBackbone = "nano-t5",
    compressor: options.ManyRecipes = "full,lprun,lora_qv,lora_ff,lora_qv+lprun,lora_ff+lprun",
    task: Annotated[str, typer.Option(help="Task whose batches are measured.")] = "radiology_demo",
    source_column: options.SourceColumn = None,
    target_column: options.TargetColumn = None,
    id_column: options.IdColumn = None,
    encoding: options.Encoding = None,
    delimiter: options.Delimiter = None,
    data: options.Data = DataChoice.AUTO,
    source_tokens: options.SourceTokens = None,
    target_tokens: options.TargetTokens = None,
    batch_size: options.BatchSize = 8,
    accumulation: options.Accumulation = 1,
    precision: options.Precision = "auto",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps per timed window.")] = 8,
    repeats: Annotated[
        int,
        typer.Option(min=2, help="Rounds of four windows: full, recipe, recipe, full."),
    ] = 4,
    plugin: options.PluginFiles = None,
    device: options.Device = "auto",
    inference: Annotated[
        bool,
        typer.Option(
            "--inference",
            help="Also measure decoding: latency, throughput, memory and size of the merged model.",
        ),
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(
            help="paper: show the paper's numbers beside the measured ones.", show_default=False
        ),
    ] = None,
    as_json: options.Json = False,
    out: Annotated[Path | None, typer.Option(help="File to write the JSON to as well.")] = None,
) -> None:
    """Measure speed, memory and parameters of recipes on this device, and decoding if requested.

    No weights or data are needed. Weights are random, with the backbone's shapes. If the task's
    data are not on this machine, the batches have the task's typical lengths.
    """
    from rich.console import Console

    import harness
    from harness.errors import HarnessError

    if compare not in (None, "paper"):
        raise HarnessError(f"--compare {compare!r} is unknown.", "Write --compare paper")
    console = Console(stderr=True, highlight=False)
    with console.status("starting") as status:
        measured = harness.profile(
            backbone,
            compressor,
            task,
            task_options=options.given(
                source_column=source_column,
                target_column=target_column,
                id_column=id_column,
                encoding=encoding,
                delimiter=delimiter,
            ),
            data=data,
            source_tokens=source_tokens,
            target_tokens=target_tokens,
            device=device,
            settings={
                "train.batch_size": batch_size,
                "train.accumulation": accumulation,
                "train.precision": precision,
                "probe.steps": steps,
                "probe.rounds": repeats,
            },
            inference=inference,
            on_progress=status.update,
        )
    if compare:
        from harness.reporting.paper_comparison import compare_with_paper

        measured.paper = compare_with_paper(measured)
    text = measured.model_dump_json(indent=2)
    if out is not None:
        from harness.records.atomic import write_text

        write_text(out, text + "\n")
    if as_json:
        typer.echo(text)
        return
    from harness.reporting.profile_table import profile_tables

    for table in profile_tables(measured):
        Console(highlight=False).print(table)
