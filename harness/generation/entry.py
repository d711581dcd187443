"""Generation from Python: ``harness.generate`` and ``harness.load``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.options import validate
from harness.data.dialect import Dialect
from harness.errors import HarnessError
from harness.generation.file_job import FileJob
from harness.generation.sources import Fields
from harness.generation.stream import Status
from harness.spec.decoding import DecodingSettings

if TYPE_CHECKING:
    from harness.generation.generated import Generated
    from harness.generation.loading import Decoder, LoadedModel

WINDOW = 2048
"""Default number of records that are sorted by length together."""


def generate(
    model: str | Path,
    texts: str | Path | Sequence[str],
    out: str | Path | None = None,
    *,
    beams: int | None = None,
    max_new_tokens: int | None = None,
    no_repeat_ngram: int | None = None,
    settings: Mapping[str, Any] | None = None,
    prefix: str | None = None,
    max_source_length: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    decoder: Decoder = "harness",
    adapters: Mapping[str, str | Path] | None = None,
    adapter_column: str | None = None,
    source_column: str | None = None,
    prediction_column: str = "prediction",
    input_format: str | None = None,
    output_format: str | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    window: int = WINDOW,
    batch_tokens: int | None = None,
    overwrite: bool = False,
    on_progress: Callable[[Status], None] = lambda status: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> list[str] | Generated:
    """Predict texts: those of a list, or those of a file of any size.

    A call for a file that was killed resumes when it is repeated with the same arguments.

    Args:
        model: the folder of a run or of an export, a folder of ``save_pretrained``, a hub id or a
            registered backbone.
        texts: a list of sources, or the path of a file (JSONL, CSV, Parquet, Arrow or a text per
            line); ``-`` is the standard input.
        out: for a file, the path of the output (JSONL, CSV, Parquet or a text per line); ``-`` is
            the standard output.
        beams: number of beams; 1 is greedy search. By default the model's own, as the following.
        max_new_tokens: longest prediction in tokens.
        no_repeat_ngram: size of the n-grams that may not occur twice; 0 allows all.
        settings: further settings of the search, such as ``{"length_penalty": 2.0}``.
        prefix: text before every source.
        max_source_length: longest source in tokens; longer ones are truncated and counted.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: precision of matrix products: ``auto``, ``float32`` or ``bfloat16``.
        decoder: ``harness``, or ``ctranslate2``, which is faster and ends some searches earlier.
        adapters: name -> folder of an adapter for PEFT.
        adapter_column: the column that names the adapter of each record; without it a single
            adapter is used for all.
        source_column: the column of the sources; by default guessed.
        prediction_column: the new column of the predictions.
        input_format: ``jsonl``, ``csv``, ``text``, ``parquet`` or ``arrow``; by default that of the
            suffix.
        output_format: ``jsonl``, ``csv``, ``text`` or ``parquet``; by default that of the suffix.
        encoding: the encoding of text files; by default UTF-8.
        delimiter: the delimiter between the cells of CSV files; by default guessed.
        window: records that are read, sorted by length and written together.
        batch_tokens: tokens of a batch: for each example those of the longest source and, for each
            beam, ``max_new_tokens``. The default depends on the device.
        overwrite: replace an output that exists, and start again.
        on_progress: is called after each batch.
        on_note: is called with sentences on what happens, such as a smaller batch.

    Returns:
        For a list, the predictions in its order; for a file, a summary.

    Raises:
        HarnessError: a mistake in the arguments or the files.

    Example:
        >>> harness.generate("results/RUN", ["The lungs are clear."])
        >>> harness.generate("results/RUN", "notes.jsonl", "predicted.jsonl").tokens_per_s
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    named = {
        "beams": beams,
        "max_new_tokens": max_new_tokens,
        "no_repeat_ngram": no_repeat_ngram,
    }
    chosen = {**(settings or {}), **{name: v for name, v in named.items() if v is not None}}
    if "batch_size" in chosen:
        raise HarnessError(
            "Batches are made by tokens here, not by examples.", "Set --batch-tokens N instead."
        )
    validate(DecodingSettings, chosen, "the search")
    folders = {name: Path(folder) for name, folder in (adapters or {}).items()}
    if len(folders) > 1 and adapter_column is None:
        raise HarnessError(
            f"There are {len(folders)} adapters, and no column says which one is for a record.",
            "Name the column: --adapter-column NAME",
        )
    if adapter_column is not None and not folders:
        raise HarnessError(
            f"No adapter is given for the column {adapter_column!r}.", "--adapter NAME=FOLDER"
        )
    only = next(iter(folders), None) if adapter_column is None else None
    fields = Fields(source_column, prediction_column, adapter_column, only)
    job = FileJob(
        reference=str(model),
        loading={
            "device": device,
            "precision": precision,
            "decoder": decoder,
            "adapters": folders,
            "settings": chosen,
            "prefix": prefix,
            "max_source_length": max_source_length,
        },
        fields=fields,
        window=window,
        batch_tokens=batch_tokens,
        on_progress=on_progress,
        on_note=on_note,
    )
    if isinstance(texts, str | Path):
        if out is None:
            raise HarnessError("The input is a file, and no output is given.", "Give a file: out")
        return job.run(
            str(texts),
            str(out),
            input_format=input_format,
            output_format=output_format,
            dialect=Dialect(encoding, delimiter),
            overwrite=overwrite,
        )
    if out is not None or adapter_column is not None:
        raise HarnessError(
            "The texts are a list: their predictions are returned as a list, without columns.",
            "Give a file, or leave out and adapter_column away.",
        )
    return job.predict(list(texts))


def load(model: str | Path) -> LoadedModel:
    """Load a model without adapters and its tokenizer, ready for ``generate`` of transformers.

    Its generation settings are those with which the run was measured, so that
    ``model.generate(**tokenizer(prefix + text, return_tensors="pt"))`` predicts the same.

    Args:
        model: as in ``generate``.

    Returns:
        The model in float32 on the CPU, its tokenizer, and the prefix of every source.

    Raises:
        HarnessError: there is no such model, or its adapters cannot be merged.

    Example:
        >>> loaded = harness.load("results/RUN")
        >>> loaded.model.generation_config.num_beams
    """
    from harness.generation.loading import load_merged

    return load_merged(str(model))
