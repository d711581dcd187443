"""The matrix of methods: what each can do on each family of models, found by trying it.

``find_matrix`` tries it; ``matrix_of`` reads it from outcomes of ``harness check``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.api.compressor import Compressor
from harness.api.plugins import Plugins
from harness.errors import HarnessError
from harness.records.record import Record
from harness.spec.run_spec import BASELINE
from harness.testing.companion import companion_of
from harness.testing.compressor import CHECKS
from harness.testing.families import FAMILIES, PRUNING
from harness.testing.handing_over import exported, merged, shared
from harness.testing.outcomes import Outcomes
from harness.testing.result import CheckResult, Outcome
from harness.testing.runner import Check, run_checks
from harness.testing.subject import Subject, working_folder
from harness.testing.training import checkpointed, packed, trains_what_it_says

ABILITIES: list[Check[Subject]] = [
    Check("trains", "apply", trains_what_it_says, 0.0),
    Check("packs", "loss", packed, 1e-4),
    Check("checkpoints", "apply", checkpointed, 1e-6),
    Check("merges", "merge", merged, 1e-6),
    Check("exports", "peft_config", exported, 1e-5),
    Check("shares beams", "apply", shared, 0.0),
]
"""Abilities that a method is tried for on each family, by the checks of ``check_compressor``."""
COMPOSES = "composes with lprun"
"""One more: it trains as well where layers are pruned."""
COLUMNS = ("trains", "packs", COMPOSES, "checkpoints", "merges", "exports", "shares beams")


class MatrixCell(Record):
    """One ability of a method on one family."""

    outcome: Outcome
    """passed: tried and right; does not apply: it says why not; failed: it should be repaired."""
    reason: str | None = None
    """Reason unless it passed."""


class MatrixRow(Record):
    """A method on one family."""

    recipe: str
    """The method, with its default options."""
    family: str
    """The family: t5, gated-t5 or bart."""
    abilities: dict[str, MatrixCell] = Field(default_factory=dict)
    """Ability -> outcome."""


def find_matrix(
    recipes: Sequence[str],
    plugins: Plugins,
    families: Sequence[str] = tuple(FAMILIES),
    on_row: Callable[[MatrixRow], None] = lambda _: None,
) -> list[MatrixRow]:
    """Try recipes on tiny models of random weights.

    Args:
        recipes: one compressor each, with options.
        plugins: the plugins of this environment.
        families: names of the families.
        on_row: is called with each row as soon as it is known.
    """
    rows = []
    with working_folder() as folder:
        for number, recipe in enumerate(recipes):
            for family in families:
                place = folder / f"{number}-{family}"
                rows.append(_row(recipe, family, plugins, place))
                on_row(rows[-1])
    return rows


def matrix_of(outcomes: Outcomes) -> list[MatrixRow]:
    """Return the matrix of compressors whose checks on all families are known.

    Args:
        outcomes: the outcomes of ``harness check --all``.

    Raises:
        HarnessError: an outcome is missing.
    """
    names = {c.function: c.name for c in CHECKS}
    abilities = {ability.name: names[ability.function] for ability in ABILITIES}
    pruning = next((name for name in outcomes if name.partition(":")[0] == "lprun"), None)
    rows = []
    for recipe, family in product(outcomes, FAMILIES):
        row = MatrixRow(recipe=recipe, family=family)
        for ability, check in abilities.items():
            row.abilities[ability] = _known(outcomes, recipe, check, family)
        # Full fine-tuning of a pruned model is the recipe lprun alone.
        pruned = (
            (pruning, family) if recipe == BASELINE and pruning else (recipe, f"{family}+lprun")
        )
        row.abilities[COMPOSES] = _known(outcomes, pruned[0], abilities["trains"], pruned[1])
        rows.append(row)
    return rows


def _known(outcomes: Outcomes, recipe: str, check: str, on: str) -> MatrixCell:
    found = outcomes[recipe].get(check)
    text = found if isinstance(found, str) or found is None else found.get(on)
    if text is None:
        raise HarnessError(
            f"There is no outcome of {recipe!r} on {on}: {check}.",
            "harness check --all --expected FILE writes all outcomes to a new file",
        )
    outcome, _, reason = text.partition(": ")
    return MatrixCell.model_validate({"outcome": outcome, "reason": reason or None})


def _row(recipe: str, family: str, plugins: Plugins, folder: Path) -> MatrixRow:
    def subject(method: str, text: str, place: str) -> Subject:
        (folder / place).mkdir(parents=True)
        name = method.partition(":")[0]
        return Subject(FAMILIES[family](family), name, text, plugins.compressors, folder / place)

    row = MatrixRow(recipe=recipe, family=family)
    alone = subject(recipe, recipe, "alone")
    if beside := companion_of(alone):
        alone.text = f"{beside}+{recipe}"
    for result in _results(alone, ABILITIES):
        row.abilities[result.check] = MatrixCell(outcome=result.outcome, reason=result.reason)
    if recipe == "lprun":
        row.abilities[COMPOSES] = MatrixCell(outcome="does not apply", reason="it is lprun")
        return row
    if recipe == BASELINE:  # Full fine-tuning of a pruned model is the recipe lprun alone.
        pruned = subject(PRUNING, PRUNING, "pruned")
    else:
        pruned = subject(recipe, f"{alone.text}+{PRUNING}", "pruned")
    (result,) = _results(pruned, [ABILITIES[0]])
    row.abilities[COMPOSES] = MatrixCell(outcome=result.outcome, reason=result.reason)
    return row


def _results(subject: Subject, checks: Sequence[Check[Subject]]) -> Iterator[CheckResult]:
    """Run checks; a recipe that is refused on this family has the same answer to all of them."""
    try:
        subject.model()
    except HarnessError as error:
        for check in checks:
            reason = error.message
            yield CheckResult(check=check.name, outcome="does not apply", reason=reason)
        return
    except Exception:  # The checks say what it is.
        pass
    kind: type[Compressor[Any]] = type(subject.compressor)
    yield from run_checks(checks, subject, kind)
