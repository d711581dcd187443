"""``harness plan``: computes the costs of recipes from shapes, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options
from harness.costs.data_choice import DataChoice

if TYPE_CHECKING:
    from harness.costs.plan import Plan
    from harness.records.profile import ParallelEstimate


def plan(
    backbone: options.OneBackbone,
    compressor: options.ManyRecipes,
    task: Annotated[
        str | None,
        typer.Option(help="Task whose batches are planned for.", show_default="512 and 128 tokens"),
    ] = None,
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
    plugin: options.PluginFiles = None,
    device: options.Device = "auto",
    tasks: Annotated[
        int, typer.Option(min=1, help="Number of tasks that share the backbone's storage.")
    ] = 4,
    nproc: Annotated[
        int, typer.Option(min=1, help="Processes that train together, each on its own device.")
    ] = 1,
    device_memory: Annotated[
        float, typer.Option(min=1, help="With --nproc: memory of such a device, in GB.")
    ] = 80,
    parallel: Annotated[
        str, typer.Option(help="With --nproc: ddp or fsdp, or auto, by the memory of a device.")
    ] = "auto",
    as_json: options.Json = False,
) -> None:
    """Compute layers, parameters, FLOP limit of speed, memory and storage of recipes from shapes.

    Nothing is trained, and neither weights nor a network are needed.

    Example: harness plan --backbone t5-large --compressor lora_ff+lprun
    """
    import harness

    plans = harness.plan(
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
        tasks=tasks,
        device=device,
        settings={
            "train.batch_size": batch_size,
            "train.accumulation": accumulation,
            "train.precision": precision,
            "train.parallel": parallel,
        },
        processes=nproc,
        device_gb=device_memory,
    )
    if as_json:
        records = [recipe_plan.model_dump() for recipe_plan in plans]
        typer.echo(json.dumps(records[0] if len(records) == 1 else records, indent=2))
        return
    _print(plans)


def _print(plans: list[Plan]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from harness.records.measurements import MemoryParts

    first = plans[0]
    table = Table(title=f"{first.backbone}: {first.parameters.original:,} parameters", box=None)
    table.title_justify = table.caption_justify = "left"
    table.add_column(no_wrap=True)
    for recipe_plan in plans:
        table.add_column(recipe_plan.recipe, justify="right", overflow="fold")
    rows: dict[str, Callable[[Plan], str]] = {
        "encoder layers kept": lambda p: _ranges(p.layers_kept.encoder),
        "decoder layers kept": lambda p: _ranges(p.layers_kept.decoder),
        "total parameters": lambda p: f"{p.parameters.total:,}",
        "trainable parameters": lambda p: f"{p.parameters.trainable:,}",
        "% of the original": lambda p: f"{p.parameters.trainable_pct_of_original:.2f}",
        "FLOP limit of speed": lambda p: f"{p.flop_limit_relative_speed:.2f}x",
        "estimated peak memory": lambda p: _size(p.memory.peak_bytes) if p.memory else "-",
        **{f"  {part}": _part(part) for part in MemoryParts.model_fields},
        "  process": lambda p: (
            _size(p.memory.process_bytes) if p.memory and p.memory.process_bytes else "-"
        ),
        **(_parallel_rows(first) if first.parallel else {}),
        "stored once": lambda p: _size(p.storage.base_bytes),
        "stored for each task": lambda p: _size(p.storage.bytes_per_task),
        f"stored for {first.storage.tasks} tasks": lambda p: _size(p.storage.total_bytes),
    }
    for label, cell in rows.items():
        table.add_row(label, *(cell(recipe_plan) for recipe_plan in plans))
    table.caption = (
        f"FLOP limit: relative to full fine-tuning, {first.source_tokens} source and "
        f"{first.target_tokens} target tokens."
    )
    memory = next((recipe_plan.memory for recipe_plan in plans if recipe_plan.memory), None)
    if memory:
        table.caption += (
            f"\nMemory: training in {memory.dtype}, {memory.engine} batches of "
            f"{memory.batch_size}; the longest step has {memory.source_tokens:,} source and "
            f"{memory.target_tokens:,} target tokens."
        )
    for recipe_plan in plans:
        if parallel := recipe_plan.parallel:
            table.caption += f"\n{recipe_plan.recipe}: {parallel.parallel}, since {parallel.why}."
    if first.batches:
        reason = f" ({first.why_no_data})" if first.why_no_data else ""
        table.caption += f"\nBatches: {first.batches}{reason}."
    for note in first.data_notes:
        table.caption += f"\n{escape(note)}"
    for recipe_plan in plans:
        if unknown := recipe_plan.memory_unknown:
            table.caption += f"\nMemory of {recipe_plan.recipe} is unknown: {unknown}"
    Console(highlight=False).print(table)


def _parallel_rows(first: Plan) -> dict[str, Callable[[Plan], str]]:
    """Return the rows on several processes: label -> cell."""
    from harness.records.measurements import MemoryParts

    assert first.parallel

    def of(cell: Callable[[ParallelEstimate], str]) -> Callable[[Plan], str]:
        return lambda p: cell(p.parallel) if p.parallel else "-"

    def part(name: str) -> Callable[[Plan], str]:
        return of(lambda e: _size(getattr(e.parts, name)))

    gb = f"{first.parallel.device_bytes / 1e9:g}"
    return {
        f"{first.parallel.processes} processes": of(lambda e: e.parallel),
        "tensors of each": of(lambda e: _size(e.tensor_bytes)),
        **{f"  {name} ": part(name) for name in MemoryParts.model_fields},
        "  gathered at once": of(lambda e: _size(e.gathered_bytes)),
        "  held: weights": of(lambda e: _size(e.held.weights)),
        "  held: gradients": of(lambda e: _size(e.held.gradients)),
        "  held: optimizer": of(lambda e: _size(e.held.optimizer)),
        "sent by each in a step": of(lambda e: _size(e.sent_bytes)),
        f"devices of {gb} GB needed": of(
            lambda e: "more than 1,024" if e.devices_needed is None else f"{e.devices_needed}"
        ),
    }


def _part(name: str) -> Callable[[Plan], str]:
    return lambda p: _size(getattr(p.memory.parts, name)) if p.memory else "-"


def _ranges(numbers: list[int]) -> str:
    """Write 1 2 3 5 7 as ``1-3 5 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return " ".join(f"{r[0]}-{r[-1]}" if len(r) > 2 else " ".join(map(str, r)) for r in runs)


def _size(count: int) -> str:
    gib = count / 2**30
    return f"{gib:.2f} GiB" if gib >= 1 else f"{count / 2**20:.1f} MiB"
