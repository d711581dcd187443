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
"""Type of a metric's options; inside the class, the name ``Options`` is an attribute."""


@dataclass(frozen=True, eq=False)
class Score:
    """Value of a metric on a set of predictions, with statistics that allow a bootstrap.

    A corpus value need not be the mean of the examples' values (BLEU's is not), but a bootstrap
    must recompute it for thousands of resamples. A score therefore has sufficient statistics for
    each example: their sums over any multiset of examples are enough to compute the corpus value.
    The sums of many resamples are then one matrix product.

    Attributes:
        examples: one value for each of the n examples, in order.
        signature: identifies the implementation; values with different signatures are never
            compared.
        statistics: sufficient statistics, of shape (n, k).
        aggregate: maps sums of statistics, of shape (resamples, k), to the corpus values, of
            shape (resamples,); a percentage unless the signature says otherwise.
        higher_is_better: whether higher values are better.
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

        A bootstrap then draws whole clusters, which is necessary if examples belong to one
        dialogue. The corpus value stays the same, because the total sum stays the same.

        Args:
            clusters: name of the cluster of each example.
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
    """Computes scores of predictions. One metric may have several named scores, as ROUGE does.

    Building a metric is cheap; models are loaded by the first call of ``score``.

    Attributes:
        names: the names of the scores, in the order in which they are shown.
        needs_sources: whether the scores depend on the sources.
        several_references: whether ``score`` accepts a list of texts as reference. Data with
            several references are not scored with a metric that does not.
        Options: the pydantic model of the options in ``--metrics name:option=value``.
        options: the validated options.
        chosen: the text of the metric in ``--metrics``, if it has options.
    """

    names: tuple[str, ...]
    needs_sources: ClassVar[bool] = False
    several_references: ClassVar[bool] = False
    Options: ClassVar[type[Options]] = Options
    chosen: str | None = None

    def __init__(self, options: _AnyOptions | None = None) -> None:
        """Store the options; without an argument, the defaults."""
        self.options = self.Options() if options is None else options

    def unavailable(self) -> str | None:
        """Return why this metric cannot be computed here, with the remedy, or ``None``.

        The method is cheap: it looks for packages and files, loads no model and uses no network.
        An unavailable metric of a task's suite is reported as not computed. An unavailable metric
        that the user requested by name is an error before training starts.
        """
        return None

    def unreadable(self, references: Sequence[str | list[str]]) -> str | None:
        """Return why these references cannot be scored, with the remedy, or ``None``.

        A metric whose tokenizer drops most characters of the references, or does not separate
        their words, returns the reason. Its scores are then missing with this reason, not 0.
        """
        return None

    @abstractmethod
    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Score all examples; the three sequences have the same length and are not empty."""


def make_metric(text: str, registry: Registry) -> Metric:
    """Build a metric from its name and options, as in ``rouge:tokenizer=unicode``.

    Raises:
        HarnessError: bad grammar, an unknown metric or option, or a value that does not fit.
    """
    name, given = read_part(text)
    kind: type[Metric] = registry.find(name).load()
    options = validate(kind.Options, given, f"metric {name!r}")
    values = options.model_dump(mode="json", exclude_defaults=True)
    # A metric without options may have another constructor.
    if not values:
        return kind()
    metric = kind(options)
    metric.chosen = f"{name}:{','.join(f'{key}={written(values[key])}' for key in sorted(values))}"
    return metric
