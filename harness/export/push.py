"""An upload of an exported model, from Python: ``harness.push``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from harness.errors import HarnessError
from harness.export import card, manifest
from harness.export.hub_repository import HubRepository
from harness.export.pushed_files import list_files
from harness.export.rebuild_base import weights_hash
from harness.records.record import Record


class Push(Record):
    """An upload to the hub, or what one would do."""

    repository: str
    """The repository, as ACCOUNT/NAME."""
    private: bool
    """True if nobody else can see the repository."""
    files: dict[str, int]
    """Path in the repository -> bytes."""
    total_bytes: int
    """Bytes of all files."""
    notes: list[str]
    """Facts to know before the model is used from there."""
    uploaded: bool
    """False for a dry run, which sends nothing."""
    url: str | None = None
    """Address of the commit; null for a dry run."""
    left_there: list[str] = Field(default_factory=list)
    """Files that the repository had before and that this folder lacks; they stay."""


def push(
    folder: str | Path,
    repository: str,
    *,
    upload: bool = False,
    public: bool = False,
    any_folder: bool = False,
    examples: bool = False,
    message: str | None = None,
) -> Push:
    """Upload an exported folder to the Hugging Face hub; by default only check and list it.

    The access token is the one of ``hf auth login`` or of the variable ``HF_TOKEN``.

    Args:
        folder: the folder, as ``harness export`` writes it.
        repository: the repository, as ``ACCOUNT/NAME``; it is created if there is none.
        upload: send the files; otherwise nothing is sent.
        public: everybody can see the repository.
        any_folder: allow a folder without manifest or model card, and weights that are not those
            that the export checked.
        examples: allow a model card that quotes examples of the test split.
        message: the message of the commit.

    Returns:
        The files with their sizes, and the address of the commit if they were uploaded.

    Raises:
        HarnessError: the folder is not an export or holds a file of another kind, the repository's
            name or visibility is wrong, or the hub refuses or cannot be reached.

    Example:
        >>> harness.push("my-model", "my-account/my-model").files
    """
    folder = Path(folder).expanduser()
    target = HubRepository(repository, private=not public)
    description = _description(folder, any_folder)
    files = list_files(folder, description)
    _check_card(folder, examples)
    result = Push(
        repository=repository,
        private=not public,
        files={name: path.stat().st_size for name, path in files.items()},
        total_bytes=sum(path.stat().st_size for path in files.values()),
        notes=_notes(description, set(files)),
        uploaded=False,
    )
    if not upload:
        return result
    commit = target.upload(files, message or _message(description))
    changes = {"uploaded": True, "url": commit.url, "left_there": commit.left_there}
    return result.model_copy(update=changes)


def _description(folder: Path, any_folder: bool) -> manifest.Manifest | None:
    if not folder.is_dir():
        raise HarnessError(
            f"There is no folder {str(folder)!r}.", "Write one: harness export RUN --out FOLDER"
        )
    description = manifest.read_manifest(folder)
    if any_folder:
        return description
    missing = [name for name in (manifest.FILE, card.FILE) if not (folder / name).is_file()]
    if missing:
        raise HarnessError(
            f"{str(folder)!r} has no {' and no '.join(missing)}, so that nobody could tell what "
            "the model is.",
            "Export the run: harness export RUN --out FOLDER; or push it as it is: --any",
        )
    assert description is not None
    if description.form != "ctranslate2" and weights_hash(folder) != description.weights_sha256:
        raise HarnessError(
            f"The weights in {str(folder)!r} are not those that the export checked.",
            "Export the run again, or push the folder as it is: --any",
        )
    return description


def _check_card(folder: Path, examples: bool) -> None:
    path = folder / card.FILE
    if examples or not path.is_file():
        return
    if card.EXAMPLES in path.read_text("utf-8", errors="replace").splitlines():
        raise HarnessError(
            f"The model card {str(path)!r} quotes examples of the test split.",
            "Export without --examples, or push them too: --examples",
        )


def _notes(description: manifest.Manifest | None, files: set[str]) -> list[str]:
    if description is None:
        return ["There is no manifest, so that the model's origin and its check are not known."]
    base, notes = description.base, []
    if base is not None and description.base_sha256 is not None:
        if Path(base).is_absolute() or base.startswith(".."):
            notes.append(
                f"The adapter's base {base} is not in this folder: push it too, and name it to "
                "PeftModel.from_pretrained."
            )
        elif not any(name.startswith(f"{base}/") for name in files):
            notes.append("The adapter's base is not in this folder: rebuild_base.py makes it.")
    elif base is not None and Path(base).is_absolute():
        notes.append(f"The adapter's base is the folder {base} of this machine.")
    return notes


def _message(description: manifest.Manifest | None) -> str:
    if description is None:
        return "Upload a model"
    return f"Upload {description.backbone} with {description.recipe}, as {description.form}"
