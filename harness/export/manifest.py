"""Manifest: the file in every exported folder that says what the model is and how to use it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from harness.errors import HarnessError, first_line
from harness.records.record import Record
from harness.records.report import LayersKept
from harness.spec.decoding import DecodingSettings

FILE = "harness.json"

Form = Literal["merged", "adapter", "ctranslate2"]
"""Forms of an export: a plain model, an adapter for PEFT, or a model of CTranslate2."""


class ExportCheck(Record):
    """Comparison of an exported model, loaded by stock libraries, with the model of the run."""

    examples: int
    """Test examples that were compared."""
    equal_predictions: int
    """Examples for which both predict the same text."""
    least_equal: int
    """Fewest equal predictions with which the check passes."""
    reference: str
    """The predictions compared with: those that the run stored, or new ones in float32."""
    equal_to_stored: int
    """Examples for which the exported model predicts the text that the run stored."""
    stored_must_equal: bool = False
    """True if all of these must be equal: the run decoded in float32, on a CPU, with the same
    search. Another precision, device or decoder can change a prediction."""
    largest_difference: float
    """Largest absolute difference of logits, or of log-probabilities of target tokens."""
    limit: float
    """Largest difference with which the check passes."""
    mean_difference: float | None = None
    """Mean absolute difference of log-probabilities, in nats; null if logits were compared."""
    mean_limit: float | None = None
    """Largest mean difference with which the check passes; null if logits were compared."""
    compared: Literal["logits", "log-probabilities"]
    """The numbers whose difference was taken, with the references as targets."""
    libraries: dict[str, str] = Field(default_factory=dict)
    """Versions of the libraries that loaded the exported model."""


class Manifest(Record):
    """Description of an exported model: its origin, its use and its check."""

    schema_version: int = 1
    """Version of this record's schema."""
    form: Form
    """Form of the export."""
    run: str
    """Id of the run."""
    backbone: str
    """The original model: a hub id, a registered name or the name of a folder."""
    backbone_version: str | None = None
    """Identifies the files of the original model; null for runs of older versions."""
    recipe: str
    """Recipe that the model was trained with."""
    task: str
    """Task that it was trained on."""
    data_sha256: str | None = None
    """Hash of the texts of all splits."""
    prefix: str
    """Text before every source."""
    max_source_length: int
    """Longest source in tokens; longer ones are truncated."""
    decoding: DecodingSettings
    """Settings with which the test split was predicted."""
    dtype: str
    """Data type of the stored weights: float32, bfloat16, float16, or a quantization."""
    layers_kept: LayersKept | None = None
    """Layers of the original that the model has."""
    base: str | None = None
    """Folder of an adapter's base, relative to the adapter, or the original's name; null for other
    forms."""
    base_sha256: str | None = None
    """Hash of the weights of an adapter's base; null if that is the original, which
    ``backbone_version`` identifies, and for other forms."""
    weights_sha256: str
    """Hash of the weights in this folder."""
    check: ExportCheck
    """Result of the check that preceded this file."""


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of an exported folder; return None if there is none.

    Raises:
        HarnessError: the file is damaged or has another schema.
    """
    path = folder / FILE
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise HarnessError(
            f"{str(path)!r} is not a manifest of this version: {first_line(error)}.",
            "Export the run again: harness export RUN --out FOLDER",
        ) from error
