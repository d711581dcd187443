"""A diagnosis from Python: ``harness.diagnose``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.diagnosis.record import Diagnosis
from harness.diagnosis.subject import Subject, open_subject
from harness.errors import HarnessError
from harness.records.run_folder import StoredRun, read_report

if TYPE_CHECKING:
    import torch

NOTES = (
    "Losses and gradients are of the eval split, which training does not see; the test split is "
    "left alone.",
    "Each layer is removed alone and without training afterwards. Training can make up for a part "
    "of it, and removing several is worse than the sum of the single losses.",
)


def diagnose(
    run: str | Path | None = None,
    *,
    backbone: str | None = None,
    task: str | None = None,
    task_options: Mapping[str, Any] | None = None,
    against: str | Path | None = None,
    examples: int = 32,
    device: str = "auto",
    on_progress: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Find where a model can be made cheaper, and where a recipe lost its quality.

    Args:
        run: the folder of a finished run, whose trained model is looked into; by default the
            backbone before training.
        backbone: a registered name, a hub id or a folder; without a run.
        task: a registered name, a file or a folder; without a run.
        task_options: options of the task.
        against: the folder of another run of the same task, usually of full fine-tuning. Test
            scores of both are compared by properties of the examples.
        examples: number of examples of the eval split.
        device: ``auto``, ``cpu`` or ``cuda``.
        on_progress: is called with the name of each step that begins.

    Returns:
        The diagnosis.

    Raises:
        HarnessError: there is no such run, backbone or task; weights or data are missing; or the
            two runs cannot be compared.

    Example:
        >>> harness.diagnose(backbone="nano-t5", task="radiology_demo").proposal
    """
    from harness.records.run_choice import choose_run
    from harness.training.resolved_run import choose_device
    from harness.training.trained_run import open_run

    if examples < 2:
        raise HarnessError(f"{examples} examples are too few.", "Take 2 or more: --examples 32")
    if against and not run:
        raise HarnessError(
            "A comparison needs two runs.", "Name the run that lost quality: harness diagnose RUN"
        )
    folder = choose_run(Path(run)) if run else None
    other = choose_run(Path(against)) if against else None
    subject = open_subject(open_run(folder) if folder else None, backbone, task, task_options or {})
    # Whatever can fail for lack of files fails before anything slow begins.
    lost = None
    if folder and other:
        from harness.diagnosis.quality_loss import compare_by_property

        lost = compare_by_property(
            StoredRun(folder, read_report(folder)), StoredRun(other, read_report(other))
        )
    diagnosis = look_into(subject, examples, choose_device(device), on_progress)
    diagnosis.lost = lost
    if other:
        diagnosis.against = read_report(other).id
    else:
        diagnosis.not_measured["lost"] = "no run to compare with was named"
    return diagnosis


def look_into(
    subject: Subject, examples: int, device: torch.device, on_progress: Callable[[str], None]
) -> Diagnosis:
    """Compute what a diagnosis says of one model.

    Args:
        subject: the model.
        examples: number of examples.
        device: the device that computes.
        on_progress: is called with the name of each step that begins.
    """
    from harness.diagnosis.changes import role_changes
    from harness.diagnosis.gradients import role_gradients
    from harness.diagnosis.layer_removal import remove_each_layer
    from harness.diagnosis.losses import example_losses, per_token, target_tokens
    from harness.diagnosis.proposal import propose

    backbone, run = subject.backbone, subject.run
    on_progress("Loading the model and its examples")
    batches, model = subject.batches(examples, device), subject.load(device)
    tokens = target_tokens(batches)
    losses = example_losses(model, batches)
    layers = remove_each_layer(
        model,
        backbone,
        batches,
        losses,
        lambda done, total: on_progress(f"Removing layer {min(done + 1, total)} of {total}"),
    )
    on_progress("Computing gradients")
    gradients = role_gradients(model, backbone, batches)
    diagnosis = Diagnosis(
        backbone=backbone.name,
        task=run.report.task if run else subject.spec.task,
        run=run.report.id if run else None,
        examples=len(tokens),
        tokens=int(tokens.sum()),
        loss=per_token(losses, tokens),
        layers=layers,
        gradients=gradients,
        notes=list(NOTES),
    )
    if run:
        on_progress("Comparing the weights before and after training")
        before = run.untrained() if subject.is_whole else None
        diagnosis.changes = before and role_changes(before.to(device), model, backbone)
    if diagnosis.changes is None:
        diagnosis.not_measured["changes"] = (
            "only a run of full fine-tuning shows what training would change"
        )
    if subject.is_whole:
        on_progress("Trying the layers to drop together")
        diagnosis.proposal = propose(
            model, backbone, batches, losses, layers, gradients, diagnosis.changes
        )
    else:
        diagnosis.not_measured["proposal"] = "the run's recipe is not full fine-tuning"
    return diagnosis
