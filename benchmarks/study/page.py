"""Writes docs/study.md and its chart from the finished cells."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import harness
from harness.records.atomic import write_text
from harness.records.report import Report
from harness.reporting.summary import Group, RecipeRow
from harness.reporting.wording import count, heading, mark, memory, percent
from harness.spec.run_spec import BASELINE
from study.chart import draw, front, kept
from study.size import FACTORS
from study.store import FAILURES, Store
from study.wording import edges, in_bytes, listed, mixed, share_of

METRIC = "rouge1"
PAGE, CHART = "study.md", "study.svg"
_HEAD = """# A study of all methods

Every method that `harness list compressors` names was trained on the embedded model and task, with
and without layer pruning. `make study` runs what is missing and writes this page; do not edit it.
The runs are in [results/study](../results/study), without texts.

{size}

Each method was given the learning rate, of {factors} times its documented one, with the
lowest loss at the end of a shorter training with seed 0, in which no example was seen twice.
Pruning keeps the rate.
"""
_LEGEND = """
*kept*: {metric} relative to full fine-tuning, paired on seeds and test examples, with a 95 %
interval over both. •: no other recipe keeps more with fewer trained parameters, where overlapping
intervals are ties. *: differs from full fine-tuning (p < 0.05 after Holm's correction for all
recipes). *file*: the trained weights on disk. ^: the highest of the three rates was the best, so
that a higher one may be better still.
"""
_LIMITS = """
## What it does not show

- **Other models and tasks.** The model is small, its texts are generated, and the training is far
  shorter than a real one. The order of methods that differ clearly is of interest; values are not.
- **Methods at their best.** Each has its default size and three learning rates. A method that needs
  a long training, such as adalora, or an input of its own, such as prompt, is at a disadvantage.
- **Differences within the intervals.** With three seeds most neighbours in the table are not told
  apart. *Not shown to differ* is not *equal*.
- **Your memory.** Speed and memory, where the table has them, are of this model on one CPU, where
  all recipes take about the same. For your model and card: `harness plan --backbone NAME
  --compressor RECIPES --device cuda` computes them, and `harness profile` measures them.
"""


def write(store: Store, docs: Path, planned: Sequence[tuple[str, int]]) -> None:
    """Write the page and the chart, of as many runs as have ended.

    Args:
        store: the results folder.
        docs: folder of the page.
        planned: recipe and seed of each run of the whole study.

    Raises:
        HarnessError: there are no finished cells.
    """
    reports = harness.load_reports(store.folder)
    summary = reports.summarize([METRIC])
    group = max(summary.groups, key=lambda group: len(group.rows))
    chart = draw(group.rows, METRIC, f"{heading(METRIC)} kept, % of full fine-tuning")
    if chart is not None:
        write_text(docs / CHART, chart + "\n")
    by_id = {run.report.id: run.report for run in reports}
    text = "".join(_page(store, group, by_id, planned, has_chart=chart is not None))
    write_text(docs / PAGE, text)


def _page(
    store: Store,
    group: Group,
    reports: Mapping[str, Report],
    planned: Sequence[tuple[str, int]],
    *,
    has_chart: bool,
) -> Iterator[str]:
    metric = heading(METRIC)
    factors = ", ".join(f"{factor:g}" for factor in FACTORS[:-1]) + f" and {FACTORS[-1]:g}"
    yield _HEAD.format(size=_size(group, reports), factors=factors)
    failures = store.read(FAILURES)
    yield _missing(group, planned, failures)
    yield mixed(store, group)
    if has_chart:
        yield f"\n![{metric} kept against trained parameters]({CHART})\n"
    yield "\n## What it shows\n\n"
    yield from (f"- {sentence}\n" for sentence in _findings(group))
    yield "\n## All recipes\n\n"
    yield from _table(store, group, reports)
    yield _LEGEND.format(metric=metric)
    if failures:
        yield "\nThese have no result:\n\n"
        yield from (f"- `{recipe}`: {reason}\n" for recipe, reason in sorted(failures.items()))
    yield _LIMITS


def _size(group: Group, reports: Mapping[str, Report]) -> str:
    seeds = max(len(row.seeds) for row in group.rows)
    cells = [reports[run] for row in group.rows for run in row.runs]
    steps = max((r.training.steps for r in cells if r.training), default=0)
    examples = max(group.test_examples, default=0)
    return (
        f"{len(group.rows)} recipes have up to {seeds} seed{'s' * (seeds > 1)} of {steps} steps of "
        f"two examples, {len(cells)} runs in all, and {examples} test examples each."
    )


def _missing(group: Group, planned: Sequence[tuple[str, int]], failures: Collection[str]) -> str:
    """Return a paragraph on the runs that have not ended, or nothing if all have."""
    ended = {(row.recipe, seed) for row in group.rows for seed in row.seeds}
    expected = [cell for cell in planned if cell[0] not in failures]
    missing = [cell for cell in expected if cell not in ended]
    if not missing:
        return ""
    begun = {recipe for recipe, _ in ended}
    none = dict.fromkeys(recipe for recipe, _ in missing if recipe not in begun)
    text = (
        f"\n**The study is not complete:** {len(missing)} of {len(expected)} runs are missing, and "
        "intervals over fewer seeds say less."
    )
    return f"{text} {len(none)} recipes have no run yet.\n" if none else f"{text}\n"


def _findings(group: Group) -> Iterator[str]:
    """Yield what the numbers say, each in a sentence."""
    rows = [row for row in group.rows if row.status == "ok" and row.recipe != BASELINE]
    shares = {row.recipe: share for row in rows if (share := kept(row, METRIC))}
    if not shares:
        yield "No recipe has been compared with full fine-tuning yet."
        return
    ranked = sorted(shares, key=lambda recipe: -shares[recipe].value)
    best, worst = ranked[0], ranked[-1]
    yield (
        f"`{best}` keeps most, {share_of(shares[best])}; "
        f"`{worst}` least, {share_of(shares[worst])}."
    )
    no_worse = [row.recipe for row in rows if row.recipe in shares and not _is_worse(row)]
    yield (
        f"{len(no_worse)} of {len(shares)} recipes were not shown to be worse than full "
        f"fine-tuning{': ' + listed(no_worse) if 0 < len(no_worse) <= 12 else ''}."
    )
    on_front = front(group.rows, METRIC) - {BASELINE}
    yield (
        "On the front of quality kept and trained parameters: "
        f"{listed([recipe for recipe in ranked if recipe in on_front]) or 'none'}."
    )
    by_name = {row.recipe: row for row in rows}
    pairs = [
        100 * (shares[pruned].value - shares[recipe].value)
        for recipe in shares
        if (pruned := "+".join(sorted([*recipe.split("+"), "lprun"]))) in shares
        and "lprun" not in recipe.split("+")
    ]
    if pairs:
        yield (
            f"Layer pruning changed the share kept by {min(pairs):+.1f} to {max(pairs):+.1f} "
            f"points, {fmean(pairs):+.1f} on average over {len(pairs)} methods."
        )
    measured = [row for row in by_name.values() if row.speed]
    if measured:
        fastest = max(measured, key=lambda row: row.speed.value if row.speed else 0)
        speed = fastest.speed.value if fastest.speed else 0
        yield f"`{fastest.recipe}` trains fastest, at {percent(speed)} of full fine-tuning's speed."


def _table(store: Store, group: Group, reports: Mapping[str, Report]) -> Iterator[str]:
    """Yield the lines of the table, the best quality first."""
    metric, records = heading(METRIC), store.records()
    front_of = front(group.rows, METRIC)
    yield f"| recipe | | {metric} | kept | seeds | rate | trained | file | speed | GiB |\n"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    highest = edges(store)
    rows = [row for row in group.rows if row.status == "ok"]
    for row in sorted(rows, key=lambda row: -row.quality[METRIC].value.value):
        quality, share = row.quality[METRIC], kept(row, METRIC)
        training = reports[row.runs[0]].training
        rate = training.learning_rate if training else None
        bare = "+".join(p for p in row.recipe.split("+") if p != "lprun") or BASELINE
        edge = "^" * (rate is not None and f"{rate:.3g}" == highest.get(bare))
        size = records.get(Path(row.folders[0]).name, {}).get("trained_bytes")
        cells = [
            f"`{row.recipe}`",
            "•" * (row.recipe in front_of),
            f"{quality.value.value:.2f}{mark(quality)}",
            "" if share is None or row.recipe == BASELINE else share_of(share),
            str(len(row.seeds)),
            "" if rate is None else f"{rate:.3g}{edge}",
            count(row.trainable),
            "" if size is None else in_bytes(size),
            percent(row.speed.value) if row.speed else "",
            memory(row.memory_bytes, group.memory_unit) if row.memory_bytes else "",
        ]
        yield f"| {' | '.join(cells)} |\n"
    if not any(row.speed for row in rows):
        yield "\nSpeed and memory are empty: no profile was measured yet (`make study-costs`).\n"


def _is_worse(row: RecipeRow) -> bool:
    quality = row.quality[METRIC]
    return quality.significant and quality.difference is not None and quality.difference.value < 0
