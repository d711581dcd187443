"""``harness profile``: what recipes cost on this device, before anything is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from harness.reporting.profile import Profile


def profile(
    backbone: Annotated[str, typer.Option(help="A name, a hub id or a folder.")] = "nano-t5",
    compressor: Annotated[
        str, typer.Option(help="Recipes, listed with commas.")
    ] = "full,lprun,lora_qv,lora_ff,lora_qv+lprun,lora_ff+lprun",
    task: Annotated[str, typer.Option(help="Whose lengths the batches have.")] = "radiology_demo",
    source_tokens: Annotated[
        int | None, typer.Option(min=2, help="Mean source length.", show_default="the task's")
    ] = None,
    target_tokens: Annotated[
        int | None, typer.Option(min=2, help="Mean target length.", show_default="the task's")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a batch.")] = 8,
    accumulation: Annotated[int, typer.Option(min=1, help="Batches in an optimizer step.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps in a timed window.")] = 8,
    repeats: Annotated[int, typer.Option(min=2, help="Rounds of windows: A B B A.")] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the JSON here.")] = None,
) -> None:
    """Measure speed, memory and parameters of recipes on this device.

    Needs neither weights nor data: weights are random, of the right shape, and batches are drawn
    from the task's typical lengths.
    """
    from rich.console import Console

    from harness.spec import resolve

    settings: dict[str, Any] = {
        "backbone": backbone,
        "task": task,
        "weights": "random",
        "device": device,
        "train": {
            "batch_size": batch_size,
            "accumulation": accumulation,
            "precision": precision,
        },
        "probe": {"steps": steps, "rounds": repeats},
    }
    spec = resolve(settings, "paper")
    console = Console(stderr=True, highlight=False)
    with console.status("starting") as status:
        made = _profile(spec, compressor, source_tokens, target_tokens, status.update)
    text = made.model_dump_json(indent=2)
    if out is not None:
        from harness.reporting.writing import write_text

        write_text(out, text + "\n")
    if as_json:
        typer.echo(text)
        return
    from harness.reporting.profile_table import profile_tables

    for table in profile_tables(made):
        Console(highlight=False).print(table)


def _profile(
    spec: Any, compressor: str, source_tokens: int | None, target_tokens: int | None, told: Any
) -> Profile:
    from harness.measurement.fingerprint import fingerprint
    from harness.measurement.probe import freeze
    from harness.measurement.profiling import profile_recipes
    from harness.measurement.synthetic import draw_examples
    from harness.options import validate
    from harness.plugins import installed
    from harness.recipe import parse, split_recipes
    from harness.reporting.profile import Profile
    from harness.task import LengthProfile
    from harness.training.schedule import Schedule
    from harness.training.trainee import choose_device, choose_dtype

    plugins = installed()
    recipes = [parse(text, plugins.compressors) for text in split_recipes(compressor)]
    backbone = plugins.backbones.find(spec.backbone).load()(spec.backbone)
    task_class = plugins.tasks.find(spec.task).load()
    options = validate(task_class.Options, spec.task_options, f"task {spec.task!r}")
    task = task_class(spec.task, options)
    lengths = LengthProfile(
        source_tokens or task.length_profile.source_mean,
        target_tokens or task.length_profile.target_mean,
    )
    probe, train = spec.probe, spec.train
    step_size = train.batch_size * train.accumulation
    examples = draw_examples(
        lengths,
        task.max_source_length,
        task.max_target_length,
        backbone.config().vocab_size,
        step_size * (probe.warmup_steps + probe.rounds * probe.steps),
        spec.seed,
    )
    frozen = freeze(Schedule(examples, train.batch_size, train.accumulation, spec.seed), probe)
    target = choose_device(spec.device)
    dtype = choose_dtype(train.precision, target, backbone)
    rows = profile_recipes(spec, backbone, recipes, frozen, told)
    engine = next((row.speed.engine for row in rows if row.speed), "none fitted")
    return Profile(
        backbone=backbone.name,
        task=task.name,
        batches="drawn from the task's length profile",
        batch_size=train.batch_size,
        accumulation=train.accumulation,
        mean_source_tokens=frozen.mean_source_tokens,
        mean_target_tokens=frozen.mean_target_tokens,
        fingerprint=fingerprint(target, dtype, engine),
        recipes=rows,
    )
