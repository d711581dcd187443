"""Writes docs/study-cheaper.md from the finished cells of the second study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import harness
from harness.errors import HarnessError
from harness.records.atomic import write_text
from harness.reporting.summary import Group, Quality, RecipeRow
from harness.reporting.wording import bounds, count, heading, mark, memory, percent
from harness.spec.run_spec import BASELINE
from study.store import FAILURES, Store, training_code
from study.studies import CHEAP
from study.wording import edges, listed, mixed, share_of

METRIC = "rouge1"
PAGE = "study-cheaper.md"
ENOUGH = 0.97
"""Share of full fine-tuning's quality that the second question asks for."""
_HEAD = """# Cheaper recipes that may keep more

Zhu et al. train LoRA and drop every third layer (`lora_ff+lprun`). This page asks

1. whether another recipe has better quality at no less speed and no more memory, and
2. which recipe is the fastest whose quality is not shown to be below {enough} of full
   fine-tuning's.

`make study-cheaper` runs what is missing and writes this page; do not edit it. Every recipe,
`{cheap}` too, is tried with three learning rates (its documented one, 10 and 100 times that; the
lowest loss at the end of a shorter training wins), and has the same number of steps, the same seeds
and LoRA's default rank. The runs are in [results/study-cheaper](../results/study-cheaper), without
texts.
"""
_LEGEND = """
*kept*: {metric} relative to full fine-tuning. *difference*: {metric} minus that of `{cheap}`, on
the same seeds and test examples; *: p < 0.05 after Holm's correction for all recipes. Brackets:
95 % intervals over seeds and test examples. *speed*: of training, relative to full fine-tuning.
*memory*: peak of training, relative to full fine-tuning. ^: the highest of the three rates was the
best, so that a higher one may be better still.
"""


def write(folder: Path, docs: Path) -> None:
    """Write the page, of as many runs as have ended.

    Args:
        folder: holds a results folder for each task.
        docs: folder of the page.

    Raises:
        HarnessError: there are no finished cells.
    """
    places = sorted(path for path in folder.glob("[!.]*") if path.is_dir())
    sections = [text for place in places for text in _task(place)]
    if not sections:
        raise HarnessError(
            f"There are no finished runs in {str(folder)!r}.", "Make some: make study-cheaper"
        )
    head = _HEAD.format(enough=percent(ENOUGH), cheap=CHEAP)
    write_text(docs / PAGE, "".join([head, *sections]))


def _task(place: Path) -> Iterator[str]:
    """Yield the section of a task; nothing if no cell has ended."""
    try:
        reports = harness.load_reports(place)
        summary = reports.summarize([METRIC], baseline=CHEAP)
    except HarnessError:
        return
    against = max(summary.groups, key=lambda group: len(group.rows))
    full = max(reports.summarize([METRIC]).groups, key=lambda group: len(group.rows))
    store = Store(place, training_code())
    runs = {run.report.id: run.report for run in reports}
    cells = [runs[run] for row in full.rows for run in row.runs]
    steps = max((report.training.steps for report in cells if report.training), default=0)
    seeds = max(len(row.seeds) for row in full.rows)
    tested = max(full.test_examples, default=0)
    yield (
        f"\n## {full.task}\n\n{len(full.rows)} recipes, up to {seeds} seeds of {steps} steps of "
        f"two examples, {len(cells)} runs, {tested} test examples each.\n"
    )
    yield mixed(store, full)
    yield "\n"
    yield from (f"- {sentence}\n" for sentence in findings(against, full))
    yield "\n"
    rates = {
        row.recipe: training.learning_rate
        for row in full.rows
        if row.runs and (training := runs[row.runs[0]].training)
    }
    yield from _table(against, full, rates, edges(store))
    yield _LEGEND.format(metric=heading(METRIC), cheap=CHEAP)
    for recipe, reason in sorted(store.read(FAILURES).items()):
        yield f"\n`{recipe}` has no result: {reason}\n"


def findings(against: Group, full: Group) -> Iterator[str]:
    """Yield the answers to the two questions of the page.

    Args:
        against: the recipes compared with the paper's cheapest.
        full: the same recipes compared with full fine-tuning.
    """
    metric = heading(METRIC)
    cheap = _row(against, CHEAP)
    if cheap is None or METRIC not in cheap.quality:
        yield f"`{CHEAP}` has no run yet."
        return
    rows = [row for row in against.rows if METRIC in row.quality]
    better = [row for row in rows if _differs(row) > 0]
    worse = [row for row in rows if _differs(row) < 0]
    others = len(rows) - 1 - len(better) - len(worse)
    as_cheap = [row for row in better if row.recipe != BASELINE and is_as_cheap(row, cheap)]
    yield (
        f"Shown to have a higher {metric} than `{CHEAP}`: {_names(better)}; a lower one: "
        f"{_names(worse)}. Of {others} others no difference was shown."
    )
    if cheap.speed and cheap.memory_relative:
        yield (
            f"At no less measured speed and no more memory: {_names(as_cheap)}. A speed counts as "
            "no less if its interval reaches that of the other, a memory as no more within 1 %."
        )
    else:
        yield "Speed and memory were not measured yet (`make study-cheaper-costs`)."
    shares = {row.recipe: row.quality[METRIC].retention for row in full.rows if row.quality}
    enough = [
        row
        for row in full.rows
        if (share := shares.get(row.recipe)) and (share.high or share.value) >= ENOUGH and row.speed
    ]
    if enough:
        fastest = max(enough, key=lambda row: row.speed.value if row.speed else 0)
        share, speed = shares[fastest.recipe], fastest.speed
        yield (
            f"The fastest whose {metric} is not shown to be below {percent(ENOUGH)} of full "
            f"fine-tuning's: `{fastest.recipe}`, which keeps {share_of(share) if share else ''} "
            f"at {percent(speed.value if speed else None)} of its speed."
        )


def is_as_cheap(row: RecipeRow, other: RecipeRow) -> bool:
    """Return whether a recipe was measured to be no slower and to need no more memory."""
    if not (row.speed and other.speed and row.memory_relative and other.memory_relative):
        return False
    high = row.speed.value if row.speed.high is None else row.speed.high
    low = other.speed.value if other.speed.low is None else other.speed.low
    return high >= low and row.memory_relative <= 1.01 * other.memory_relative


def _table(
    against: Group, full: Group, rates: dict[str, float], highest: dict[str, str]
) -> Iterator[str]:
    metric = heading(METRIC)
    yield f"| recipe | {metric} | kept | difference | rate | trained | speed | memory | GiB |\n"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    rows = [row for row in full.rows if METRIC in row.quality]
    for row in sorted(rows, key=lambda row: -row.quality[METRIC].value.value):
        quality, other = row.quality[METRIC], _row(against, row.recipe)
        rate = rates.get(row.recipe)
        edge = "^" * (rate is not None and f"{rate:.3g}" == highest.get(row.recipe))
        cells = [
            f"`{row.recipe}`",
            f"{quality.value.value:.2f}",
            share_of(quality.retention) if quality.retention else "",
            _difference(other.quality[METRIC]) if other else "",
            "" if rate is None else f"{rate:.3g}{edge}",
            count(row.trainable),
            percent(row.speed.value) if row.speed else "",
            percent(row.memory_relative) if row.memory_relative else "",
            memory(row.memory_bytes, full.memory_unit) if row.memory_bytes else "",
        ]
        yield f"| {' | '.join(cells)} |\n"


def _row(group: Group, recipe: str) -> RecipeRow | None:
    return next((row for row in group.rows if row.recipe == recipe), None)


def _difference(quality: Quality) -> str:
    """Write the difference from the baseline with its interval; empty if there is none."""
    difference = quality.difference
    if difference is None:
        return ""
    # Adding zero turns -0 into +0.
    value = round(difference.value, 2) + 0.0
    return f"{value:+.2f}{mark(quality)} ({bounds(difference, 1, 1)})"


def _differs(row: RecipeRow) -> float:
    """Return the difference from the baseline if it is significant, else 0."""
    quality = row.quality[METRIC]
    return quality.difference.value if quality.significant and quality.difference else 0


def _names(rows: list[RecipeRow]) -> str:
    return listed(row.recipe for row in rows) or "none"
