"""Options for reading a user's data, shared by all commands that read them."""

from __future__ import annotations

from typing import Annotated

import typer

SourceColumn = Annotated[
    str | None, typer.Option(help="Column of the sources in your data.", show_default="guessed")
]
TargetColumn = Annotated[
    str | None, typer.Option(help="Column of the targets in your data.", show_default="guessed")
]
IdColumn = Annotated[
    str | None, typer.Option(help="Column of unique ids in your data.", show_default="guessed")
]
Encoding = Annotated[
    str | None,
    typer.Option(
        help="Encoding of your text files, such as latin-1 or utf-16.", show_default="utf-8"
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="Delimiter of your CSV files: one character, or tab.", show_default="detected"
    ),
]


def given(**options: str | None) -> dict[str, str]:
    """Return the task options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}
