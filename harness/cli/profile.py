"""``harness profile``: measures recipes on this device, without downloading anything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import data_options
from harness.costs.data_choice import DataChoice

if TYPE_CHECKING:
    from harness.records.profile import Profile
    from harness.spec.run_spec import RunSpec


def profile(
    backbone: Annotated[str, typer.Option(help="Model: a name, a hub id or a folder.")] = "nano-t5",
    compressor: Annotated[
        str, typer.Option(help="Recipes, separated by commas.")
    ] = "full,lprun,lora_qv,lora_ff,lora_qv+lprun,lora_ff+lprun",
    task: Annotated[str, typer.Option(help="Task whose batches are measured.")] = "radiology_demo",
    source_column: data_options.SourceColumn = None,
    target_column: data_options.TargetColumn = None,
    id_column: data_options.IdColumn = None,
    encoding: data_options.Encoding = None,
    delimiter: data_options.Delimiter = None,
    data: Annotated[
        DataChoice,
        typer.Option(
            help="Texts of the batches. own: the task's data; lengths: random tokens of the task's "
            "typical lengths; auto: own if the data and the tokenizer are on this machine."
        ),
    ] = DataChoice.AUTO,
    source_tokens: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Mean source length in tokens; implies --data lengths.",
            show_default=False,
        ),
    ] = None,
    target_tokens: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Mean target length in tokens; implies --data lengths.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples per micro-batch.")] = 8,
    accumulation: Annotated[
        int, typer.Option(min=1, help="Gradient accumulation: micro-batches per optimizer step.")
    ] = 1,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            "--dtype",
            help="Precision of matrix products: auto, float32 or bfloat16.",
        ),
    ] = "auto",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps per timed window.")] = 8,
    repeats: Annotated[
        int,
        typer.Option(min=2, help="Rounds of four windows: full, recipe, recipe, full."),
    ] = 4,
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    compare: Annotated[
        str | None,
        typer.Option(
            help="paper: show the paper's numbers beside the measured ones.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="File to write the JSON to, too.")] = None,
) -> None:
    """Measure speed, memory and parameters of recipes on this device.

    Needs neither weights nor data. Weights are random, with the backbone's shapes. If the task's
    data are not on this machine, batches have the task's typical lengths.
    """
    from rich.console import Console

    from harness.costs.batches import profile_spec
    from harness.errors import HarnessError

    if compare not in (None, "paper"):
        raise HarnessError(f"--compare {compare!r} is unknown.", "Write --compare paper")
    options = data_options.given(
        source_column=source_column,
        target_column=target_column,
        id_column=id_column,
        encoding=encoding,
        delimiter=delimiter,
    )
    spec = profile_spec(
        backbone, task, device, batch_size, accumulation, precision, steps, repeats, options
    )
    console = Console(stderr=True, highlight=False)
    with console.status("starting") as status:
        made = _profile(spec, compressor, data, source_tokens, target_tokens, status.update)
    if compare:
        from harness.reporting.paper_comparison import add_paper_reference

        made.paper = add_paper_reference(made)
    text = made.model_dump_json(indent=2)
    if out is not None:
        from harness.records.atomic import write_text

        write_text(out, text + "\n")
    if as_json:
        typer.echo(text)
        return
    from harness.reporting.profile_table import profile_tables

    for table in profile_tables(made):
        Console(highlight=False).print(table)


def _profile(
    spec: RunSpec,
    compressor: str,
    data: DataChoice,
    source_tokens: int | None,
    target_tokens: int | None,
    on_progress: Callable[[str], None],
) -> Profile:
    from harness.api.parts import split_parts
    from harness.api.plugins import installed
    from harness.costs.batches import choose_batches
    from harness.costs.memory_estimate import process_bytes
    from harness.costs.profile import profile_recipes
    from harness.measurement.fingerprint import fingerprint, why_no_driver
    from harness.records.profile import Profile
    from harness.training.trainer import choose_device, choose_dtype

    plugins = installed()
    recipes = [plugins.recipe(text) for text in split_parts(compressor)]
    backbone = plugins.backbone(spec.backbone)
    task = plugins.task(spec.task, spec.task_options)
    device = choose_device(spec.device)
    dtype = choose_dtype(spec.train.precision, device, backbone)
    if device.type == "cpu":
        process_bytes()  # Before data are read: afterwards it would count them.
    on_progress("reading data")
    batches = choose_batches(spec, backbone, task, data, source_tokens, target_tokens)
    frozen = batches.frozen
    rows = profile_recipes(spec, backbone, recipes, frozen, on_progress)
    attentions = sorted({row.attention for row in rows if row.attention})
    made = fingerprint(device, dtype, ", ".join(attentions) or "no recipe fitted")
    return Profile(
        backbone=backbone.name,
        task=task.name,
        batches=batches.of,
        why_no_data=batches.why_no_data,
        batch_size=spec.train.batch_size,
        accumulation=spec.train.accumulation,
        mean_source_tokens=frozen.mean_source_tokens,
        mean_target_tokens=frozen.mean_target_tokens,
        fingerprint=made,
        recipes=rows,
        not_measured=why_no_driver(made),
    )
