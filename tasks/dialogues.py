"""Patients' questions and doctors' answers in the form that ChatDoctor published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from harness import (
    DATA_VARIABLE,
    Dialect,
    HarnessError,
    LengthProfile,
    Metric,
    Options,
    Splits,
    Table,
    Task,
    data_folder,
    find_file,
    read_table,
    text_column,
    usable_pairs,
)

_SOURCE = "input"
_TARGETS = ("output", "answer_icliniq")
"""Columns of the doctor's answer; a smaller release of iCliniq has the second name."""


class DialogueOptions(Options):
    """Options of a task on ChatDoctor's dialogues."""

    path: Path | None = None
    """JSON file, or the folder that holds it."""
    hub: str | None = None
    """Id on the Hugging Face hub, used instead of a file."""
    max_source_length: int = Field(512, ge=1)
    """Longest question in tokens; longer ones are truncated and counted."""
    max_target_length: int = Field(128, ge=1)
    """Longest answer in tokens; longer ones are truncated in training and counted."""
    encoding: str | None = None
    """Encoding of a text file, such as latin-1; by default UTF-8, or that of a byte order mark."""
    delimiter: str | None = None
    """Delimiter of a CSV file: one character, or tab, comma, semicolon, pipe; by default it is
    detected."""
    sheet: str | None = None
    """Sheet of a workbook; by default the first."""
    split_seed: int = Field(0, ge=0)
    """Seed of the split. It differs from the run's seed, so all seeds share one test set."""


class Dialogues(Task[DialogueOptions]):
    """Answers a patient's question as the doctor did.

    The source is the field ``input``, the target ``output``; the field ``instruction``, the same
    sentence in every object, is not read. The rows name no patient: the split is a plain shuffle.

    Attributes:
        stems: beginnings of the names of its files, in lower case.
        published: name of the file that ChatDoctor links to.
        hub_id: id of a copy on the hub.
    """

    Options = DialogueOptions
    stems: ClassVar[tuple[str, ...]]
    published: ClassVar[str]
    hub_id: ClassVar[str]

    def __init__(self, reference: str, options: DialogueOptions) -> None:
        super().__init__(reference, options)
        self.max_source_length = options.max_source_length
        self.max_target_length = options.max_target_length

    def splits(self, seed: int) -> Splits:
        """Read all dialogues and split them; the run's seed has no effect."""
        from datasets import Dataset

        from harness import count_leakage, hash_texts, split_rows

        table = self._read()
        target = self._target_column(table)
        sources, targets = text_column(table, _SOURCE), text_column(table, target)
        ids = [f"row-{number}" for number in range(1, len(table) + 1)]
        kept, skipped = usable_pairs(ids, sources, targets)
        parts = split_rows(len(kept["id"]), self.options.split_seed)
        rows = Dataset.from_dict(kept)
        train, evaluation, test = (
            rows.select(part) for part in (parts.train, parts.eval, parts.test)
        )
        leakage = count_leakage(*(hash_texts(s["source"]) for s in (train, evaluation, test)))
        return Splits(train, evaluation, test, dict(skipped), leakage, table.notes)

    def metrics(self) -> Sequence[Metric]:
        """Return the suite for dialogues."""
        from tasks.metrics import dialogue_metrics

        return dialogue_metrics()

    def _read(self) -> Table:
        if self.options.path is not None:
            path = self.options.path.expanduser()
            if not path.exists():
                raise self._missing(f"there is no file or folder {str(path)!r}")
            return read_table(self._within(path) if path.is_dir() else path, self._dialect())
        if self.options.hub is not None:
            return _from_hub(self.options.hub)
        folder = data_folder()
        if folder is None:
            raise self._missing(f"no path and no hub id is given, and ${DATA_VARIABLE} is not set")
        return read_table(self._within(folder), self._dialect())

    def _dialect(self) -> Dialect:
        return Dialect(self.options.encoding, self.options.delimiter, self.options.sheet)

    def _within(self, folder: Path) -> Path:
        """Return the task's file in the folder, or in its subfolder with the task's name."""
        for place in (folder, folder / self.reference):
            if file := find_file(place, self.stems):
                return file
        raise self._missing(
            f"no file in {folder} is named {' or '.join(f'{s}*.json' for s in self.stems)}"
        )

    def _missing(self, problem: str) -> HarnessError:
        return HarnessError(
            f"The data of {self.reference} were not found: {problem}.",
            f"Supply them in one of these ways:\n"
            f"  --set task_options.path=FILE    ChatDoctor's {self.published}, "
            "or any JSON list of objects with the fields instruction, input and output\n"
            f"  export {DATA_VARIABLE}=FOLDER     a folder that holds {self.published}\n"
            f"  --set task_options.hub={self.hub_id}    a copy on the Hugging Face hub\n"
            "ChatDoctor's page links to the files: https://github.com/Kent0n-Li/ChatDoctor",
        )

    @staticmethod
    def _target_column(table: Table) -> str:
        columns = [name for name in _TARGETS if name in table.columns]
        if _SOURCE not in table.columns or not columns:
            raise HarnessError(
                f"{table.path} does not hold ChatDoctor's dialogues, which have the fields "
                f"{_SOURCE} and {_TARGETS[0]}. Fields: {', '.join(table.columns)}.",
                "To use data with other fields, name the file and its columns: --task FILE "
                "--source-column NAME --target-column NAME",
            )
        return columns[0]


class HealthCareMagic(Dialogues):
    """Dialogues from healthcaremagic.com."""

    # Tokens: the words of Zhu et al. 2023, table 1, at 1.35 tokens a word, within the limits.
    length_profile = LengthProfile(source_mean=121, target_mean=122)
    eval_share = 0.5
    stems = ("hcm", "healthcaremagic")
    published = "HealthCareMagic-100k.json"
    hub_id = "lavita/ChatDoctor-HealthCareMagic-100k"


class ICliniq(Dialogues):
    """Dialogues from icliniq.com."""

    length_profile = LengthProfile(source_mean=150, target_mean=128)
    eval_share = 1.0
    stems = ("icliniq",)
    published = "iCliniq.json"
    hub_id = "lavita/ChatDoctor-iCliniq"


def _from_hub(reference: str) -> Table:
    from harness import load_from_hub

    columns: dict[str, list[object]] = {}
    for split in load_from_hub(reference).values():
        for name in split.column_names:
            columns.setdefault(name, []).extend(split[name])
    return Table(Path(reference), columns)
