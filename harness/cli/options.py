"""Command-line options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.costs.data_choice import DataChoice

OneBackbone = Annotated[str, typer.Option(help="Model: a name, a hub id or a folder.")]
ManyRecipes = Annotated[
    str, typer.Option(help="Recipes such as lora_ff+lprun, separated by commas.")
]
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
Data = Annotated[
    DataChoice,
    typer.Option(
        help="Texts of the batches. own: the task's data; lengths: random tokens of the task's "
        "typical lengths; auto: own if the data and the tokenizer are on this machine."
    ),
]
SourceTokens = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Mean source length in tokens; implies --data lengths.",
        show_default="the task's",
    ),
]
TargetTokens = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Mean target length in tokens; implies --data lengths.",
        show_default="the task's",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Examples per micro-batch.")]
Accumulation = Annotated[
    int, typer.Option(min=1, help="Gradient accumulation: micro-batches per optimizer step.")
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision", "--dtype", help="Precision of matrix products: auto, float32 or bfloat16."
    ),
]
Prefix = Annotated[
    str | None, typer.Option(help="Text before every source.", show_default="the model's")
]
MaxSourceLength = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Longest source in tokens.",
        show_default="the model's",
    ),
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=DIR", help="Adapter for PEFT; repeatable.", show_default=False),
]
BatchTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Tokens of a batch: each text's source and, for each beam, longest prediction.",
        show_default="by device",
    ),
]
Decoder = Annotated[
    Literal["harness", "ctranslate2"],
    typer.Option(
        help="Search: the harness's own, or CTranslate2's, which is faster and has other ends."
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")]
Preset = Annotated[
    str | None,
    typer.Option(help="Settings to start from: paper or quick.", show_default="by backbone"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Value of a setting, e.g. train.batch_size=4; repeatable.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option(help="Folder that holds the runs.")]
Results = Annotated[Path, typer.Argument(help="Folder that holds the runs.")]
SnapshotEvery = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Seconds between saves of the training state; an interrupted run resumes from it.",
    ),
]
MaxRestarts = Annotated[
    int,
    typer.Option(
        min=0,
        help="Restarts after a process was killed, ran out of memory or hung; each resumes.",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier export in that folder.")
]


def _add_plugins(files: list[Path] | None) -> list[Path] | None:
    from harness.api.file_plugins import add_plugin

    for file in files or ():
        add_plugin(file)
    return files


PluginFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        callback=_add_plugins,
        help="Plugin in a single Python file; repeatable.",
        show_default=False,
    ),
]
"""Registers each file while the command line is read."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def given(**options: str | None) -> dict[str, str]:
    """Return the task options that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}
