"""The interface of a task: data splits, length limits and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic

from harness.api.compressor import OptionsT
from harness.api.metric import Metric
from harness.api.options import NO_OPTIONS
from harness.errors import HarnessError

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Splits:
    """The data of a task: three datasets with the text columns id, source and target.

    Attributes:
        skipped: reason -> number of rows left out, over all splits.
        leakage: kind of similarity -> number of pairs of similar sources in different splits;
            empty if the task does not count them.
        notes: sentences on guesses made while reading, with the option that overrides them.
    """

    train: Dataset
    eval: Dataset
    test: Dataset
    skipped: dict[str, int] = field(default_factory=dict)
    leakage: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preparation:
    """Request of ``harness prepare``.

    Attributes:
        out: folder to create; it is complete or absent.
        notes: raw file.
        synthetic: number of synthetic notes to generate in the raw file's format and use instead.
        seed: seed of the synthetic notes.
        sections: file of section titles that replaces the task's own.
        on_progress: is called when reading begins and regularly afterwards, with the number of
            notes read and the share of the file, 0 to 1.
        encoding: encoding of the raw file; None means UTF-8.
        delimiter: delimiter of a raw CSV file: one character, or tab; None means that the task
            detects it.
    """

    out: Path
    notes: Path | None = None
    synthetic: int | None = None
    seed: int = 0
    sections: Path | None = None
    on_progress: Callable[[int, float], None] = lambda notes, share: None
    encoding: str | None = None
    delimiter: str | None = None


@dataclass(frozen=True)
class Prepared:
    """Result of preparing the notes of a raw file.

    Attributes:
        kept: number of notes in the data set.
        left_out: reason -> number of notes that were left out.
    """

    kept: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class LengthProfile:
    """Typical lengths, for profiles without data.

    Attributes:
        source_mean: mean length of a source in tokens.
        target_mean: mean length of a target in tokens.
    """

    source_mean: float
    target_mean: float


class Task(ABC, Generic[OptionsT]):
    """Data, length limits and metrics.

    Attributes:
        name: short name for tables and run ids.
        options: the validated options.
        prefix: text before every source (T5's task prefix).
        max_source_length: longest source in tokens; longer ones are truncated and counted.
        max_target_length: longest target in tokens; longer ones are truncated in training and
            counted.
        eval_share: share of the eval split that is scored during training.
        length_profile: typical lengths, for profiles without data.
        primary_metric: metric that selects the best weights.
    """

    Options: type[OptionsT] = NO_OPTIONS
    prefix: str = ""
    max_source_length: int = 512
    max_target_length: int = 128
    eval_share: ClassVar[float] = 1.0
    length_profile: ClassVar[LengthProfile] = LengthProfile(130, 60)
    primary_metric: ClassVar[str] = "rouge1"

    def __init__(self, reference: str, options: OptionsT) -> None:
        self.reference = reference
        self.options = options

    @property
    def name(self) -> str:
        """A short name for tables and run ids."""
        return self.reference

    @abstractmethod
    def splits(self, seed: int) -> Splits:
        """Load the data; ``seed`` matters only if the task draws the splits.

        Raises:
            HarnessError: data is missing or malformed; the hint names each way to supply it.
        """

    @classmethod
    def prepare(cls, preparation: Preparation) -> Prepared:
        """Convert a raw file into the folder that ``splits`` reads.

        Raises:
            HarnessError: this task has none, the file is missing or broken, or the disk is full.
        """
        raise HarnessError("This task needs no preparation.", "harness run --task NAME")

    @abstractmethod
    def metrics(self) -> Sequence[Metric]:
        """Return the suite of metrics, which contains the primary metric."""
