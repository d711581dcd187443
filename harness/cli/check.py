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
    from harness.testing.many import Request
    from harness.testing.outcomes import Outcomes
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
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes.", show_default="1; one for each core with --all"),
    ] = None,
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
    pruned layers. One that is refused alone is tried beside a method. The exit status is 1 if a
    check fails, or differs from what is expected.

    Examples: harness check lora_ff, harness check --all --kind metric
    """
    import json

    from harness.testing.many import Request, usual_processes
    from harness.testing.outcomes import read_outcomes

    known = read_outcomes(expected) if expected and expected.exists() else {}
    chosen = list(_chosen(names or [], kind, all_, list(known)))
    requests = [Request(each.value, name, quick) for each, name in chosen]
    reports = []
    for report in _reports(requests, jobs or (usual_processes() if all_ else 1), as_json):
        reports.append(report)
        if not as_json:
            _print(report)
    if as_json:
        typer.echo(json.dumps([report.model_dump() for report in reports], indent=2))
    as_expected = _compare(reports, expected, known) if expected else True
    failed = any(report.failures for report in reports)
    raise typer.Exit(1 if failed or not as_expected else 0)


def _reports(requests: Sequence[Request], jobs: int, as_json: bool) -> Iterator[CheckReport]:
    """Check plugins here or in several processes, and say on a terminal what is done."""
    from harness.api.plugins import installed
    from harness.testing.many import check_many

    progress = _progress(as_json)
    if jobs == 1 or len(requests) == 1:
        for number, request in enumerate(requests, 1):
            of = f"{number} of {len(requests)}: " if len(requests) > 1 else ""

            def on_result(result: CheckResult, of: str = of) -> None:
                progress(f"{of}{result.on} {result.check}")

            yield request.run(on_result)
        return

    def on_done(request: Request, done: int) -> None:
        progress(f"{done} of {len(requests)} done: {request.name}")

    yield from check_many(requests, min(jobs, len(requests)), installed().files, on_done)


def _compare(reports: Sequence[CheckReport], file: Path, known: Outcomes) -> bool:
    """Print what is not as expected; write the outcomes if none are known."""
    from harness.testing.outcomes import differences, outcomes_of, write_outcomes

    if not known:
        write_outcomes(file, outcomes_of(reports))
        typer.echo(f"Outcomes: {file}", err=True)
        return True
    lines = differences(known, reports)
    for line in lines:
        typer.secho(f"Not as expected: {line}", err=True, fg="red")
    return not lines


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
    from harness.testing.many import CHOSEN

    if not names and not all_:
        raise HarnessError("There is nothing to check.", "harness check NAME, or --all")
    if all_:
        every = kind or CheckedKind.COMPRESSOR
        usual = CHOSEN if every is CheckedKind.COMPRESSOR else {}
        given = {**usual, **{name.partition(":")[0]: name for name in [*known, *names]}}
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


def _progress(as_json: bool) -> Callable[[str], None]:
    """Return a function that shows on a terminal what is done."""
    import sys

    if as_json or not sys.stderr.isatty():
        return lambda _: None

    def show(line: str) -> None:
        sys.stderr.write(f"\r\033[K{line}")
        sys.stderr.flush()

    return show


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
    if report.beside:
        console.print(f"It is refused alone: checked beside {report.beside}.", style="dim")
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
