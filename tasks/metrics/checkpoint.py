"""Models of metrics: found on this machine, never downloaded, identified by a hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Checkpoint:
    """A model in the Hugging Face format.

    Scoring never downloads a model: it could be gigabytes at the end of a training run, and
    machines with clinical text are often offline on purpose.

    Attributes:
        reference: a local folder, or the id of a model in the hub's local cache.
        setting: environment variable that names another model, for messages.
    """

    reference: str
    setting: str

    @property
    def name(self) -> str:
        """The hub id, or the last part of the folder's path."""
        return Path(self.reference).resolve().name if self._is_folder else self.reference

    @property
    def folder(self) -> Path | None:
        """Folder of the checkpoint, or ``None`` where it is not on this machine."""
        if self._is_folder:
            return Path(self.reference)
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            config = try_to_load_from_cache(self.reference, "config.json")
        except HFValidationError:
            return None
        return Path(config).parent if isinstance(config, str) else None

    def missing(self) -> str | None:
        """Return why the model cannot be used, with the remedy, or ``None``."""
        folder = self.folder
        remedy = (
            f"Download it (hf download {self.reference}), or set {self.setting} to a local folder."
        )
        if folder is None:
            return f"The model {self.reference!r} is not on this machine. {remedy}"
        if not (folder / "config.json").is_file() or not _weights(folder):
            return f"The model {self.reference!r} lacks its config.json or its weights. {remedy}"
        return None

    def digest(self) -> str:
        """Return the first 12 digits of the SHA-256 of the weight files, in order of name."""
        assert self.folder is not None
        total = hashlib.sha256()
        for path in _weights(self.folder):
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()[:12]

    @property
    def _is_folder(self) -> bool:
        return Path(self.reference).is_dir()


def _weights(folder: Path) -> list[Path]:
    # transformers also prefers safetensors if both exist.
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
