"""What a reader of a summary must know, in sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.records.data_notes import data_shares
from harness.records.measurements import Fingerprint
from harness.records.run_folder import SPEC
from harness.reporting.cost_breakdown import allocation_retries
from harness.reporting.members import Members
from harness.reporting.summary import Group, RecipeRow, Summary
from harness.reporting.wording import LESS_IS_BETTER, heading, meanings, not_measured
from harness.spec.run_spec import BASELINE, VARIED, read_toml

_NAMED = 3
"""Runs that a note names."""
_WIDE = 1.5
"""Upper over lower bound of a speed beyond which its interval says little."""


def notes(group: Group, members: Members) -> Iterator[str]:
    """Yield the notes on a group of recipes.

    Args:
        group: all but its notes.
        members: its runs.
    """
    good = [row for row in group.rows if row.status == "ok"]
    parents = sorted({run.name.rpartition("/")[0] for run in members.runs})
    if any(parents):
        yield f"The runs lie in {' and '.join(parent or '.' for parent in parents)}."
    if group.noise_floor:
        yield (
            "speed: full fine-tuning on the same batches is 100 %. Measured against itself it "
            f"differed by {100 * (group.noise_floor - 1):.0f} % at most: that is noise, and "
            "smaller differences of speed mean nothing."
        )
    if any(len(row.seeds) > 1 for row in good):
        yield "Intervals (95 %) cover seeds and the sampling of test examples."
    if any(len(row.seeds) == 1 for row in good):
        who = "One seed" if all(len(row.seeds) == 1 for row in good) else "A row of one seed"
        yield (
            f"{who}: the intervals (95 %) cover the sampling of test examples only, not the spread "
            "between seeds; harness sweep --seeds 3 covers both."
        )
    recipes = [row for row in good if row.recipe != BASELINE]
    if recipes and len(recipes) == len(good):
        yield (
            "How much of full fine-tuning's quality is kept is not known: there is no good run of "
            f"it with these settings. Repeat the same command with --compressor {BASELINE}."
        )
    yield from _floor(recipes)
    yield from _not_measured(good)
    yield from _wide_speeds(good)
    for run in members.runs:
        if retries := allocation_retries(run.report.memory):
            yield f"{run.report.recipe}, seed {run.report.seed}: {retries}."
    for row in group.rows:
        yield from _of_row(row)
    if len(group.test_examples) > 1:
        yield f"Runs were tested on unequal numbers of examples: {_listed(group.test_examples)}."
    if len(group.fingerprints) > 1:
        unlike = "; ".join(differences(group.fingerprints))
        yield (
            "The runs were not made on equal ground: compare speed and memory between them with "
            f"care, and there is no front. They differ in {unlike}."
        )
    yield from _unreadable(run.report.not_computed for run in members.runs)
    yield from data_shares(run.report.data for run in members.runs if run.report.data)
    trained = [run.report.training for run in members.runs if run.report.training]
    yield from dict.fromkeys(note for training in trained for note in training.notes)
    if older := members.older:
        were = "run was" if len(older) == 1 else "runs were"
        names = sorted(run.name or run.report.id for run in older)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield (
            f"{len(older)} {were} left out for a later or better one of the same recipe and seed: "
            f"{_listed(names[:_NAMED])}{more}."
        )


def _of_row(row: RecipeRow) -> Iterator[str]:
    if max(row.processes, default=1) > 1:
        yield (
            f"{row.recipe} was trained in {_listed(row.processes)} processes; speed and memory "
            "are those of one alone."
        )
    if row.not_compared:
        yield f"{row.recipe}: {row.not_compared}."
    for metric, reason in row.missing.items():
        yield f"{row.recipe}, {metric}: {reason}."
    for seed, how in row.failures.items():
        yield f"{row.recipe}, seed {seed}: {how}."


def _floor(rows: Sequence[RecipeRow]) -> Iterator[str]:
    floors: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for name, quality in row.quality.items():
            if quality.floor is not None:
                floors[heading(name)].add(f"{quality.floor:.2f}")
    if floors:
        values = (f"{name} {' or '.join(sorted(found))}" for name, found in floors.items())
        yield (
            "The floor is what needs no training: the first words of the source, as many as the "
            f"reference has. It scores {', '.join(values)}."
        )
    shares = {row.recipe: {heading(n): why for n, why in row.no_share.items()} for row in rows}
    for sentence in not_measured(shares):
        yield f"Quality kept: {sentence[0].lower()}{sentence[1:]}."
    lacking = {row.recipe: {heading(n): why for n, why in row.no_floor.items()} for row in rows}
    for sentence in not_measured(lacking):
        yield f"Above the floor: {sentence[0].lower()}{sentence[1:]}."


def _not_measured(rows: Sequence[RecipeRow]) -> Iterator[str]:
    names = {"speed": "relative speed", "memory_relative": "relative memory"}
    lacking = {
        row.recipe: {names[name]: why for name, why in row.not_measured.items()} for row in rows
    }
    for sentence in not_measured(lacking):
        yield f"{sentence}."


def _unreadable(not_computed: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Yield which scores are missing as the metric's options do not suit the texts."""
    scores: dict[str, dict[str, None]] = {}
    for missing in not_computed:
        for name, reason in missing.items():
            if "--metrics" in reason:
                scores.setdefault(reason, {})[name] = None
    for reason, names in scores.items():
        yield f"Not computed: {', '.join(names)}. {reason}."


def _wide_speeds(rows: Sequence[RecipeRow]) -> Iterator[str]:
    wide = [
        row.recipe
        for row in rows
        if row.speed
        and row.speed.seeds == 2
        and (row.speed.high or 0) > _WIDE * (row.speed.low or 0)
    ]
    if wide:
        yield (
            f"Speed of {_listed(wide)}: two runs that disagree leave a wide interval; with a third "
            "it is about a third as wide: harness sweep --seeds 3."
        )


def differences(fingerprints: Sequence[Fingerprint]) -> Iterator[str]:
    """Yield what fingerprints differ in, with the values."""
    for name in Fingerprint.model_fields:
        values = []
        for fingerprint in fingerprints:
            value = getattr(fingerprint, name)
            if value not in values:
                values.append(value)
        if len(values) == 1:
            continue
        if name == "versions":
            packages = {package for value in values for package in value}
            for package in sorted(packages):
                found = {value.get(package, "none") for value in values}
                if len(found) > 1:
                    yield f"{package} ({_listed(sorted(found))})"
        else:
            yield f"{name} ({_listed(values)})"


def unlike_settings(one: Path, other: Path) -> str:
    """Say in what the stored settings of two runs differ; nothing if that cannot be read."""
    try:
        before, after = (_flat(read_toml(folder / SPEC)) for folder in (one, other))
    except HarnessError:
        return ""
    unlike = [
        f"{key} {before.get(key, 'unset')} there, {after.get(key, 'unset')} here"
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key) and key.partition(".")[0] not in VARIED
    ]
    return f" ({'; '.join(unlike)})" if unlike else ""


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def legend(summary: Summary, metrics: Collection[str] | None = None) -> Iterator[str]:
    """Yield how to read the marks and columns.

    Args:
        summary: what is shown.
        metrics: those that have a column; all of the summary's by default.
    """
    rows = [row for group in summary.groups for row in group.rows]
    if any(row.quality for row in rows):
        if any(not quality.higher_is_better for row in rows for quality in row.quality.values()):
            yield (
                f"{LESS_IS_BETTER} less is better; what is kept is then full fine-tuning's value "
                "over the recipe's: more than 100 % is better."
            )
        if columns := meanings(summary.metrics if metrics is None else metrics):
            yield f"{columns}; in percent."
        units = dict.fromkeys(group.memory_unit for group in summary.groups)
        yield (
            "trained: parameters, and their share of the original backbone's. "
            f"{', '.join(units)}: peak memory, and its share of full fine-tuning's."
        )
    if any(row.on_front for row in rows):
        yield (
            "• on the Pareto front of speed, memory and quality; what lies within the intervals, "
            "or within 1 % of memory, is tied."
        )
    if any(quality.significant for row in rows for quality in row.quality.values()):
        yield "* differs from full fine-tuning (paired, p < 0.05 after Holm)."


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
