"""The answer of a report: what the best recipes save and what they cost, in plain sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from harness.reporting.summary import Estimate, Group, Quality, RecipeRow
from harness.reporting.wording import heading, percent, spoken
from harness.spec.run_spec import BASELINE

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def answer(group: Group, metrics: Sequence[str]) -> list[str]:
    """Return the answer of a group, one sentence for each recipe that it names.

    It names at most two recipes of the Pareto front of speed, memory and the first metric: the
    fastest, and the one with the best quality. Full fine-tuning and the baseline of quality are
    never named, as all others are compared with them. The rule needs no threshold:
    ``harness recommend`` chooses by one that its user sets. Where no front is known, the same rule
    takes all recipes that ended well.

    Args:
        group: the rows, with p-values adjusted and the front marked.
        metrics: names in the order of the summary; the first that the group has is the quality.

    Returns:
        The sentences. They hold only what was measured.
    """
    good = [row for row in group.rows if row.status == "ok"]
    recipes = [row for row in good if row.recipe not in (BASELINE, group.baseline)]
    if not good:
        return ["No run ended well."]
    if not recipes:
        only, it = " and ".join(spoken(r.recipe) for r in good), "it" if len(good) == 1 else "them"
        return [f"Only {only} ended well here, so nothing is compared with {it}."]
    metric = group.front_metric or next(iter(group.scored(metrics)), None)
    on_front = [row for row in recipes if row.on_front]
    candidates = on_front or [row for row in recipes if row.on_front is None]
    if not candidates:
        return [
            "No recipe was shown to train faster than full fine-tuning, to need less memory or to "
            f"have a better {heading(metric or 'quality')}."
        ]
    named = _named(candidates, metric)
    sentences = [_sentence(row, metric, group) for row in named]
    if any(_has_one_seed(row, metric) for row in named):
        sentences.append("With one seed the spread between seeds is not known.")
    return [sentence for sentence in sentences if sentence]


def _named(rows: Sequence[RecipeRow], metric: str | None) -> list[RecipeRow]:
    """Return the fastest recipe and the one with the best quality, without a repetition."""
    names = [_best(rows, _speed_of)]
    if metric is not None:
        names.append(_best(rows, lambda row: _goodness(row.quality.get(metric))))
    named = [row for row in rows if row.recipe in names]
    return sorted(named, key=lambda row: names.index(row.recipe)) or list(rows[:1])


def _best(rows: Sequence[RecipeRow], value: Callable[[RecipeRow], float | None]) -> str | None:
    values = {row.recipe: value(row) for row in rows}
    measured = {recipe: number for recipe, number in values.items() if number is not None}
    return max(measured, key=measured.__getitem__, default=None)


def _speed_of(row: RecipeRow) -> float | None:
    return row.speed.value if row.speed else None


def _goodness(quality: Quality | None) -> float | None:
    """Return a number of which more is better, whatever the metric's direction."""
    if quality is None:
        return None
    return quality.value.value if quality.higher_is_better else -quality.value.value


def _has_one_seed(row: RecipeRow, metric: str | None) -> bool:
    quality = row.quality.get(metric) if metric else None
    compared = quality.difference.seeds if quality and quality.difference else None
    return len(row.seeds) == 1 or compared == 1


def _sentence(row: RecipeRow, metric: str | None, group: Group) -> str:
    """Return a sentence on a recipe's costs and quality; empty if none was measured."""
    clauses = list(_costs(row, group.noise_floor))
    clauses += _decoding(row)
    quality = row.quality.get(metric) if metric else None
    if metric and quality:
        clauses.append(_quality(heading(metric), quality, group.baseline))
    if not clauses:
        return ""
    first, *others = clauses
    verb = first.startswith("trains")
    return f"{row.recipe}{' ' if verb else ': '}{'; '.join([first, *others])}."


def _costs(row: RecipeRow, noise: float | None) -> Iterator[str]:
    """Yield the clauses on speed and memory, beginning with a verb where one was shown."""
    share = None if row.memory_relative is None else percent(row.memory_relative)
    speed = row.speed
    times = _times(speed) if speed else ""
    if speed and _is_shown(speed, noise):
        value = f"{speed.value:.2f} times as fast as full fine-tuning"
        yield f"trains {value}{times}{f' with {share} of the memory' if share else ''}"
        return
    if share:
        yield f"trains with {share} of full fine-tuning's memory"
    if speed:
        yield f"no difference in speed was shown{times}"


def _decoding(row: RecipeRow) -> Iterator[str]:
    """Yield the clause on decoding speed, if it was compared."""
    own = row.inference
    if own is None or own.latency is None:
        return
    if _is_shown(own.latency, own.noise_floor):
        yield f"decodes {own.latency.value:.2f} times as fast{_times(own.latency)}"
    else:
        yield f"no difference in decoding speed was shown{_times(own.latency)}"


def _is_shown(speed: Estimate, noise: float | None) -> bool:
    """Return whether a speed differs from full fine-tuning's by more than interval and noise."""
    low = speed.value if speed.low is None else speed.low
    high = speed.value if speed.high is None else speed.high
    return not low <= 1 <= high and abs(math.log(speed.value)) > math.log(noise or 1)


def _times(speed: Estimate) -> str:
    if speed.low is None or speed.high is None:
        return ""
    return f" ({speed.low:.2f} to {speed.high:.2f})"


def _quality(name: str, quality: Quality, baseline: str) -> str:
    """Return the clause on quality: its difference, and how many seeds show it."""
    difference = quality.difference
    if difference is None or quality.p_value is None:
        return f"its {name} of {quality.value.value:.2f} is not compared with {spoken(baseline)}'s"
    seeds = difference.seeds or 1
    count = _NUMBERS[seeds] if seeds < len(_NUMBERS) else str(seeds)
    those = f"{count} seed{'s' * (seeds > 1)}"
    beside = "" if baseline == BASELINE else f" from {baseline}"
    if not quality.significant:
        return f"no difference in {name}{beside} was shown by {those}{_range(difference)}"
    is_lower = difference.value < 0
    size = difference.negated if is_lower else difference
    less = "" if quality.higher_is_better else " (less is better)"
    way = "lower" if is_lower else "higher"
    amount = f"{size.value:.{_digits(size.value)}f}"
    shows = "show" if seeds > 1 else "shows"
    than = "" if baseline == BASELINE else f" than {baseline}'s"
    return f"{name}{less} is {way}{than} by {amount}{_range(size)}, which {those} {shows}"


def _range(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    digits = _digits(max(abs(estimate.low), abs(estimate.high)))
    # Adding zero turns what rounds to -0 into 0.
    low, high = (round(bound, digits) + 0.0 for bound in (estimate.low, estimate.high))
    return f" ({low:.{digits}f} to {high:.{digits}f})"


def _digits(size: float) -> int:
    """Return the decimals of a number: one, or as many as two significant digits take."""
    return 1 if size >= 1 or size == 0 else min(4, 1 - math.floor(math.log10(size)))
