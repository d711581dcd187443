"""``harness recommend``: names the recipe to use, and why the others were not chosen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli import options
from harness.cli.loading import load, summarize
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.reporting.recommendation import Recommendation, Verdict

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def recommend(
    results: options.Results = Path("results"),
    min_quality: Annotated[
        str, typer.Option(help="Smallest share of full fine-tuning's quality to keep.")
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
    metric: Annotated[
        str | None,
        typer.Option(help="Metric that measures quality.", show_default="the first, as rouge1"),
    ] = None,
    by: Annotated[
        Literal["speed", "memory", "parameters"],
        typer.Option(
            help="Cheapest means fastest, least peak memory, or fewest trained parameters."
        ),
    ] = "speed",
    as_json: options.Json = False,
) -> None:
    """Name the cheapest recipe that keeps enough of full fine-tuning's quality.

    The lower bound of the 95 % interval of the quality kept must reach --min-quality. The exit
    status is 1 if no recipe reaches it on any backbone and task.
    """
    from harness.reporting import recommendation

    quality = _ratio(min_quality, "--min-quality")
    memory = _bytes(max_memory) if max_memory is not None else None
    speed = _ratio(min_speed, "--min-speed") if min_speed is not None else None
    summary = summarize(load(results), metric)
    if not summary.metrics:
        raise HarnessError(f"No run in {str(results)!r} has been scored.", "See: harness report")
    needs = recommendation.Needs(
        metric=summary.metrics[0],
        min_quality=quality,
        max_memory_bytes=memory,
        min_speed=speed,
        by=by,
    )
    made = [recommendation.recommend(group, needs) for group in summary.groups]
    if as_json:
        from pydantic import TypeAdapter

        typer.echo(
            TypeAdapter(list[recommendation.Recommendation]).dump_json(made, indent=2).decode()
        )
    else:
        for one in made:
            typer.echo("\n".join(_lines(one)) + "\n")
    if not any(one.chosen for one in made):
        raise typer.Exit(1)


def _lines(made: Recommendation) -> Iterator[str]:
    from harness.reporting.text_columns import printable

    where = printable(f"{made.backbone} on {made.task}")
    for verdict in made.verdicts:
        name = printable(verdict.recipe)
        if verdict.recipe == made.chosen:
            yield f"{where}: {typer.style(name, bold=True)}"
            yield f"  {_facts(verdict)}"
        else:
            if verdict is made.verdicts[0]:
                yield f"{where}: {typer.style('no recipe is good enough', fg='red')}"
            yield f"{name}: {printable('; '.join(verdict.reasons))}."
    yield from (typer.style(printable(note), dim=True) for note in made.notes)


def _facts(verdict: Verdict) -> str:
    from harness.reporting.wording import bounds, count, memory, percent

    share = verdict.retention
    kept = (
        f"keeps {percent(share.value, 1)} ({bounds(share, 100, 1)})"
        if share
        else "is no worse than full fine-tuning"
    )
    return (
        f"{kept}, trains at "
        f"{percent(verdict.speed)}, takes {memory(verdict.memory_bytes, 'GiB')} GiB, trains "
        f"{count(verdict.trainable)} parameters"
    )


def _ratio(text: str, option: str) -> float:
    """Read ``95%`` or ``0.95``."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    if not found:
        raise HarnessError(
            f"{option} {text!r} is not a share.", f"Write, for example: {option} 95%"
        )
    number = float(found[1])
    if not found[2] and number > 10:
        raise HarnessError(
            f"{option} {text} would be {number:g} times full fine-tuning.",
            f"Write {option} {number:g}%",
        )
    return number / 100 if found[2] else number


def _bytes(text: str) -> int:
    """Read ``16GiB``, ``16 GB`` or a number of bytes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not found or found[2].lower() not in _BYTES:
        raise HarnessError(
            f"--max-memory {text!r} is not a size.", "Write, for example: --max-memory 16GiB"
        )
    return round(float(found[1]) * _BYTES[found[2].lower()])
