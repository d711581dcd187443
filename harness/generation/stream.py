"""The stream of records through a model: window by window, resumable after each batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from harness import clock
from harness.errors import HarnessError
from harness.generation.batch_predictor import BatchPredictor
from harness.generation.progress import Progress
from harness.generation.readers import Reader
from harness.generation.sources import Source, SourceFinder
from harness.generation.work_folder import WorkFolder
from harness.generation.writers import Writer


class Status(NamedTuple):
    """Progress of a stream in this process.

    Attributes:
        records: records that are done, those of earlier processes included.
        share: share of the input that is done, from 0 to 1; None if it is unknown.
        tokens: tokens that this process predicted.
        seconds: time that this took.
    """

    records: int
    share: float | None
    tokens: int
    seconds: float


class Stream:
    """Predicts all records of an input.

    Args:
        reader: the input.
        writer: the output.
        predictor: the model and its batches.
        finder: finds the sources.
        window: records that are read, sorted and written at once. Windows begin at fixed places of
            the input, so that a resumed stream decodes the same batches.
        folder: the partial output; None if the output cannot be resumed.
        on_progress: is called after each batch and each window.
        on_error: is called with the line and the reason of each bad record if there is no folder.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        predictor: BatchPredictor,
        finder: SourceFinder,
        *,
        window: int,
        folder: WorkFolder | None = None,
        on_progress: Callable[[Status], None] = lambda status: None,
        on_error: Callable[[int, str], None] = lambda line, reason: None,
    ) -> None:
        self._reader, self._writer, self._predictor = reader, writer, predictor
        self._finder, self._window, self._folder = finder, window, folder
        self._on_progress, self._on_error = on_progress, on_error
        self._digest = hashlib.sha256(repr(reader.columns).encode())
        self._began = clock.seconds()

    def run(self, progress: Progress) -> tuple[str, ...]:
        """Predict what is not done yet, and write the whole output.

        Args:
            progress: the position to start from; it is updated.

        Returns:
            Notes on what the format of the output could not hold.

        Raises:
            HarnessError: the input or the output cannot be used.
        """
        items = self._reader.items()
        self._skip(items, progress)
        self._predictor.batch_tokens = progress.batch_tokens
        self._finder.column = progress.source_column or self._finder.column
        share = self._reader.share()
        while window := list(islice(items, self._window)):
            self._run_window(window, progress, share)
            share = self._reader.share()
            self._report(progress.records, share)
        columns = [
            *(progress.columns or self._reader.columns or ()),
            self._finder.fields.prediction,
        ]
        if self._folder is None:
            return ()
        notes = self._writer.finish(self._folder.whole(), columns)
        self._folder.publish(progress.errors)
        return notes

    def _skip(self, items: Iterator[tuple[int, Any]], progress: Progress) -> None:
        """Read the records that are done, and check that they are the same as before."""
        if self._folder is None:
            return
        if progress.windows:
            for _, item in islice(items, progress.records):
                self._digest.update(self._reader.content(item))
            progress.require_input(self._folder.out, self._digest.hexdigest())
        self._writer.rewind(progress.output)
        self._folder.rewind_errors(progress.error_bytes)

    def _run_window(
        self, items: Sequence[tuple[int, Any]], progress: Progress, share: float | None
    ) -> None:
        """Predict a window, write it, and save the progress."""
        began = clock.seconds()
        for _, item in items:
            self._digest.update(self._reader.content(item))
        window = self._finder.read(items)
        if not window.good and not progress.windows:
            line, reason = window.errors[0]
            raise HarnessError(
                f"None of the first {len(items):,} records can be used. Line {line}: {reason}.",
                "Check the format and the column: --input-format NAME, --source-column NAME",
            )
        progress.source_column = self._finder.column
        earlier = self._predict(window.good, progress, share, len(items))
        self._writer.append([None if r is None else r.values for r in window.records])
        progress.output = self._writer.position
        window.count(progress)
        progress.batch_tokens = self._predictor.batch_tokens
        names = dict.fromkeys([*progress.columns, *(n for r in window.good for n in r.values)])
        progress.columns = [name for name in names if name != self._finder.fields.prediction]
        progress.seconds += earlier + clock.seconds() - began
        if self._folder is None:
            for line, reason in window.errors:
                self._on_error(line, reason)
            return
        progress.input_sha256 = self._digest.hexdigest()
        progress.error_bytes = self._folder.add_errors(window.errors)
        self._folder.save(progress)
        self._folder.remove_window(progress.input_sha256)

    def _predict(
        self, records: Sequence[Source], progress: Progress, share: float | None, size: int
    ) -> float:
        """Add the prediction to each record; return the seconds that an earlier process spent."""
        partial = self._folder.window(self._digest.hexdigest()) if self._folder else None
        earlier = partial.seconds if partial else 0.0
        done = len(partial.predictions) if partial else 0
        now = self._reader.share()

        def on_batch(predictions: dict[int, str]) -> None:
            nonlocal done
            if self._folder and partial is not None:
                if not done and not progress.windows:
                    self._folder.save(progress)
                partial.add(predictions)
            done += len(predictions)
            between = None
            if share is not None and now is not None:
                between = share + (now - share) * done / size
            self._report(progress.records + done, between)

        predicted = self._predictor.predict(
            [record.text for record in records],
            [record.adapter for record in records],
            partial.predictions if partial else None,
            on_batch,
        )
        for record, text in zip(records, predicted.texts, strict=True):
            record.values[self._finder.fields.prediction] = text
        progress.truncated += predicted.truncated
        progress.source_tokens += predicted.source_tokens
        progress.prediction_tokens += predicted.prediction_tokens
        return earlier

    def _report(self, records: int, share: float | None) -> None:
        seconds = clock.seconds() - self._began
        self._on_progress(Status(records, share, self._predictor.tokens, seconds))
