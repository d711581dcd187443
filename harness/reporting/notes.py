"""Notes below a table: each is one sentence that a reader of the numbers must know."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from harness.records.data_notes import data_shares
from harness.records.measurements import Fingerprint
from harness.reporting.cost_breakdown import allocation_retries
from harness.reporting.inference_row import inference_legend, inference_notes
from harness.reporting.members import Members
from harness.reporting.process_row import process_legend, process_notes
from harness.reporting.summary import Group, RecipeRow, Summary
from harness.reporting.wording import (
    LEAD_BASELINE,
    LESS_IS_BETTER,
    heading,
    meanings,
    not_measured,
    spoken,
)

_NAMED = 3
"""Number of runs that a note names."""
_WIDE = 1.5
"""Ratio of a speed's upper to its lower bound above which a note calls the interval wide."""


def notes(group: Group, members: Members) -> Iterator[str]:
    """Yield the notes on a group of recipes.

    Args:
        group: the group, complete but for its notes.
        members: the runs of the group.
    """
    good = [row for row in group.rows if row.status == "ok"]
    parents = sorted({run.name.rpartition("/")[0] for run in members.runs})
    if any(parents):
        yield f"The runs lie in {' and '.join(parent or '.' for parent in parents)}."
    if group.noise_floor:
        noise = f"{100 * (group.noise_floor - 1):.0f} %"
        yield (
            f"A difference of speed below {noise} is noise, as full fine-tuning differed from "
            f"itself by up to {noise}."
        )
    yield from _intervals(good)
    recipes = [row for row in good if row.recipe != group.baseline]
    if recipes and len(recipes) == len(good):
        yield (
            f"Quality is not compared, as there is no good run of {spoken(group.baseline)} with "
            f"these settings; repeat the same command with --compressor {group.baseline}."
        )
    yield from _lead_baseline(recipes)
    yield from _not_measured(good)
    yield from inference_notes(group)
    yield from process_notes(group)
    yield from _wide_speeds(good)
    for run in members.runs:
        if retries := allocation_retries(run.report.memory):
            yield f"{run.report.recipe}, seed {run.report.seed}: {retries}."
    yield from _not_compared(group.rows)
    for row in group.rows:
        yield from _of_row(row)
    if len(group.test_examples) > 1:
        numbers = _listed(group.test_examples)
        yield f"The runs were tested on different numbers of examples: {numbers}."
    if len(group.fingerprints) > 1:
        different = "; ".join(differences(group.fingerprints))
        yield (
            "Speed and memory are not comparable between the runs, and there is no Pareto front, "
            f"as the runs differ in {different}."
        )
    yield from _unreadable(run.report.not_computed for run in members.runs)
    yield from data_shares(run.report.data for run in members.runs if run.report.data)
    trained = [run.report.training for run in members.runs if run.report.training]
    yield from dict.fromkeys(note for training in trained for note in training.notes)
    yield from _left_out([run.name or run.report.id for run in members.older])


def _intervals(rows: Sequence[RecipeRow]) -> Iterator[str]:
    """Yield what the 95 % intervals of the rows cover."""
    if any(len(row.seeds) > 1 for row in rows):
        yield "Intervals (95 %) cover seeds and the sampling of test examples."
    if any(len(row.seeds) == 1 for row in rows):
        who = "One seed" if all(len(row.seeds) == 1 for row in rows) else "A row of one seed"
        yield (
            f"{who}: the intervals (95 %) cover the sampling of test examples only, not the spread "
            "between seeds; harness sweep --seeds 3 covers both."
        )


def _not_compared(rows: Sequence[RecipeRow]) -> Iterator[str]:
    """Yield why quality is not compared, once for all recipes that share the reason."""
    recipes = defaultdict(list)
    for row in rows:
        if row.not_compared:
            recipes[row.not_compared].append(row.recipe)
    for reason, names in recipes.items():
        yield f"{_listed(names)}: {reason}."


def _of_row(row: RecipeRow) -> Iterator[str]:
    """Yield the notes on one recipe."""
    if max(row.processes, default=1) > 1:
        yield (
            f"{row.recipe} was trained in {_listed(row.processes)} processes; speed and memory "
            "are those of one process."
        )
    for metric, reason in row.missing.items():
        yield f"{row.recipe}, {metric}: {reason}."
    for seed, how in row.failures.items():
        yield f"{row.recipe}, seed {seed}: {how}."


def _left_out(names: Sequence[str]) -> Iterator[str]:
    """Yield the number of runs that a later or better run replaces, and some of their names."""
    if names:
        were = "run was" if len(names) == 1 else "runs were"
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield (
            f"{len(names)} {were} left out for a later or better one of the same recipe and seed: "
            f"{_listed(sorted(names)[:_NAMED])}{more}."
        )


def _lead_baseline(rows: Sequence[RecipeRow]) -> Iterator[str]:
    """Yield the scores of the lead baseline, and why shares above it are missing."""
    scores: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for name, quality in row.quality.items():
            if quality.floor is not None:
                scores[heading(name)].add(f"{quality.floor:.2f}")
    if scores:
        values = (f"{name} {' or '.join(sorted(texts))}" for name, texts in scores.items())
        yield (
            f"{LEAD_BASELINE} is the lead baseline, which needs no training: it copies the first "
            f"words of the source, as many as the reference has, and scores {', '.join(values)}."
        )
    shares = {row.recipe: {heading(n): why for n, why in row.no_share.items()} for row in rows}
    for sentence in not_measured(shares):
        yield f"Quality kept: {sentence[0].lower()}{sentence[1:]}."
    lacking = {row.recipe: {heading(n): why for n, why in row.no_floor.items()} for row in rows}
    for sentence in not_measured(lacking):
        yield f"Above {LEAD_BASELINE}: {sentence[0].lower()}{sentence[1:]}."


def _not_measured(rows: Sequence[RecipeRow]) -> Iterator[str]:
    """Yield why a relative speed or memory is missing."""
    names = {"speed": "relative speed", "memory_relative": "relative memory"}
    lacking = {
        row.recipe: {names[name]: why for name, why in row.not_measured.items() if name in names}
        for row in rows
    }
    for sentence in not_measured(lacking):
        yield f"{sentence}."


def _unreadable(not_computed: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Yield the scores that are missing because a metric's options do not suit the texts."""
    scores: dict[str, dict[str, None]] = {}
    for missing in not_computed:
        for name, reason in missing.items():
            if "--metrics" in reason:
                scores.setdefault(reason, {})[name] = None
    for reason, names in scores.items():
        yield f"Not computed: {', '.join(names)}. {reason}."


def _wide_speeds(rows: Sequence[RecipeRow]) -> Iterator[str]:
    """Yield the recipes whose two runs disagree in speed."""
    wide = [
        row.recipe
        for row in rows
        if row.speed
        and row.speed.seeds == 2
        and (row.speed.high or 0) > _WIDE * (row.speed.low or 0)
    ]
    if wide:
        yield (
            f"Speed of {_listed(wide)}: the interval is wide, as two runs disagree; a third run "
            "makes it about a third as wide: harness sweep --seeds 3."
        )


def differences(fingerprints: Sequence[Fingerprint]) -> Iterator[str]:
    """Yield each field in which fingerprints differ, with its values."""
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
                versions = {value.get(package, "none") for value in values}
                if len(versions) > 1:
                    yield f"{package} ({_listed(sorted(versions))})"
        else:
            yield f"{name} ({_listed(values)})"


def legend(summary: Summary, metrics: Collection[str] | None = None) -> Iterator[str]:
    """Yield the sentences that explain the columns and marks of all tables.

    Args:
        summary: the summary that the tables show.
        metrics: names of the metrics that have a column; by default all of the summary.
    """
    rows = [row for group in summary.groups for row in group.rows]
    if any(row.quality for row in rows):
        yield from _columns(summary, summary.metrics if metrics is None else metrics)
    yield from inference_legend(summary.groups)
    yield from process_legend(summary.groups)
    if any(row.on_front for row in rows):
        decoding = any(group.front == "inference" for group in summary.groups)
        costs = "decoding speed, decoding memory" if decoding else "speed, memory"
        yield (
            f"•: on the Pareto front of {costs} and quality; values within the intervals, or "
            "within 1 % of memory, are ties."
        )
        yield (
            "The sentences above a table name the fastest recipe on its front and the one with the "
            "best quality, full fine-tuning aside."
        )
    if any(quality.significant for row in rows for quality in row.quality.values()):
        yield f"*: differs from {_baseline(summary)} (paired, p < 0.05 after Holm's correction)."


def _baseline(summary: Summary) -> str:
    return spoken(summary.groups[0].baseline)


def _columns(summary: Summary, metrics: Collection[str]) -> Iterator[str]:
    """Yield the sentences on the columns."""
    qualities = [q for group in summary.groups for row in group.rows for q in row.quality.values()]
    if any(not quality.higher_is_better for quality in qualities):
        yield (
            f"{LESS_IS_BETTER}: less is better; quality kept is then {_baseline(summary)}'s value "
            "over the recipe's, so that more than 100 % is better."
        )
    yield "speed: training speed, relative to full fine-tuning on the same batches."
    yield "trained: number of trained parameters, and their share of the original backbone's."
    units = dict.fromkeys(group.memory_unit for group in summary.groups)
    yield f"{', '.join(units)}: peak memory, and its share of full fine-tuning's."
    if explained := meanings(metrics):
        yield f"{explained}; in percent."


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
