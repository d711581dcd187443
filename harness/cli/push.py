"""``harness push``: uploads an exported model to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options

if TYPE_CHECKING:
    from harness.export.push import Push


def push(
    folder: Annotated[Path, typer.Argument(help="Folder that harness export wrote.")],
    repository: Annotated[str, typer.Argument(help="Repository of the hub: ACCOUNT/NAME.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Upload; otherwise files are checked and listed only.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see the repository.")
    ] = False,
    any_folder: Annotated[
        bool,
        typer.Option(
            "--any",
            help="Allow a folder without manifest or model card, and weights changed since.",
        ),
    ] = False,
    examples: Annotated[
        bool, typer.Option("--examples", help="Allow a model card that quotes test examples.")
    ] = False,
    message: Annotated[
        str | None,
        typer.Option(help="Message of the commit.", show_default="backbone, recipe and form"),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Upload an exported model to the Hugging Face hub. Without --yes, nothing is sent.

    The repository is private unless --public is given. The access token is the one of
    `hf auth login` or of the variable HF_TOKEN.

    Example: harness push my-model my-account/my-model
    """
    import harness

    if as_json:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    result = harness.push(
        folder,
        repository,
        upload=yes,
        public=public,
        any_folder=any_folder,
        examples=examples,
        message=message,
    )
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
        return
    _print(result)


def _print(result: Push) -> None:
    from harness.cli.file_sizes import print_sizes

    kind = "private" if result.private else "public"
    print_sizes(result.files)
    for note in result.notes:
        typer.echo(f"Note: {note}")
    if not result.uploaded:
        typer.echo(
            f"Nothing was sent. With --yes, these files go to the {kind} repository "
            f"{result.repository}, which is created if there is none."
        )
        return
    typer.echo(f"Uploaded to the {kind} repository {result.repository}: {result.url}")
    if result.left_there:
        typer.echo(f"Other files that stay there: {', '.join(result.left_there)}")
