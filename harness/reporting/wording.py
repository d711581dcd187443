"""Write numbers, headings and marks; every format of the report shares them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.reporting.summary import Estimate, Group, Quality, RecipeRow
from harness.spec.run_spec import BASELINE

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
"""Metric -> heading of its column; a plugin's metric is shown by its own name."""

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
"""Metric -> explanation of its heading, if it needs one."""

LEAD_BASELINE = "Lead-N"
"""Name of the lead baseline in tables and notes: the first N words of the source."""
LESS_IS_BETTER = "↓"
"""Mark in the heading of a metric of which less is better."""
ONE_SEED = "¹"
"""Mark of an interval of one seed or run in the terminal's table."""

UNITS = {"GiB": 2**30, "GB": 10**9}
"""Unit of memory -> bytes."""


def spoken(recipe: str) -> str:
    """Return how sentences call a recipe: full fine-tuning by these words, others by their text."""
    return "full fine-tuning" if recipe == BASELINE else recipe


def heading(metric: str) -> str:
    """Return the heading of a metric's column."""
    return HEADINGS.get(metric, metric)


def directed(group: Group, metric: str) -> str:
    """Return the heading of a metric's column, with a mark where less is better."""
    return heading(metric) + LESS_IS_BETTER * group.less_is_better(metric)


def meanings(metrics: Iterable[str]) -> str:
    """Return the explanations of the metrics' headings; empty if none needs one."""
    headings = defaultdict(list)
    for metric in metrics:
        if metric in _MEANINGS:
            headings[_MEANINGS[metric]].append(heading(metric))
    return "; ".join(f"{', '.join(names)}: {meaning}" for meaning, names in headings.items())


def percent(ratio: float | None, digits: int = 0) -> str:
    """Write a ratio in percent; None is a dash."""
    return "-" if ratio is None else f"{100 * ratio:.{digits}f} %"


def span(interval: tuple[float, float] | None) -> str:
    """Write an interval of ratios in percent; None is a dash."""
    return "-" if interval is None else f"{100 * interval[0]:.0f}-{100 * interval[1]:.0f}"


def bounds(
    estimate: Estimate | None, scale: float = 1, digits: int = 0, one_seed: str = ", 1 seed"
) -> str:
    """Write an estimate's interval; without an interval the text is empty.

    Args:
        estimate: the estimate.
        scale: the factor by which the bounds are multiplied.
        digits: the number of decimals.
        one_seed: the text that follows the interval of one seed.
    """
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    low, high = (f"{scale * bound:.{digits}f}" for bound in (estimate.low, estimate.high))
    # A hyphen before a negative number would be hard to read.
    return (f"{low} to {high}" if estimate.low < 0 else f"{low}-{high}") + (
        one_seed if estimate.seeds == 1 else ""
    )


def plus_minus(estimate: Estimate | None, scale: float = 1, digits: int = 1, unit: str = "") -> str:
    """Write half of an interval's width; without an interval the text is empty."""
    half = estimate.half_width if estimate else None
    if estimate is None or half is None:
        return ""
    return f"±{scale * half:.{digits}f}{unit}{ONE_SEED if estimate.seeds == 1 else ''}"


def count(number: int | None) -> str:
    """Write a number of parameters with one decimal and a unit: 406.3 M, 327.7 k, 950."""
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
    """Return the mark of a value that differs significantly from the baseline's."""
    return "*" if quality.significant else ""


def seeds_left(row: RecipeRow) -> str:
    """Return how many seeds of a row ended well; empty if no seed failed."""
    if not row.failures or not row.seeds:
        return ""
    return f"{len(row.seeds)} of {len(row.seeds) + len(row.failures)} seeds"


def signed(
    value: float | None, other: float | None, scale: float = 1, digits: int = 2, unit: str = ""
) -> str:
    """Write a difference with its sign; empty if one of the two numbers is not known."""
    if value is None or other is None:
        return ""
    # Adding zero turns -0 into +0.
    return f"{round(scale * (value - other), digits) + 0.0:+.{digits}f}{unit}"


def signed_count(number: int | None, other: int | None) -> str:
    """Write a difference of numbers of parameters with its sign; empty if one is not known."""
    if number is None or other is None:
        return ""
    return f"{'-' if number < other else '+'}{count(abs(number - other))}"


def not_measured(lacking: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield a sentence for each reason why numbers are missing, with the numbers and recipes.

    Args:
        lacking: recipe -> name of a missing number -> reason. Recipes that lack nothing have an
            empty mapping.
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
    """Return the lines of a row's reference and of the differences from it.

    Args:
        row: the row; without a reference there are no lines.
        unit: the unit of memory.
        metrics: names of the metrics that have a column.

    Returns:
        Label and cells of each line: speed, trained parameters, memory and the metrics.
    """
    reference = row.reference
    if reference is None:
        return []
    size = UNITS[unit]
    others = [reference.quality.get(name) for name in metrics]
    line = [
        percent(reference.speed),
        count(reference.trainable),
        memory(reference.memory_bytes, unit),
        *("-" if value is None else f"{value:.2f}" for value in others),
    ]
    if row.status != "ok":
        return [(reference.source, line)]
    values = [row.quality[name].value.value if name in row.quality else None for name in metrics]
    differences = [
        signed(row.speed.value if row.speed else None, reference.speed, 100, 0, " %"),
        signed_count(row.trainable, reference.trainable),
        signed(row.memory_bytes, reference.memory_bytes, 1 / size),
        *(signed(a, b) for a, b in zip(values, others, strict=True)),
    ]
    return [(reference.source, line), ("difference", differences)]
