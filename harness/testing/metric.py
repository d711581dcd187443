"""Checks of a metric, over texts that hypothesis draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import numpy as np

from harness import clock
from harness.api.metric import Metric, Score, make_metric
from harness.api.options import validate
from harness.api.parts import read_part
from harness.api.plugins import installed
from harness.errors import HarnessError
from harness.testing.options import check_options, require_hypothesis
from harness.testing.result import CheckFailedError, CheckReport, DoesNotApplyError
from harness.testing.runner import Check, OnResult, run_checks

_DRAWS = 15
_TOLERANCE = 1e-9
REFERENCES = ["the nodule is small", "no change since the last visit", "a fracture of the rib"]
PREDICTIONS = ["the nodule is large", "no change", "unrelated words about something else"]
SOURCES = ["There is a small nodule.", "As before, nothing new.", "The fourth rib is broken."]

Pairs = list[tuple[str, str]]


@dataclass
class MetricSubject:
    """A metric.

    Attributes:
        kind: its class.
        build: builds it with options.
        given: the options that were given.
    """

    kind: type[Metric]
    build: Callable[..., Metric]
    given: dict[str, str]

    def metric(self, **options: object) -> Metric:
        """Build the metric.

        Raises:
            DoesNotApplyError: it cannot be computed here.
        """
        metric = self.build(**{**self.given, **options})
        if reason := metric.unavailable():
            raise DoesNotApplyError(reason)
        return metric


def check_metric(
    metric: str | type[Metric],
    options: str = "",
    *,
    on_result: OnResult = lambda _: None,
) -> CheckReport:
    """Check that a metric keeps the promises of its interface.

    Args:
        metric: a registered name, with options as in ``rouge:tokenizer=unicode``, or a class.
        options: options of a class.
        on_result: is called with each result.

    Raises:
        HarnessError: there is no such metric, or hypothesis is not installed.
    """
    require_hypothesis()
    began = clock.seconds()
    text = metric if isinstance(metric, str) else f"{metric.__name__}:{options}".rstrip(":")
    name, given = read_part(text)
    kind = installed().metrics.find(name).load() if isinstance(metric, str) else metric

    def build(**values: object) -> Metric:
        if isinstance(metric, str):
            shown = ",".join(f"{option}={value}" for option, value in values.items())
            return make_metric(f"{name}:{shown}".rstrip(":"), installed().metrics)
        return kind(validate(kind.Options, values, name)) if values else kind()

    subject = MetricSubject(kind, build, given)
    results = run_checks(CHECKS, subject, kind, on_result=on_result)
    return CheckReport(kind="metric", name=text, results=results, seconds=clock.seconds() - began)


def documented(subject: MetricSubject) -> None:
    """Check the documentation and the validation of the options."""
    check_options(subject.kind.Options, subject.given, f"metric {subject.kind.__name__!r}")


def named(subject: MetricSubject) -> None:
    """Compute the scores, and check their names and shapes."""
    metric = subject.metric()
    scores = metric.score(SOURCES, PREDICTIONS, REFERENCES)
    if tuple(scores) != tuple(metric.names):
        raise CheckFailedError(f"it computes {list(scores)} and names {list(metric.names)}")
    for name, score in scores.items():
        if len(score.examples) != len(REFERENCES):
            raise CheckFailedError(f"{name} has {len(score.examples)} values for 3 examples")
        if score.statistics.ndim != 2 or len(score.statistics) != len(REFERENCES):
            raise CheckFailedError(f"the statistics of {name} have no row for each example")


def resampled(subject: MetricSubject) -> float:
    """Aggregate several resamples at once, and one by one; leave out clusters."""
    worst = 0.0
    for score in subject.metric().score(SOURCES, PREDICTIONS, REFERENCES).values():
        sums = np.stack([score.statistics.sum(0), score.statistics[0], 3 * score.statistics[1]])
        together = score.aggregate(sums)
        alone = [score.aggregate(row[None])[0] for row in sums]
        worst = max(worst, *(_distance(a, b) for a, b in zip(together, alone, strict=True)))
        joined = score.clustered(["one", "two", "one"])
        worst = max(worst, _distance(joined.value, score.value))
    return worst


def best(subject: MetricSubject) -> None:
    """Score the references themselves, and other texts."""
    metric = subject.metric()
    if metric.needs_sources:
        raise DoesNotApplyError("it compares with the sources")
    copies = metric.score(SOURCES, REFERENCES, REFERENCES)
    others = metric.score(SOURCES, PREDICTIONS, REFERENCES)
    for name, score in copies.items():
        sign = 1 if score.higher_is_better else -1
        if sign * (score.value - others[name].value) < 0:
            raise CheckFailedError(
                f"{name} of the references themselves is {score.value:.4g}, and of other texts "
                f"{others[name].value:.4g}, where {'more' if sign > 0 else 'less'} is better"
            )


def finite(subject: MetricSubject) -> None:
    """Score texts of any script, and empty predictions."""
    metric = subject.metric()

    def use(pairs: Pairs) -> None:
        for name, score in _scores(metric, pairs).items():
            if not all(map(math.isfinite, [score.value, *score.examples])):
                raise CheckFailedError(f"{name} of {pairs} is not finite")

    _draw(use)


def ordered(subject: MetricSubject) -> None:
    """Score the same examples in another order."""
    metric = subject.metric()

    def use(pairs: Pairs) -> None:
        one, other = _scores(metric, pairs), _scores(metric, pairs[::-1])
        for name, score in one.items():
            if _distance(score.value, other[name].value) > 1e-6:
                raise CheckFailedError(f"{name} of {pairs} depends on the order of the examples")

    _draw(use)


def independent(subject: MetricSubject) -> None:
    """Score with other sources."""
    metric = subject.metric()
    if metric.needs_sources:
        raise DoesNotApplyError("it compares with the sources")
    one = metric.score(SOURCES, PREDICTIONS, REFERENCES)
    other = metric.score(["", "x", "y"], PREDICTIONS, REFERENCES)
    if any(score.value != other[name].value for name, score in one.items()):
        raise CheckFailedError("the sources change it; set needs_sources = True")


def several(subject: MetricSubject) -> float:
    """Score with lists of one reference."""
    metric = subject.metric()
    if not metric.several_references:
        raise DoesNotApplyError("it takes one reference")
    lists: Any = [[reference] for reference in REFERENCES]
    one = metric.score(SOURCES, PREDICTIONS, REFERENCES)
    other = metric.score(SOURCES, PREDICTIONS, lists)
    return max(_distance(score.value, other[name].value) for name, score in one.items())


def signed(subject: MetricSubject) -> None:
    """Check that signatures stay, and that options which choose a variant change them."""
    scores = subject.metric().score(SOURCES, PREDICTIONS, REFERENCES)
    again = subject.metric().score(SOURCES, PREDICTIONS, REFERENCES)
    for name, score in scores.items():
        if score.signature != again[name].signature:
            raise CheckFailedError(f"the signature of {name} changes from call to call")
    for option, value in _variants(subject.kind):
        try:
            varied = subject.metric(**{option: value})
            found = varied.score(SOURCES, PREDICTIONS, REFERENCES)
        except (HarnessError, DoesNotApplyError):
            continue
        if all(scores[n].signature == s.signature for n, s in found.items() if n in scores):
            raise CheckFailedError(
                f"{option}={value} does not change the signature, so that its scores would be "
                "compared with those of the default"
            )


def _variants(kind: type[Metric]) -> list[tuple[str, object]]:
    """Return a value other than the default of each option with a few choices."""
    variants: list[tuple[str, object]] = []
    for name, info in kind.Options.model_fields.items():
        if info.annotation is bool:
            variants.append((name, str(not info.default).lower()))
        elif get_origin(info.annotation) is not None:
            choices = [c for c in get_args(info.annotation) if isinstance(c, str)]
            variants += [(name, c) for c in choices if c != info.default][:1]
    return variants


def _scores(metric: Metric, pairs: Pairs) -> dict[str, Score]:
    predictions, references = map(list, zip(*pairs, strict=True))
    return metric.score(["a source"] * len(pairs), predictions, references)


def _draw(use: Callable[[Pairs], None]) -> None:
    """Call a function with pairs of predictions and references that hypothesis draws."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    words = st.sampled_from(["the", "rib", "Rippe", "a", "42", "肋骨", "is", "?", "é", "Ünit."])
    text = st.lists(words, max_size=8).map(" ".join)
    reference = st.lists(words, min_size=1, max_size=8).map(" ".join)
    pairs = st.lists(st.tuples(text, reference), min_size=1, max_size=5)

    @settings(
        max_examples=_DRAWS,
        derandomize=True,
        deadline=None,
        database=None,
        # No explanation: it is not shown, and takes two thirds of the time.
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(pairs)
    def property_of_texts(drawn: Pairs) -> None:
        use(drawn)

    property_of_texts()


def _distance(one: float, other: float) -> float:
    if not (math.isfinite(one) and math.isfinite(other)):
        return 0.0 if math.isnan(one) and math.isnan(other) else float("inf")
    return abs(one - other) / max(1.0, abs(one))


CHECKS: Sequence[Check[MetricSubject]] = [
    Check("options are documented and validated", "Options", documented),
    Check("every score has its name, and every example a row", "score", named),
    Check("resamples can be aggregated at once", "score", resampled, _TOLERANCE),
    Check("a copy of the reference scores best", "score", best),
    Check("every text has a finite score", "score", finite),
    Check("the order of the examples does not matter", "score", ordered),
    Check("sources matter only if it says so", "needs_sources", independent),
    Check("a list of one reference is that reference", "score", several, _TOLERANCE),
    Check("the signature tells variants apart", "score", signed),
]
