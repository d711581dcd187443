"""Options that say how a user's data are to be read, shared by all commands that read them."""

from __future__ import annotations

from typing import Annotated

import typer

SourceColumn = Annotated[
    str | None, typer.Option(help="Your data's column of sources.", show_default="guessed")
]
TargetColumn = Annotated[
    str | None, typer.Option(help="Your data's column of targets.", show_default="guessed")
]
IdColumn = Annotated[
    str | None, typer.Option(help="Your data's column of distinct ids.", show_default="guessed")
]
Encoding = Annotated[
    str | None,
    typer.Option(help="Of your text files, such as latin-1 or utf-16.", show_default="utf-8"),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="Between the cells of your CSV files: one character, or tab.", show_default="found"
    ),
]


def given(**options: str | None) -> dict[str, str]:
    """Return the options of a task that the command line gives."""
    return {name: value for name, value in options.items() if value is not None}
