"""Checks of a compressor beside the others, and of its options on a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from harness.api.options import validate, written
from harness.errors import HarnessError, first_line
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.testing.families import EXAMPLES
from harness.testing.options import check_draws, check_options
from harness.testing.result import CheckFailedError, DoesNotApplyError
from harness.testing.runner import Check
from harness.testing.subject import SEED, Subject, trained
from harness.training.build import load_trainer


def composes(subject: Subject) -> None:
    """Compose the compressor with every other one, or read its refusal.

    Where both can be in a recipe, neither may freeze what the other trains, and a training step
    reaches all that is trained.
    """
    problems, tried = [], 0
    own = subject.text
    present = {compressor.name for compressor in subject.recipe().compressors}
    for other in _others(subject, present):
        tried += 1
        problem = _together(subject, f"{own}+{other}", present, other)
        if problem:
            problems.append(f"{own}+{other}: {problem}")
    if not tried:
        raise DoesNotApplyError("there is no other compressor")
    if problems:
        more = f" ({len(problems)} such recipes)" if len(problems) > 1 else ""
        raise CheckFailedError(problems[0] + more, "conflicts")


def _others(subject: Subject, present: set[str]) -> Iterator[str]:
    """Yield the names of other compressors than those present that need no options."""
    for entry in subject.registry:
        if entry.name in present:
            continue
        fields = entry.load().Options.model_fields.values()
        if not any(info.is_required() for info in fields):
            yield entry.name


def _together(subject: Subject, text: str, own: set[str], other: str) -> str | None:
    """Return what is wrong with a recipe in which another compressor is added, or None."""
    try:
        recipe = subject.recipe(text)
    except HarnessError as error:
        named = other in error.message and any(name in error.message for name in own)
        return None if named else f"it is refused without naming both: {error.message}"
    try:
        trainer = load_trainer(subject.run(text=text))
    except HarnessError as error:
        named = any(name in error.message for name in (*own, other))
        return None if named else f"it is refused without a name: {error.message}"
    except Exception as error:
        return f"it raises {type(error).__name__}: {first_line(error)}"
    together = {_plain(n): p.requires_grad for n, p in trainer.model.named_parameters()}
    for compressor in recipe.compressors:
        for name in _chosen_by(subject, compressor.name, other):
            if together.get(name) is False:
                return f"{name!r}, which {compressor.name} trains, is not trained any more"
    batch = trainer.engine.collate(EXAMPLES)
    try:
        loss = trainer.step([batch], batch.target_tokens, check=True)
    except Exception as error:
        return f"a training step raises {type(error).__name__}: {first_line(error)}"
    return None if loss.isfinite() else "the loss is not finite"


def _chosen_by(subject: Subject, name: str, other: str) -> set[str]:
    """Return what a compressor trains by itself; nothing if it freezes nothing, or is refused."""
    alone = replace(subject, text=other if name == other else subject.text)
    backbone = alone.backbone
    context = skeleton_context(backbone, SEED)
    try:
        model = compose(backbone.skeleton(), backbone, alone.recipe(), context)
    except HarnessError:
        return set()
    chosen = {_plain(n) for n in trained(model)}
    return set() if len(chosen) == len(list(model.parameters())) else chosen


def _plain(name: str) -> str:
    """Return the name that a parameter has without the layers that PEFT puts around it."""
    return name.replace(".base_layer", "")


def documented(subject: Subject) -> None:
    """Check the documentation and the validation of the options."""
    compressor = subject.compressor
    check_options(type(compressor.options), _given(subject), f"compressor {subject.name!r}")


def drawn(subject: Subject) -> None:
    """Apply the compressor to a skeleton with values of its options that hypothesis draws."""
    model = type(subject.compressor.options)
    kept = {name: value for name, value in _given(subject).items() if name in _required(model)}

    def use(values: dict[str, object]) -> None:
        validate(model, values, subject.name)
        options = ",".join(f"{name}={written(value)}" for name, value in values.items())
        recipe = subject.recipe(f"{subject.name}:{options}" if options else subject.name)
        backbone = subject.backbone
        compose(backbone.skeleton(), backbone, recipe, skeleton_context(backbone, SEED))

    check_draws(model, kept, use)


def _given(subject: Subject) -> dict[str, object]:
    return dict(subject.compressor.options.model_dump(mode="json", exclude_defaults=True))


def _required(model: type) -> set[str]:
    return {name for name, info in model.model_fields.items() if info.is_required()}  # type: ignore[attr-defined]


BESIDE_OTHERS = [
    Check("composes with others or refuses by name", "conflicts", composes),
    Check("options are documented and validated", "Options", documented),
    Check("valid options work or are refused by name", "apply", drawn),
]
