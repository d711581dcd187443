"""``harness export``: writes the model of a run for other programs, and proves it equal."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli import options
from harness.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.export.manifest import Form, Manifest


def export(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of a run, or of runs of one recipe with several seeds."),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    merged: Annotated[
        bool, typer.Option("--merged", help="A plain model of transformers; the default.")
    ] = False,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="An adapter for PEFT, and its base beside it.")
    ] = False,
    ctranslate2: Annotated[
        bool, typer.Option("--ctranslate2", help="A model of CTranslate2.")
    ] = False,
    quantization: Annotated[
        str | None,
        typer.Option(
            help="With --ctranslate2: int8, int8_float16, ...", show_default="not quantized"
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        typer.Option(help="Data type of the stored weights; of an adapter: of its base."),
    ] = "float32",
    base: Annotated[
        Path | None,
        typer.Option(
            help="With --adapter: folder of a base that several adapters share.",
            show_default="the folder base in --out",
        ),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="With --adapter: write a script that makes the base from the original.",
        ),
    ] = False,
    seed: Annotated[
        str | None,
        typer.Option(
            metavar="N|best",
            help="Seed of the run; best: the one with the best value on the eval split.",
            show_default="the only one",
        ),
    ] = None,
    examples: Annotated[
        bool, typer.Option("--examples", help="Quote test examples in the model card.")
    ] = False,
    plugin: options.PluginFiles = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write the trained model of a run for other programs, and prove that it is that model.

    A fresh process with stock libraries alone loads the result and is compared with the run, on 20
    test examples. The folder appears only if they agree.
    """
    from harness.export.entry import export_run

    form = _form(merged=merged, adapter=adapter, ctranslate2=ctranslate2)
    with progress(quiet=as_json) as on_progress:
        folder = export_run(
            run,
            out,
            form=form,
            dtype=dtype,
            base=base,
            rebuild=rebuild,
            quantization=quantization,
            seed=seed,
            overwrite=overwrite,
            examples_in_card=examples,
            on_progress=on_progress,
        )
    show(folder, as_json=as_json)


def export_and_show(run: Path, out: Path, *, overwrite: bool, quiet: bool) -> None:
    """Export a run merged, and print what was written unless ``quiet``."""
    from harness.export.entry import export_run

    with progress(quiet=quiet) as on_progress:
        folder = export_run(run, out, overwrite=overwrite, on_progress=on_progress)
    if not quiet:
        show(folder, as_json=False)


def _form(*, merged: bool, adapter: bool, ctranslate2: bool) -> Form:
    chosen: list[Form] = []
    chosen += ["merged"] if merged else []
    chosen += ["adapter"] if adapter else []
    chosen += ["ctranslate2"] if ctranslate2 else []
    if len(chosen) > 1:
        raise HarnessError(
            f"Several forms were chosen: {', '.join(f'--{form}' for form in chosen)}.",
            "Export each into a folder of its own.",
        )
    return chosen[0] if chosen else "merged"


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show the present phase on stderr while it runs, if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True, quiet=quiet)
    with console.status("Opening the run") as status:
        yield status.update


def show(folder: Path, *, as_json: bool) -> None:
    """Print the files of an export with their sizes, and the result of its check.

    Args:
        folder: the exported folder.
        as_json: print the manifest and the files as JSON.
    """
    from harness.cli.file_sizes import print_sizes
    from harness.export.entry import size_of
    from harness.export.manifest import read_manifest

    manifest, files = read_manifest(folder), size_of(folder)
    assert manifest is not None
    if as_json:
        import json

        values = {
            "folder": str(folder),
            "files": files,
            "manifest": manifest.model_dump(mode="json"),
        }
        typer.echo(json.dumps(values, indent=2))
        return
    typer.echo(f"Written: {folder}\n")
    print_sizes(files)
    for name, value in _check_rows(manifest):
        typer.echo(f"  {name:<28} {value}")


def _check_rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    check = manifest.check
    yield "compared with", check.reference
    yield "equal predictions", f"{check.equal_predictions} of {check.examples}"
    yield "equal to those of the run", f"{check.equal_to_stored} of {check.examples}"
    largest = f"{check.largest_difference:.2g} (allowed: {check.limit:.2g})"
    yield f"largest difference, {check.compared}", largest
    if check.mean_difference is not None:
        yield "mean difference", f"{check.mean_difference:.2g} (allowed: {check.mean_limit:.2g})"
    if manifest.base is not None:
        yield "base", manifest.base
