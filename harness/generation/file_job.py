"""A job: a model and its settings, applied to a list of texts or to a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.dialect import Dialect
from harness.errors import HarnessError
from harness.generation.batch_predictor import BATCH_TOKENS, BatchPredictor
from harness.generation.formats import OUTPUT_FORMATS, STANDARD, format_of
from harness.generation.generated import Generated
from harness.generation.identity import identity_of, model_version
from harness.generation.loading import load_text_model
from harness.generation.opening import open_reader
from harness.generation.progress import Progress
from harness.generation.readers import CellReader, LineReader, Reader
from harness.generation.sources import Fields, SourceFinder
from harness.generation.stream import Status, Stream
from harness.generation.text_model import TextModel
from harness.generation.work_folder import WorkFolder, errors_file
from harness.generation.writers import (
    CellWriter,
    GzipJsonLinesWriter,
    GzipTextWriter,
    JsonLinesWriter,
    StreamWriter,
    TextWriter,
    Writer,
)
from harness.training.resolved_run import choose_device


@dataclass(frozen=True)
class FileJob:
    """A model and its settings.

    Attributes:
        reference: the model.
        loading: arguments of ``load_text_model``.
        fields: names of columns.
        window: records that are sorted by length together.
        batch_tokens: token budget of a batch; None is the default of the device.
        on_progress: is called after each batch.
        on_note: is called with sentences on what happens.
    """

    reference: str
    loading: Mapping[str, Any]
    fields: Fields
    window: int
    batch_tokens: int | None
    on_progress: Callable[[Status], None]
    on_note: Callable[[str], None]

    @property
    def budget(self) -> int:
        """The token budget of a batch."""
        device = choose_device(self.loading["device"]).type
        return self.batch_tokens or BATCH_TOKENS.get(device, BATCH_TOKENS["cpu"])

    def predict(self, texts: list[str]) -> list[str]:
        """Return the predictions of a list of texts."""
        predictions: list[str] = []
        with load_text_model(self.reference, **self.loading) as model:
            predictor = self._predictor(model, self.budget)
            for start in range(0, len(texts), self.window):
                part = texts[start : start + self.window]
                adapters = [self.fields.only_adapter] * len(part)
                predictions += predictor.predict(part, adapters).texts
        return predictions

    def run(
        self,
        source: str,
        out: str,
        *,
        input_format: str | None,
        output_format: str | None,
        dialect: Dialect,
        overwrite: bool,
    ) -> Generated:
        """Predict the records of a file. See ``harness.generate`` for the arguments."""
        reader = open_reader(source, input_format, dialect)
        finder = SourceFinder(reader, self.fields, list(self.loading["adapters"]))
        for note in reader.notes:
            self.on_note(note)
        kind = _output_format(out, output_format, reader)
        folder = None if out == STANDARD else WorkFolder(Path(out), overwrite=overwrite)
        version = "" if folder is None else model_version(self.reference)
        with load_text_model(self.reference, **self.loading) as model:
            predictor = self._predictor(model, self.budget)
            if folder is None:
                writer = _stream_writer(kind, self.fields.prediction)
                return self._stream(reader, writer, predictor, finder, out, None, None)
            further = {
                "window": self.window,
                "batch_tokens": self.budget,
                "device": choose_device(self.loading["device"]).type,
                "precision": self.loading["precision"],
                "decoder": self.loading["decoder"],
                "source column": self.fields.source,
                "prediction column": self.fields.prediction,
                "adapter column": self.fields.adapter,
                "input format": f"{type(reader).__name__} {dialect}",
                "output format": kind,
            }
            identity = identity_of(model, version, self.loading["adapters"], further)
            with folder:
                progress = folder.load(identity, self.budget)
                writer = writer_of(kind, folder, self.fields.prediction, reader)
                return self._stream(reader, writer, predictor, finder, out, folder, progress)

    def _predictor(self, model: TextModel, budget: int) -> BatchPredictor:
        def on_smaller(tokens: int) -> None:
            self.on_note(f"Memory ran out: batches have at most {tokens:,} tokens from now on.")

        return BatchPredictor(model, budget, on_smaller)

    def _stream(
        self,
        reader: Reader,
        writer: Writer,
        predictor: BatchPredictor,
        finder: SourceFinder,
        out: str,
        folder: WorkFolder | None,
        progress: Progress | None,
    ) -> Generated:
        progress = progress or Progress(identity={}, batch_tokens=self.budget)
        resumed_after = progress.records
        if resumed_after:
            self.on_note(f"Resumed after {resumed_after:,} records.")
        stream = Stream(
            reader,
            writer,
            predictor,
            finder,
            window=self.window,
            folder=folder,
            on_progress=self.on_progress,
            on_error=lambda line, reason: self.on_note(f"Line {line}: {reason}."),
        )
        notes = [*reader.notes, *stream.run(progress)]
        errors = str(errors_file(Path(out))) if folder and progress.errors else None
        return Generated.of(
            progress, output=out, errors_file=errors, resumed_after=resumed_after, notes=notes
        )


def _output_format(out: str, requested: str | None, reader: Reader) -> str:
    if out != STANDARD:
        return format_of(out, requested, OUTPUT_FORMATS, "--output-format")
    lines = type(reader) is LineReader
    kind = requested or ("text" if lines else "jsonl")
    if kind not in ("jsonl", "text"):
        raise HarnessError(
            f"{kind!r} cannot be written to the standard output.",
            "Write jsonl or text there (--output-format), or give a file: --out FILE",
        )
    return kind


def _stream_writer(kind: str, column: str) -> Writer:
    nowhere = Path()
    encoder = TextWriter(nowhere, column) if kind == "text" else JsonLinesWriter(nowhere)
    return StreamWriter(encoder)


def writer_of(kind: str, folder: WorkFolder, column: str, reader: Reader) -> Writer:
    """Return the writer of a format.

    Args:
        kind: the format.
        folder: the partial output.
        column: the column of predictions.
        reader: the input, whose delimiter and types are kept where the format has them.
    """
    name = folder.out.name
    packed = name.endswith(".gz")
    if kind == "parquet":
        from harness.generation.parquet_writer import ParquetWriter

        return ParquetWriter(folder.rows, reader.types())
    if kind == "csv":
        delimiter = "\t" if name.removesuffix(".gz").endswith(".tsv") else ","
        if isinstance(reader, CellReader) and delimiter == ",":
            delimiter = reader.delimiter
        return CellWriter(folder.rows, delimiter, compressed=packed)
    if kind == "text":
        return (GzipTextWriter if packed else TextWriter)(folder.rows, column)
    return (GzipJsonLinesWriter if packed else JsonLinesWriter)(folder.rows)
