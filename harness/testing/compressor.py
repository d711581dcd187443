"""Checks of a compressor over tiny models of three families, with and without pruned layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import clock
from harness.api.compressor import Compressor
from harness.api.parts import read_part
from harness.api.plugins import installed
from harness.api.registry import Entry, Origin, Registry
from harness.errors import HarnessError
from harness.testing.applying import APPLYING
from harness.testing.companion import companion_of
from harness.testing.composing import BESIDE_OTHERS
from harness.testing.families import FAMILIES, PRUNING
from harness.testing.handing_over import HANDING_OVER
from harness.testing.options import require_hypothesis
from harness.testing.result import CheckReport, CheckResult
from harness.testing.runner import Check, OnResult, place_in, run_checks
from harness.testing.subject import Subject, working_folder
from harness.testing.training import TRAINING

CHECKS: list[Check[Subject]] = [*APPLYING, *TRAINING, *HANDING_OVER]
"""The checks of each family, alone and with pruned layers."""


def check_compressor(
    compressor: str | type[Compressor[Any]],
    options: str = "",
    *,
    families: Sequence[str] = tuple(FAMILIES),
    pruned: Sequence[bool] = (False, True),
    on_result: OnResult = lambda _: None,
) -> CheckReport:
    """Check that a compressor keeps the promises of its interface.

    A compressor that trains nothing, and says so in a HarnessError of ``parameter_groups``, is
    checked beside ``lora_ff``.

    Args:
        compressor: a registered name, with options as in a recipe, or a class.
        options: options of a class, such as ``r=8,alpha=16``.
        families: the models to check it on: t5, gated-t5, bart.
        pruned: whether layers are pruned as well; by default once without and once with it.
        on_result: is called with each result.

    Raises:
        HarnessError: there is no such compressor, or hypothesis is not installed.

    Example:
        >>> check_compressor("lora_ff:r=4").require_passed()
    """
    require_hypothesis()
    began = clock.seconds()
    registry = _copy(installed().compressors)
    if isinstance(compressor, str):
        name, text = read_part(compressor)[0], compressor
    else:
        name = _name_of(compressor, registry)
        text = f"{name}:{options}" if options else name
    kind: type[Compressor[Any]] = registry.find(name).load()
    results: list[CheckResult] = []
    with working_folder() as folder:
        first = _subject(families[0], name, text, registry, folder)
        beside = companion_of(first)
        checked = f"{beside}+{text}" if beside else text
        first.text = checked
        results += run_checks(BESIDE_OTHERS, first, kind, on_result=on_result)
        for family in families:
            for prunes in pruned:
                on = f"{family}+lprun" if prunes else family
                place = folder / on
                place.mkdir()
                recipe = f"{checked}+{PRUNING}" if prunes else checked
                subject = _subject(family, name, recipe, registry, place)
                results += _check(subject, kind, on, on_result)
    if not any(r.outcome == "passed" for r in results if r.on):
        results.append(_nowhere(results, kind))
        on_result(results[-1])
    return CheckReport(
        kind="compressor",
        name=text,
        beside=beside,
        results=results,
        seconds=clock.seconds() - began,
    )


def _check(
    subject: Subject, kind: type[Compressor[Any]], on: str, on_result: OnResult
) -> list[CheckResult]:
    """Run the checks, or say of each why it does not apply: the recipe is refused."""
    try:
        subject.model()
    except HarnessError as error:
        results = [
            CheckResult(check=c.name, on=on, outcome="does not apply", reason=error.message)
            for c in CHECKS
        ]
        for result in results:
            on_result(result)
        return results
    except Exception:  # The checks say what it is.
        pass
    return run_checks(CHECKS, subject, kind, on, on_result)


def _nowhere(results: Sequence[CheckResult], kind: type[Compressor[Any]]) -> CheckResult:
    reasons = [r.reason for r in results if r.on and r.outcome == "does not apply"]
    return CheckResult(
        check="applies to at least one model",
        outcome="failed",
        reason=reasons[0] if reasons else "every check failed",
        place=place_in(kind, "apply", None),
    )


def _subject(family: str, name: str, text: str, registry: Registry, folder: Path) -> Subject:
    if family not in FAMILIES:
        raise HarnessError(f"There is no family {family!r}.", f"Known: {', '.join(FAMILIES)}.")
    return Subject(FAMILIES[family](family), name, text, registry, folder)


def _copy(registry: Registry) -> Registry:
    copy = Registry(registry.kind)
    copy.merge(registry)
    return copy


def _name_of(kind: type[Compressor[Any]], registry: Registry) -> str:
    """Return the registered name of a class, or register it under the class's own."""
    target = f"{kind.__module__}:{kind.__qualname__}"
    for entry in registry:
        if entry.target in (kind, target):
            return entry.name
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
    registry.add(Entry(name, kind, "", Origin(kind.__module__, "0")))
    return name
