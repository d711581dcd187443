"""Outputs of models that read the training split once, before a run trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.data.examples import TokenizedSplit
from harness.evaluation.teacher_targets import taught_examples
from harness.records.phase import Phase
from harness.running.setup import Setup, schedule_of
from harness.training.stored_encoder import with_stored_encoder
from harness.training.stored_teacher import with_stored_teacher
from harness.training.teacher_model import find_teacher

Enter = Callable[[Phase, int], None]
"""Is called with a phase that begins, and the number of its examples."""


@dataclass(frozen=True)
class StoredOutputs:
    """A set-up with all that its recipe stores, computed now or by an earlier run.

    Attributes:
        setup: the set-up; its targets are the teacher's if the recipe says so.
        teacher_seconds: wall time of the teacher, its own run included; None if nothing of it is
            stored.
        encoder_seconds: wall time of the encoder.
    """

    setup: Setup
    teacher_seconds: float | None = None
    encoder_seconds: float = 0


def with_stored_outputs(
    setup: Setup,
    enter: Enter = lambda phase, examples: None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> StoredOutputs:
    """Let models whose outputs are stored read the training split, unless an earlier run did.

    Args:
        setup: the set-up as all processes of the run derive it from the spec.
        enter: is called before a model reads.
        on_progress: is called with the number of examples that it has read.
    """
    run, examples = setup.run, setup.inputs.train.examples
    teacher = run.recipe.teacher
    seconds = 0.0
    if teacher is not None and teacher.beams is not None:
        enter(Phase.TEACH, len(examples))
        taught = taught_examples(run, examples, on_progress)
        assert taught is not None
        seconds += taught.seconds
        examples = taught.examples
        train = TokenizedSplit(examples, setup.inputs.train.truncated_sources, 0)
        inputs = replace(setup.inputs, train=train)
        setup = replace(setup, inputs=inputs, schedule=schedule_of(inputs, run))
    if teacher is not None and teacher.top is not None:
        enter(Phase.TEACH, len(examples))
        run = with_stored_teacher(run, examples, on_progress)
        seconds += run.taught.seconds if run.taught else 0
    if run.recipe.encoder_storage is not None:
        enter(Phase.ENCODE, len(examples))
        run = with_stored_encoder(run, examples, on_progress)
    model = find_teacher(run.recipe)
    return StoredOutputs(
        replace(setup, run=run),
        (model.seconds if model else 0) + seconds if seconds else None,
        run.encoded.seconds if run.encoded else 0,
    )
