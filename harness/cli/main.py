"""Console script: registers every command and prints errors."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from harness import __version__
from harness.api.plugins import installed
from harness.cli.check import check
from harness.cli.diagnose import diagnose
from harness.cli.export import export
from harness.cli.generate import generate
from harness.cli.listing import list_plugins
from harness.cli.new import new
from harness.cli.plan import plan
from harness.cli.prepare import prepare
from harness.cli.profile import profile
from harness.cli.push import push
from harness.cli.recommend import recommend
from harness.cli.report import report
from harness.cli.run import run
from harness.cli.score import score
from harness.cli.search import search
from harness.cli.serve import serve
from harness.cli.stats import stats
from harness.cli.storage import storage
from harness.cli.sweep import sweep
from harness.errors import HarnessError


class Commands(TyperGroup):
    """Prints an error of the user as a message with a hint, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            _complain(Text.assemble(("Error: ", "bold red"), error.message), error.hint)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            _complain(Text("Interrupted.", "bold red"))
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    # Local variables can hold a user's data, and tracebacks end up in bug reports.
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("run")(run)
app.command("sweep")(sweep)
app.command("report")(report)
app.command("recommend")(recommend)
app.command("export")(export)
app.command("push")(push)
app.command("storage")(storage)
app.command("list")(list_plugins)
app.command("new")(new)
app.command("check")(check)
app.command("plan")(plan)
app.command("profile")(profile)
app.command("diagnose")(diagnose)
app.command("search")(search)
app.command("score")(score)
app.command("prepare")(prepare)
app.command("stats")(stats)
app.command("generate")(generate)
app.command("serve")(serve)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"harness {__version__}")
        raise typer.Exit


@app.callback()
def harness(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Fine-tune sequence-to-sequence models cheaply, and measure what that costs in quality."""
    for warning in installed().warnings:
        _complain(Text(warning, "dim"))


def _complain(message: Text, hint: str | None = None) -> None:
    console = Console(stderr=True, highlight=False)
    # Not wrapped by rich, so that a command in a hint can be copied.
    console.print(message, soft_wrap=True)
    if hint:
        console.print(hint, soft_wrap=True, markup=False)


def main() -> None:
    """Run the command line."""
    app(prog_name="harness")
