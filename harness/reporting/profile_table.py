"""The tables of ``harness profile``: the costs of recipes and their parts."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from harness.records.inference import Inference
from harness.records.measurements import MemoryParts, TimeParts
from harness.records.profile import PaperComparison, Profile, ProfiledRecipe
from harness.reporting.cost_breakdown import allocation_retries
from harness.reporting.paper import paper_device
from harness.reporting.wording import not_measured, percent, span

_MIB = 2**20


def profile_tables(profile: Profile) -> list[Table]:
    """Lay out each recipe's costs, their parts, decoding, and the paper's numbers."""
    energy = any(_joules(row) is not None for row in profile.recipes)
    costs = _table(
        f"{profile.backbone} on {profile.fingerprint.device}, {profile.fingerprint.dtype}",
        "speed 95_%_CI limit share trained GiB of_full plan" + (" J/ktok" if energy else ""),
    )
    parts = _table(
        "where a step's time and memory go",
        "data forw. back. opt. | weights grads opt. activ. logits other",
    )
    for row in profile.recipes:
        cells = list(_cost_cells(row))
        if energy and row.status == "ok":
            cells.append(_number(_joules(row), "{:.3g}"))
        costs.add_row(row.recipe, *cells)
        parts.add_row(row.recipe, *_part_cells(row))
    noise = [r.speed.noise_floor for r in profile.recipes if r.speed and r.speed.noise_floor]
    notes = [
        f"Batches of {profile.batch_size} x {profile.accumulation}, {profile.batches}: "
        f"{profile.mean_source_tokens:.0f} source and {profile.mean_target_tokens:.0f} target "
        "tokens on average.",
        "limit: the speed if only matrix products took time; share: the part of it reached.",
        "GiB: peak memory; plan: the estimate from shapes for these batches.",
        *profile.data_notes,
    ]
    if noise:
        notes.append(
            f"Full fine-tuning differed from itself in speed by up to {100 * (max(noise) - 1):.1f} "
            "%: a smaller difference is noise."
        )
    if energy:
        notes.append("J/ktok: joules per 1000 tokens, above idle power.")
    notes += [f"{line}." for line in not_measured({r.recipe: _lacks(r) for r in profile.recipes})]
    for row in profile.recipes:
        if retries := allocation_retries(row.memory):
            notes.append(f"{row.recipe}: {retries}.")
    costs.caption = escape("\n".join(notes))
    parts.caption = (
        "time: % of a step; memory: MiB in tensors, at the peak of a step on the longest batch."
    )
    tables = [costs, parts]
    if any(row.inference for row in profile.recipes):
        tables.append(_inference_table(profile))
    if profile.paper is not None:
        tables.append(_paper_table(profile, profile.paper))
    return tables


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
        table.add_column(heading.replace("_", " "), justify="right", no_wrap=True)
    return table


def _cost_cells(row: ProfiledRecipe) -> Iterable[str]:
    if row.speed is None or row.memory is None or row.parameters is None:
        yield f"[red]{row.status}[/]"
        if row.memory_reached is not None:
            yield f"[red]at {row.memory_reached / 2**30:.2f} GiB[/]"
        return
    low, high = row.speed.relative_ci or (1.0, 1.0)
    significant = not low <= 1 <= high
    yield percent(row.speed.relative) if significant else f"[dim]{percent(row.speed.relative)}[/]"
    yield span(row.speed.relative_ci)
    yield percent(row.speed.flop_limit_relative)
    yield percent(row.speed.share_of_limit)
    yield f"{row.parameters.trainable:,}"
    yield f"{row.memory.peak_bytes / 2**30:.2f}"
    yield percent(row.memory.relative)
    yield f"{row.predicted_memory.peak_bytes / 2**30:.2f}" if row.predicted_memory else "-"


def _joules(row: ProfiledRecipe) -> float | None:
    energy = row.speed.energy if row.speed else None
    return energy.joules_per_1000_tokens if energy else None


def _lacks(row: ProfiledRecipe) -> dict[str, str]:
    """Return the reason for each column without a number; a failed recipe shows its status."""
    if row.speed is None or row.memory is None:
        return {}
    speed, memory, energy = row.speed, row.memory, row.speed.energy
    reasons = {
        "speed": speed.not_measured.get("relative"),
        "limit": speed.not_measured.get("flop_limit_relative"),
        "share": speed.not_measured.get("share_of_limit"),
        "of full": memory.not_measured.get("relative"),
        "plan": row.not_measured.get("predicted_memory"),
        "energy": energy.not_measured.get("joules") if energy else None,
    }
    return {column: why for column, why in reasons.items() if why is not None}


def _inference_table(profile: Profile) -> Table:
    table = _table(
        "decoding with the merged model",
        "ms first later % 95_%_CI tok/s % 95_%_CI GiB % MB",
    )
    notes = []
    for row in profile.recipes:
        if row.inference:
            table.add_row(row.recipe, *_inference_cells(row.inference))
        else:
            table.add_row(row.recipe, "-")
            notes.append(f"{row.recipe}: {row.not_measured['inference']}.")
    first = next(row.inference for row in profile.recipes if row.inference)
    batch = f" at batch {first.throughput.batch_size}" if first.throughput else ""
    notes += [
        f"{first.beams} beams; every text gets {first.output_tokens} tokens.",
        "ms: median time of one text; first: to its first token; later: for each later token.",
        f"tok/s: output tokens per second{batch}; GiB: peak memory; MB: weights of the model.",
        "%: the column before it, or speed, relative to full fine-tuning.",
    ]
    floors = [r.inference.latency.noise_floor for r in profile.recipes if r.inference]
    if floor := max((floor for floor in floors if floor), default=0):
        notes.append(
            f"Full fine-tuning differed from itself in latency by up to {100 * (floor - 1):.1f} %."
        )
    lacking = {r.recipe: _lacks_inference(r.inference) for r in profile.recipes if r.inference}
    notes += [f"{line}." for line in not_measured(lacking)]
    table.caption = escape("\n".join(notes))
    return table


def _inference_cells(inference: Inference) -> Iterable[str]:
    latency, later, batch = inference.latency, inference.per_token, inference.throughput
    yield _milliseconds(latency.median_seconds)
    yield _milliseconds(inference.prefill.seconds)
    yield _milliseconds(later.seconds if later else None)
    yield _percent(latency.relative)
    yield span(latency.relative_ci)
    yield f"{batch.output_tokens_per_s:,.0f}" if batch else "-"
    yield _percent(batch.relative if batch else None)
    yield span(batch.relative_ci if batch else None)
    yield f"{inference.memory.peak_bytes / 2**30:.2f}"
    yield _percent(inference.memory.relative)
    yield f"{inference.size.model_bytes / 1e6:,.0f}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:,.3g}"


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.0f}"


def _lacks_inference(inference: Inference) -> dict[str, str]:
    reasons = {
        "speed of decoding": inference.latency.not_measured.get("relative"),
        "batch": inference.not_measured.get("throughput"),
        "per token": inference.not_measured.get("per_token"),
    }
    return {column: why for column, why in reasons.items() if why is not None}


def _part_cells(row: ProfiledRecipe) -> Iterable[str]:
    time = row.speed.parts if row.speed else None
    memory = row.memory.parts if row.memory else None
    if time is None or memory is None:
        yield f"[red]{row.status}[/]"
        return
    seconds = [getattr(time, part) for part in TimeParts.model_fields]
    for part in seconds:
        yield f"{100 * part / sum(seconds):.0f}"
    yield ""
    for name in MemoryParts.model_fields:
        yield f"{getattr(memory, name) / _MIB:,.0f}"


def _paper_table(profile: Profile, comparisons: list[PaperComparison]) -> Table:
    table = _table(
        "compared with the paper",
        "table speed paper trained paper GB paper",
    )
    for row in comparisons:
        if row.table is None:
            table.add_row(row.recipe, "[dim]not in the paper[/]")
            continue
        table.add_row(
            row.recipe,
            row.table,
            _number(row.own_speed_pct, "{:.0f} %"),
            _beside(row.own_speed_pct, row.paper_speed_pct, "{:.0f}", "{:+.0f}"),
            _number(row.own_trained_params, "{:,}"),
            _number(_millions(row.paper_trained_params), "{:.1f} M"),
            _number(row.own_mem_gb, "{:.2f}"),
            _beside(row.own_mem_gb, row.paper_mem_gb, "{:.2f}", "{:+.2f}"),
        )
    table.caption = (
        "In brackets: this profile's number minus the paper's. GB: 1e9 bytes.\n"
        f"The paper's device: {paper_device()}; this device: {profile.fingerprint.device}."
    )
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _millions(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def _beside(own: float | None, paper: float | None, form: str, signed: str) -> str:
    if own is None or paper is None:
        return _number(paper, form)
    return f"{form.format(paper)} ({signed.format(own - paper)})"
