"""Batches that recipes are measured on, from a task's own data or from its typical lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any

from harness.api.backbone import Backbone
from harness.api.task import LengthProfile, Task
from harness.costs.data_choice import DataChoice
from harness.costs.synthetic import draw_examples
from harness.data.examples import Example
from harness.data.tokenizing import tokenize
from harness.errors import HarnessError
from harness.measurement.probe import FrozenSchedule, freeze
from harness.records.data_notes import cut_notes, left_out_notes
from harness.records.profile import BatchesOf
from harness.spec.run_spec import RunSpec, overlay, resolve
from harness.spec.settings import nested_settings
from harness.training.schedule import Schedule

_ROUNDS = 4
"""Rounds of timed windows of a profile, one more than a run's own probe takes."""

_STEPS = 35
"""Smallest number of steps whose examples the longest batch is chosen from. The default profile has
as many, so that memory does not depend on how long speed is measured."""


@dataclass(frozen=True)
class Batches:
    """Batches that recipes are planned or measured on.

    Attributes:
        frozen: the batches.
        of: the origin of the batches.
        why_no_data: the reason why the task's own data were not used; None if they were.
        data_notes: sentences on what was guessed, left out and truncated in the task's own data.
    """

    frozen: FrozenSchedule
    of: BatchesOf
    why_no_data: str | None
    data_notes: tuple[str, ...] = ()


def profile_spec(
    backbone: str,
    task: str | None,
    settings: Mapping[str, Any] | None = None,
    task_options: Mapping[str, Any] | None = None,
) -> RunSpec:
    """Return the settings under which recipes are planned and profiled: random weights.

    Args:
        backbone: a registered name, a hub id or a folder.
        task: a registered name, a file or a folder; None takes the default task.
        settings: settings that replace the defaults, by dotted or nested names.
        task_options: options of the task.

    Raises:
        HarnessError: an unknown setting, or a value that is not valid.
    """
    base: dict[str, Any] = {"weights": "random", "probe": {"rounds": _ROUNDS}}
    named = {"backbone": backbone, "task_options": dict(task_options or {})}
    if task is not None:
        named["task"] = task
    values = overlay(overlay(base, nested_settings(settings or {})), named)
    return resolve(values, "paper")


def choose_batches(
    spec: RunSpec,
    backbone: Backbone,
    task: Task[Any],
    data: DataChoice,
    source_tokens: int | None = None,
    target_tokens: int | None = None,
) -> Batches:
    """Return batches of a task's own data or of its typical lengths.

    Args:
        spec: the settings of the measurement.
        backbone: the backbone that the spec names.
        task: the task that the spec names.
        data: the source of the batches.
        source_tokens: mean source length in place of the task's; implies lengths.
        target_tokens: mean target length in place of the task's; implies lengths.

    Raises:
        HarnessError: own data were requested, but the data or the tokenizer are missing here.
    """
    if data is DataChoice.LENGTHS or source_tokens or target_tokens:
        why = "lengths were requested"
    else:
        # A download starts only if own data were requested by name.
        with nullcontext() if data is DataChoice.OWN else offline():
            try:
                return own_batches(spec, backbone, task)
            except HarnessError as error:
                if data is DataChoice.OWN:
                    raise
                why = error.message
    lengths = lengths_of(task, source_tokens, target_tokens)
    drawn = drawn_batches(spec, backbone, task, lengths)
    return Batches(drawn, "drawn from the task's length profile", why)


def lengths_of(
    task: Task[Any], source_tokens: int | None, target_tokens: int | None
) -> LengthProfile:
    """Return the mean lengths that the user gives, and the task's where none is given."""
    return LengthProfile(
        source_tokens or task.length_profile.source_mean,
        target_tokens or task.length_profile.target_mean,
    )


def drawn_batches(
    spec: RunSpec, backbone: Backbone, task: Task[Any], lengths: LengthProfile
) -> FrozenSchedule:
    """Draw random batches of given mean lengths, cut at the task's limits; needs no data."""
    examples = draw_examples(
        lengths,
        task.max_source_length,
        task.max_target_length,
        backbone.config().vocab_size,
        _count(spec),
        spec.seed,
    )
    return _frozen(spec, examples, synthetic=True)


def own_batches(spec: RunSpec, backbone: Backbone, task: Task[Any]) -> Batches:
    """Return batches of the task's training data, or of a seeded sample of a large set.

    Raises:
        HarnessError: the data or the tokenizer are missing on this machine.
    """
    tokenizer = backbone.tokenizer()
    splits = task.splits(spec.seed)
    rows = splits.train
    chosen = Random(spec.seed).sample(range(len(rows)), min(_count(spec), len(rows)))
    sample = tokenize(rows.select(chosen), tokenizer, task)
    sources, targets = sample.truncated_sources, sample.truncated_targets
    cut = cut_notes(sources, targets, len(chosen), "in a run, --set")
    notes = (
        *splits.notes,
        *left_out_notes(splits.skipped, len(rows) + len(splits.eval) + len(splits.test)),
        # All texts are tokenized by a run, and here those of the batches alone.
        *(f"Of the examples drawn for the batches, {note}" for note in cut),
    )
    return Batches(_frozen(spec, sample.examples), "the task's own data", None, notes)


@contextmanager
def offline() -> Iterator[None]:
    """Let the hub's clients use only their caches; they read these variables at every call."""
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _count(spec: RunSpec) -> int:
    """Return the number of examples in the steps of the probe, or in ``_STEPS`` if it has fewer."""
    steps = spec.probe.warmup_steps + spec.probe.rounds * spec.probe.steps
    return max(steps, _STEPS) * spec.train.batch_size * spec.train.accumulation


def _frozen(spec: RunSpec, examples: Sequence[Example], synthetic: bool = False) -> FrozenSchedule:
    train = spec.train
    schedule = Schedule(examples, train.batch_size, train.accumulation, spec.seed)
    return freeze(schedule, spec.probe, synthetic)
