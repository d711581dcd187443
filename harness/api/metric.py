"""The interface of a metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from harness.api.options import Options, validate, written
from harness.api.parts import read_part

if TYPE_CHECKING:
    from harness.api.arrays import FloatArray
    from harness.api.registry import Registry

_AnyOptions = Options
"""A metric's options as a type: in its class the name ``Options`` is an attribute."""


@dataclass(frozen=True, eq=False)
class Score:
    """What a metric says of a set of predictions.

    A corpus value need not be the mean of the examples' values (BLEU's is not), yet a bootstrap
    must recompute it for thousands of resamples. So a score carries, for each example, numbers
    whose sums over any multiset of examples are enough to compute the corpus value: the sums of
    many resamples are then one matrix product.

    Attributes:
        examples: one value for each of the n examples, in order.
        signature: pins the implementation; values of unlike signatures are never compared.
        statistics: sufficient statistics, of shape (n, k).
        aggregate: maps sums of statistics, of shape (resamples, k), to the corpus values, of
            shape (resamples,); a percentage unless the signature says otherwise.
        higher_is_better: the direction.
    """

    examples: list[float]
    signature: str
    statistics: FloatArray
    aggregate: Callable[[FloatArray], FloatArray]
    higher_is_better: bool = True

    @classmethod
    def mean(
        cls, examples: Sequence[float], signature: str, higher_is_better: bool = True
    ) -> Score:
        """Build a score whose corpus value is the mean of the examples' values."""
        import numpy as np

        values = np.asarray(examples, dtype=np.float64)
        statistics = np.column_stack([values, np.ones_like(values)])
        return cls(values.tolist(), signature, statistics, _mean_of_sums, higher_is_better)

    @property
    def value(self) -> float:
        """The corpus value over all examples."""
        return float(self.aggregate(self.statistics.sum(axis=0, keepdims=True))[0])

    def clustered(self, clusters: Sequence[str]) -> Score:
        """Return the score with one row of statistics for each cluster of examples.

        A bootstrap then draws whole clusters, as it must where examples are parts of one dialogue.
        The corpus value stays the same, since sums of sums are the same sums.

        Args:
            clusters: that of each example.
        """
        import numpy as np

        names, member = np.unique(np.asarray(clusters), return_inverse=True)
        sums = np.zeros((len(names), self.statistics.shape[1]))
        np.add.at(sums, member, self.statistics)
        return replace(self, statistics=sums)


def _mean_of_sums(sums: FloatArray) -> FloatArray:
    means: FloatArray = sums[:, 0] / sums[:, 1]
    return means


class Metric(ABC):
    """Scores predictions. One pass may yield several named scores, as ROUGE does.

    Building a metric is cheap: models are loaded by the first ``score``.

    Attributes:
        names: the names of the scores, in the order in which they are shown.
        needs_sources: whether the sources have a part in the scores.
        several_references: whether ``score`` takes a list of texts in place of a reference, where
            an example has several; to a metric that does not, such data are not given.
        Options: the pydantic model of what ``--metrics name:option=value`` can choose.
        options: the validated options.
        chosen: the metric as ``--metrics`` takes it, where options were chosen.
    """

    names: tuple[str, ...]
    needs_sources: ClassVar[bool] = False
    several_references: ClassVar[bool] = False
    Options: ClassVar[type[Options]] = Options
    chosen: str | None = None

    def __init__(self, options: _AnyOptions | None = None) -> None:
        """Keep the options; without an argument these are the defaults."""
        self.options = self.Options() if options is None else options

    def unavailable(self) -> str | None:
        """Say why this metric cannot be computed here and what would mend it, or ``None``.

        Cheap: looks for packages and files, loads no model, asks no network. A run reports a
        metric of its suite that is unavailable as not computed; a metric that the user requested
        by name is an error before training starts.
        """
        return None

    def unreadable(self, references: Sequence[str | list[str]]) -> str | None:
        """Say why texts like these cannot be scored and what would mend it, or ``None``.

        A metric that would drop most of the references' characters, or not divide them, says so
        here. Its scores are then missing with the reason, where they would be 0.
        """
        return None

    @abstractmethod
    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Score all examples; the three sequences run in parallel and are not empty."""


def make_metric(text: str, registry: Registry) -> Metric:
    """Build a metric from its name and options, as in ``rouge:tokenizer=unicode``.

    Raises:
        HarnessError: bad grammar, an unknown metric or option, or a value that does not fit.
    """
    name, given = read_part(text)
    kind: type[Metric] = registry.find(name).load()
    options = validate(kind.Options, given, f"metric {name!r}")
    values = options.model_dump(mode="json", exclude_defaults=True)
    # A metric without options of its own may have a constructor of its own.
    if not values:
        return kind()
    metric = kind(options)
    metric.chosen = f"{name}:{','.join(f'{key}={written(values[key])}' for key in sorted(values))}"
    return metric
