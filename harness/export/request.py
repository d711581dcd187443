"""Request of an export: the chosen form and its options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.export.manifest import Form

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class ExportRequest:
    """A request to export the model of a run.

    Attributes:
        out: the folder to write.
        form: the form of the export.
        dtype: data type of the stored weights.
        base: of an adapter: the folder of a base that several adapters share.
        rebuild: of an adapter: write a script that makes the base, instead of the base.
        quantization: of a model of CTranslate2: its quantization.
        overwrite: replace an earlier export in that folder.
        examples_in_card: quote examples of the test split in the model card.
    """

    out: Path
    form: Form = "merged"
    dtype: Dtype = "float32"
    base: Path | None = None
    rebuild: bool = False
    quantization: str | None = None
    overwrite: bool = False
    examples_in_card: bool = False
