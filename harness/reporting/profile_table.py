"""The tables of ``harness profile``: what recipes cost, and why."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from harness.reporting.profile import MemoryParts, Profile, ProfiledRecipe, TimeParts
from harness.reporting.wording import percent, span

_MIB = 2**20


def profile_tables(profile: Profile) -> list[Table]:
    """Lay out the paper's Speed, Trained Params and Mem columns, then where time and memory go."""
    costs = _table(
        f"{profile.backbone} on {profile.fingerprint.device}, {profile.fingerprint.dtype}",
        "speed 95 %-CI limit trained % peak-GiB of-full",
    )
    parts = _table(
        "where a step's time and memory go",
        "data forward backward optim. | weights grads optim. activ.",
    )
    for row in profile.recipes:
        costs.add_row(row.recipe, *_cost_cells(row))
        parts.add_row(row.recipe, *_part_cells(row))
    floors = [r.speed.noise_floor for r in profile.recipes if r.speed and r.speed.noise_floor]
    notes = [
        f"batches of {profile.batch_size} x {profile.accumulation}, {profile.batches}: "
        f"{profile.mean_source_tokens:.0f} source and {profile.mean_target_tokens:.0f} target "
        "tokens on average.",
        "limit: the speed if only matrix products took time.",
    ]
    if floors:
        notes.append(f"Full against full differed by {100 * (max(floors) - 1):.1f} % at most.")
    costs.caption = "\n".join(notes)
    parts.caption = "time: % of a step; memory: MiB, on the longest batch."
    return [costs, parts]


def _table(title: str, headings: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption_justify="left",
    )
    table.add_column("recipe", no_wrap=True)
    for heading in headings.split():
        table.add_column(heading.replace("-", " "), justify="right", no_wrap=True)
    return table


def _cost_cells(row: ProfiledRecipe) -> Iterable[str]:
    if row.speed is None or row.memory is None or row.parameters is None:
        yield f"[red]{row.status}[/]"
        return
    low, high = row.speed.relative_ci or (1.0, 1.0)
    significant = not low <= 1 <= high
    yield percent(row.speed.relative) if significant else f"[dim]{percent(row.speed.relative)}[/]"
    yield span(row.speed.relative_ci)
    yield percent(row.flop_limit_relative_speed)
    yield f"{row.parameters.trainable:,}"
    yield f"{row.parameters.trainable_pct_of_original:.2f}"
    yield f"{row.memory.peak_bytes / 2**30:.2f}"
    yield percent(row.memory.relative)


def _part_cells(row: ProfiledRecipe) -> Iterable[str]:
    if row.time_parts is None or row.memory_parts is None:
        yield f"[red]{row.status}[/]"
        return
    seconds = [getattr(row.time_parts, part) for part in TimeParts.model_fields]
    for part in seconds:
        yield f"{100 * part / sum(seconds):.0f}"
    yield ""
    for name in MemoryParts.model_fields:
        yield f"{getattr(row.memory_parts, name) / _MIB:,.0f}"
