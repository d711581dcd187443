"""``harness new``: writes the package of a plugin, which passes its checks as it is."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import HarnessError

TEMPLATES = Path(__file__).with_name("templates")


class NewKind(StrEnum):
    """A kind of plugin that there is a template of."""

    COMPRESSOR = "compressor"
    TASK = "task"
    BACKBONE = "backbone"
    METRIC = "metric"


@dataclass(frozen=True)
class _Kind:
    """Texts of a kind.

    Attributes:
        summary: what the plugin of the template does.
        use: a command that uses it.
    """

    summary: str
    use: str


_KINDS = {
    NewKind.COMPRESSOR: _Kind("train the modules of one role", "run --compressor {name}+lprun"),
    NewKind.TASK: _Kind("sums of two numbers", "run --task {name}"),
    NewKind.BACKBONE: _Kind(
        "a small Pegasus without weights", "plan --backbone {name} --compressor lora_ff+lprun"
    ),
    NewKind.METRIC: _Kind("recall of words", "run --metrics rouge,{name}"),
}


def new(
    kind: Annotated[NewKind, typer.Argument(help="Kind of the plugin.", show_default=False)],
    name: Annotated[
        str, typer.Argument(help="Name of the plugin and of its package.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder that the package is written into.")] = Path(),
    file: Annotated[
        bool,
        typer.Option(
            "--file", help="Write a single file for --plugin, without a package; compressors only."
        ),
    ] = False,
) -> None:
    """Write the package of a new plugin, with a test and a README.

    It passes harness check as it is. Replace what it does by your own.

    Example: harness new compressor my_method
    """
    _require_free(kind, name)
    if file:
        path = _write_file(kind, name, out)
        typer.echo(f"Written: {path}")
        typer.echo(f"harness check {name} --plugin {path}")
        return
    folder = _write_package(kind, name, out)
    typer.echo(f"Written: {folder}")
    typer.echo(f"pip install -e {folder}")
    typer.echo(f"harness check {name}")


def _require_free(kind: NewKind, name: str) -> None:
    """Check that a name can be the plugin's and the module's.

    Raises:
        HarnessError: it cannot.
    """
    from harness.api.plugins import installed

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise HarnessError(
            f"{name!r} is no name of a Python module.",
            "Write lower-case letters, digits and underscores, such as my_method.",
        )
    for entry in installed().registries[f"{kind}s"]:
        if entry.name == name:
            raise HarnessError(
                f"{entry.origin} has a {kind} {name!r} already.", "Choose another name."
            )
    if importlib.util.find_spec(name) is not None:
        raise HarnessError(
            f"There is a Python module {name!r} already.", "Choose another name for the package."
        )


def _write_package(kind: NewKind, name: str, out: Path) -> Path:
    folder = out / name
    files = {
        "pyproject.toml": "package/pyproject.toml",
        "README.md": "package/README.md",
        f"{name}/__init__.py": "package/__init__.py",
        f"{name}/{kind}.py": f"{kind}/class.py",
        f"tests/test_{name}.py": "package/test.py",
    }
    texts = {file: _filled(template, kind, name) for file, template in files.items()}
    _make_folder(folder)
    for file, text in texts.items():
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


def _write_file(kind: NewKind, name: str, out: Path) -> Path:
    if kind is not NewKind.COMPRESSOR:
        raise HarnessError(
            f"There is no single file of a {kind}.", f"Leave out --file: harness new {kind} {name}"
        )
    text = _filled("compressor/class.py", kind, name) + _filled("compressor/hooks.py", kind, name)
    names = "from harness import Backbone, Compressor, Context, HarnessError, Options, Stage\n"
    more = (
        "from harness import (\n    Backbone,\n    Compressor,\n    Context,\n    HarnessError,\n"
        "    Options,\n    Register,\n    Stage,\n    hookimpl,\n)\n"
    )
    path = out / f"{name}.py"
    try:
        with path.open("x", encoding="utf-8") as written:
            written.write(text.replace(names, more))
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise HarnessError(f"{str(path)!r} cannot be written: {error}.") from error
    return path


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise _exists(folder) from error
    except OSError as error:
        raise HarnessError(f"{str(folder)!r} cannot be written: {error}.") from error


def _exists(path: Path) -> HarnessError:
    return HarnessError(
        f"{str(path)!r} exists already.", "Choose another name, or another folder: --out FOLDER"
    )


def _filled(template: str, kind: NewKind, name: str) -> str:
    """Return the text of a template with names in the place of its blanks."""
    text = (TEMPLATES / f"{template}.txt").read_text("utf-8")
    values = {
        "name": name,
        "distribution": name.replace("_", "-"),
        "kind": str(kind),
        "class": "".join(part.capitalize() for part in name.split("_")),
        "summary": _KINDS[kind].summary,
        "use": f"    harness {_KINDS[kind].use.format(name=name)}",
    }
    for blank, value in values.items():
        text = text.replace(f"{{{{{blank}}}}}", value)
    return text
