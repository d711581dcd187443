"""Identity of an output: all that can change it, so that a resumed command does what it did
before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.api.plugins import installed
from harness.data.hashing import file_hash, folder_hash
from harness.export.manifest import read_manifest
from harness.generation.text_model import TextModel
from harness.records.run_choice import choose_run
from harness.records.run_folder import REPORT, find_runs, read_report
from harness.training.trained_weights import FILE as WEIGHTS


def model_version(reference: str) -> str:
    """Return a text that identifies a model by its files.

    Args:
        reference: a run, an export, a folder or a hub id.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir() and read_manifest(folder) is None and not (folder / "config.json").exists():
        if (folder / REPORT).is_file() or any(True for _ in find_runs(folder)):
            run = choose_run(folder)
            return f"{read_report(run).id} sha256:{file_hash(run / WEIGHTS)}"
        return f"sha256:{folder_hash(folder)}"
    if folder.is_dir():
        return f"sha256:{folder_hash(folder)}"
    return installed().backbone(reference).version()


def identity_of(
    model: TextModel, version: str, adapters: Mapping[str, Path], further: Mapping[str, object]
) -> dict[str, str]:
    """Return all that can change an output, by name.

    Args:
        model: the model.
        version: see ``model_version``.
        adapters: name -> folder of each adapter.
        further: options of the input and the output.
    """
    import torch
    import transformers

    from harness import __version__

    usage = model.usage
    values: dict[str, object] = {
        "model": version,
        "prefix": repr(usage.prefix),
        "max_source_length": usage.max_source_length,
        **usage.settings.model_dump(exclude={"batch_size"}),
        **{f"adapter {name}": folder_hash(folder) for name, folder in adapters.items()},
        **further,
        "harness": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return {name: str(value) for name, value in values.items()}
