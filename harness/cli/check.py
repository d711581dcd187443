"""``harness check``: does a plugin keep the promises of its interface?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.testing.result import CheckReport, CheckResult


class CheckedKind(StrEnum):
    """A kind of plugin that can be checked."""

    COMPRESSOR = "compressor"
    BACKBONE = "backbone"
    TASK = "task"
    METRIC = "metric"


def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Plugins, with options as in lora_ff:r=4.",
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        CheckedKind | None,
        typer.Option(help="Kind of the plugins.", show_default="by name"),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Check all registered compressors, or all of --kind.")
    ] = False,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Check compressors on T5 alone, without pruned layers; some seconds each.",
        ),
    ] = False,
    expected: Annotated[
        Path | None,
        typer.Option(
            help="File of expected outcomes, in JSON; it is written if there is none.",
            show_default=False,
        ),
    ] = None,
    plugin: options.PluginFiles = None,
    as_json: options.Json = False,
) -> None:
    """Check that compressors, backbones, tasks or metrics keep the promises of their interfaces.

    Compressors are tried on tiny models of three families with random weights, with and without
    pruned layers. The exit status is 1 if a check fails, or differs from what is expected.

    Examples: harness check lora_ff, harness check --all --kind metric
    """
    from harness.testing.outcomes import differences, outcomes_of, read_outcomes, write_outcomes

    known = read_outcomes(expected) if expected and expected.exists() else {}
    reports = []
    for each, name in _chosen(names or [], kind, all_, list(known)):
        reports.append(_check(each, name, quick, _progress(as_json)))
        if not as_json:
            _print(reports[-1])
    if as_json:
        import json

        typer.echo(json.dumps([report.model_dump() for report in reports], indent=2))
    failed = any(report.failures for report in reports)
    if expected is not None:
        outcomes = outcomes_of(reports)
        lines = differences(known, outcomes) if known else []
        for line in lines:
            typer.secho(f"Not as expected: {line}", err=True, fg="red")
        failed = failed or bool(lines)
        if not known:
            write_outcomes(expected, outcomes)
            typer.echo(f"Outcomes: {expected}", err=True)
    raise typer.Exit(1 if failed else 0)


def _chosen(
    names: Sequence[str], kind: CheckedKind | None, all_: bool, known: Sequence[str]
) -> Iterator[tuple[CheckedKind, str]]:
    """Yield the kind and the text of each plugin to check.

    Args:
        names: texts from the command line; they add options to a name of ``--all``.
        kind: the kind that was named.
        all_: whether all of a kind are checked.
        known: texts of the expected outcomes, which add options as well.
    """
    from harness.api.plugins import installed

    if not names and not all_:
        raise HarnessError("There is nothing to check.", "harness check NAME, or --all")
    given = {name.partition(":")[0]: name for name in [*known, *names]}
    if all_:
        every = kind or CheckedKind.COMPRESSOR
        for entry in installed().registries[f"{every}s"]:
            yield every, given.get(entry.name, entry.name)
        return
    for name in names:
        yield kind or _kind_of(name), name


def _kind_of(text: str) -> CheckedKind:
    """Return the kind of the plugin that has a name.

    Raises:
        HarnessError: no plugin has it, or plugins of several kinds.
    """
    from harness.api.plugins import installed
    from harness.errors import did_you_mean

    registries = installed().registries
    by_kind = {kind: {entry.name for entry in registries[f"{kind}s"]} for kind in CheckedKind}
    name = text.partition(":")[0]
    kinds = [kind for kind, known in by_kind.items() if name in known]
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        raise HarnessError(
            f"{name!r} is a {' and a '.join(kinds)}.", f"Say which: --kind {kinds[0]}"
        )
    every = [name for names in by_kind.values() for name in names]
    raise HarnessError(
        f"There is no plugin {name!r}.",
        f"{did_you_mean(name, every)} A folder or a hub id needs its kind: --kind backbone",
    )


def _check(
    kind: CheckedKind, name: str, quick: bool, on_result: Callable[[CheckResult], None]
) -> CheckReport:
    from harness import testing

    if kind is CheckedKind.COMPRESSOR:
        if quick:
            return testing.check_compressor(
                name, families=("t5",), pruned=(False,), on_result=on_result
            )
        return testing.check_compressor(name, on_result=on_result)
    if kind is CheckedKind.BACKBONE:
        recipes = ["lora:targets=all"] if quick else None
        return testing.check_backbone(name, recipes=recipes, on_result=on_result)
    if kind is CheckedKind.TASK:
        return testing.check_task(name, on_result=on_result)
    return testing.check_metric(name, on_result=on_result)


def _progress(as_json: bool) -> Callable[[CheckResult], None]:
    """Return a function that says on a terminal which check is done."""
    import sys

    if as_json or not sys.stderr.isatty():
        return lambda _: None

    def on_result(result: CheckResult) -> None:
        sys.stderr.write(f"\r\033[K{result.on} {result.check}")
        sys.stderr.flush()

    return on_result


def _print(report: CheckReport) -> None:
    """Print a line for each check with its largest difference, and reasons below it."""
    import sys

    from rich.console import Console
    from rich.text import Text

    from harness.testing.result import MARKS, Outcome

    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    colors = {"passed": "green", "failed": "bold red", "does not apply": "dim"}
    order: list[Outcome] = ["failed", "passed", "does not apply"]
    console = Console(highlight=False)
    console.print(f"{report.kind} {report.name}", style="bold", markup=False)
    for name in dict.fromkeys(result.check for result in report.results):
        found = [result for result in report.results if result.check == name]
        outcome = next(o for o in order if any(result.outcome == o for result in found))
        measured = [r.difference for r in found if r.difference is not None]
        difference = f"  {max(measured):.2g}" if measured else ""
        line = Text.assemble((f"{MARKS[outcome]} ", colors[outcome]), name, (difference, "dim"))
        console.print(line, soft_wrap=True)
        for reason in _reasons(found):
            console.print(f"  {reason}", style="dim", soft_wrap=True, markup=False)
    failed = len(report.failures)
    summary = f"{failed} failed" if failed else "all that apply passed"
    console.print(f"{len(report.results)} checks, {summary}, {report.seconds:.0f} s", style="dim")


def _reasons(found: Sequence[CheckResult]) -> list[str]:
    """Return the reasons of failures with their places, or why a check does not apply."""
    failed = [result for result in found if result.outcome == "failed"]
    left_out = [result for result in found if result.outcome == "does not apply"]
    by_reason: dict[tuple[str | None, str | None], list[str]] = {}
    for result in failed or left_out:
        by_reason.setdefault((result.reason, result.place), []).append(result.on)
    lines = []
    for (reason, place), places in by_reason.items():
        everywhere = len(places) == len(found) or not any(places)
        lines.append(f"{reason}" if everywhere else f"{', '.join(places)}: {reason}")
        if place:
            lines.append(f"  {place}")
    return lines
