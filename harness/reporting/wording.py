"""How numbers are written, the same in every format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.reporting.summary import Estimate, Group, Quality, RecipeRow

HEADINGS = {
    "rouge1": "R-1",
    "rouge2": "R-2",
    "rougeL": "R-L",
    "rougeLsum": "R-Lsum",
    "bleu": "BLEU",
    "bleu1_precision": "P-1",
    "bleu4_precision": "P-4",
    "chrf": "chrF",
    "bertscore": "BERT",
    "summac_conv": "SumC",
    "summac_zs": "SumZ",
}
"""Metric -> the heading of its column; a plugin's goes by its own name."""

_MEANINGS = {
    "rouge1": "ROUGE F1",
    "rouge2": "ROUGE F1",
    "rougeL": "ROUGE F1",
    "rougeLsum": "ROUGE F1",
    "bleu": "n-grams up to 4",
    "bleu1_precision": "BLEU's unigram precision",
    "bleu4_precision": "BLEU's 4-gram precision",
    "bertscore": "BERTScore F1",
    "summac_conv": "SummaC, convolution",
    "summac_zs": "SummaC, zero-shot",
}
"""Metric -> what its heading stands for, where that is not plain."""

LESS_IS_BETTER = "↓"
"""Mark of the heading of a metric of which less is better."""
ONE_SEED = "¹"
"""Mark of an interval that rests on one seed or run, where there is no room for words."""

UNITS = {"GiB": 2**30, "GB": 10**9}
"""Unit of memory -> bytes."""


def heading(metric: str) -> str:
    """Return the heading of a metric's column."""
    return HEADINGS.get(metric, metric)


def directed(group: Group, metric: str) -> str:
    """Return the heading of a metric's column, with a mark where less is better."""
    return heading(metric) + LESS_IS_BETTER * group.less_is_better(metric)


def meanings(metrics: Iterable[str]) -> str:
    """Say what the headings of metrics stand for; nothing where all are plain."""
    headings = defaultdict(list)
    for metric in metrics:
        if metric in _MEANINGS:
            headings[_MEANINGS[metric]].append(heading(metric))
    return "; ".join(f"{', '.join(alike)}: {meaning}" for meaning, alike in headings.items())


def percent(ratio: float | None, digits: int = 0) -> str:
    """Write a ratio as the paper does; nothing to write is a dash."""
    return "-" if ratio is None else f"{100 * ratio:.{digits}f} %"


def span(interval: tuple[float, float] | None) -> str:
    """Write an interval of ratios in percent."""
    return "-" if interval is None else f"{100 * interval[0]:.0f}-{100 * interval[1]:.0f}"


def bounds(
    estimate: Estimate | None, scale: float = 1, digits: int = 0, one_seed: str = ", 1 seed"
) -> str:
    """Write an estimate's interval; nothing where there is none.

    Args:
        estimate: the estimate.
        scale: is multiplied by.
        digits: after the point.
        one_seed: follows an interval that rests on one seed.
    """
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = (f"{scale * bound:.{digits}f}" for bound in (estimate.low, estimate.high))
    # A hyphen between numbers of which one is negative could not be read.
    return (f"{low} to {high}" if estimate.low < 0 else f"{low}-{high}") + (
        one_seed if estimate.seeds == 1 else ""
    )


def plus_minus(estimate: Estimate | None, scale: float = 1, digits: int = 1, unit: str = "") -> str:
    """Write half of an interval's width; nothing where there is none."""
    half = estimate.half_width if estimate else None
    if estimate is None or half is None:
        return ""
    return f"±{scale * half:.{digits}f}{unit}{ONE_SEED if estimate.seeds == 1 else ''}"


def count(number: int | None) -> str:
    """Write a number of parameters as short as tables need it: 406.3 M, 327.7 k, 950."""
    if number is None:
        return "-"
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def memory(size: float | None, unit: str) -> str:
    """Write bytes in GiB or GB, without the unit."""
    return "-" if size is None else f"{size / UNITS[unit]:.2f}"


def mark(quality: Quality) -> str:
    """Return the mark of a value that differs from full fine-tuning's."""
    return "*" if quality.significant else ""


def seeds_left(row: RecipeRow) -> str:
    """Say how many seeds a row stands for, if some of them failed."""
    if not row.failures or not row.seeds:
        return ""
    return f"{len(row.seeds)} of {len(row.seeds) + len(row.failures)} seeds"


def signed(
    ours: float | None, theirs: float | None, scale: float = 1, digits: int = 2, unit: str = ""
) -> str:
    """Write a difference with its sign; nothing where one of the two is not known."""
    if ours is None or theirs is None:
        return ""
    # Adding zero turns what rounds to -0 into +0.
    return f"{round(scale * (ours - theirs), digits) + 0.0:+.{digits}f}{unit}"


def signed_count(ours: int | None, theirs: int | None) -> str:
    """Write a difference of numbers of parameters with its sign."""
    if ours is None or theirs is None:
        return ""
    return f"{'-' if ours < theirs else '+'}{count(abs(ours - theirs))}"


def not_measured(lacking: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Say what was not measured and why, once where recipes or numbers share a reason.

    Args:
        lacking: recipe -> what it lacks -> why; recipes that lack nothing as well.
    """
    recipes = defaultdict(list)
    for recipe, reasons in lacking.items():
        for number, why in reasons.items():
            recipes[number, why].append(recipe)
    numbers = defaultdict(list)
    for (number, why), those in recipes.items():
        of = "" if len(those) == len(lacking) else f" of {', '.join(those)}"
        numbers[of, why].append(number)
    for (of, why), names in numbers.items():
        yield f"No {', '.join(names)}{of} ({why})"


def reference_lines(
    row: RecipeRow, unit: str, metrics: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Return what a row is compared with, and the differences from it.

    Each line is a label with the cells of speed, trained parameters, memory and the metrics.
    """
    reference = row.reference
    if reference is None:
        return []
    size = UNITS[unit]
    theirs = [reference.quality.get(name) for name in metrics]
    line = [
        percent(reference.speed),
        count(reference.trainable),
        memory(reference.memory_bytes, unit),
        *("-" if value is None else f"{value:.2f}" for value in theirs),
    ]
    if row.status != "ok":
        return [(reference.source, line)]
    ours = [row.quality[name].value.value if name in row.quality else None for name in metrics]
    less = [
        signed(row.speed.value if row.speed else None, reference.speed, 100, 0, " %"),
        signed_count(row.trainable, reference.trainable),
        signed(row.memory_bytes, reference.memory_bytes, 1 / size),
        *(signed(a, b) for a, b in zip(ours, theirs, strict=True)),
    ]
    return [(reference.source, line), ("difference", less)]
