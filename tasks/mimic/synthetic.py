"""Synthetic notes in the format of MIMIC-IV-Note's CSV files, by the embedded task's generator.

With them, all steps from CSV to report can be tried without access to the data. Results on them do
not hold for real notes.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from tasks.mimic.notes import COLUMNS
from tasks.radiology_demo.dice import Dice
from tasks.radiology_demo.report import Report, write_reports

_TYPES = {"discharge": "DS", "radiology": "RR"}
_HEADING = re.compile(r" ?\b(EXAMINATION|INDICATION|COMPARISON|FINDINGS): ")
_SENTENCE_END = re.compile(r"\. (?=[A-Z])")

_FLAWED = 0.05
"""Share of notes without a target section, as in some real notes."""
_RADIOLOGY = "{report}\n\nIMPRESSION:\n\n{impression}\n"
_RADIOLOGY_FLAWED = "{report}\n\nNOTIFICATION: Discussed with the team by telephone.\n"
_NAME_BLOCK = (
    "Name:  ___                     Unit No:   ___\n \n"
    "Admission Date:  ___              Discharge Date:   ___\n \n"
    "Date of Birth:  ___             Sex:   {sex}\n \n"
    "Service: MEDICINE\n \n"
)
_DISCHARGE = (
    " \n" + _NAME_BLOCK + "Allergies: \n{allergies}\n \nAttending: ___.\n \n"
    "Chief Complaint:\n{complaint}\n \n"
    "History of Present Illness:\n___ presented with {complaint} and was admitted.\n \n"
    "Pertinent Results:\n{findings}\n \n"
    "Brief Hospital Course:\nThe patient was treated and improved.\n{course}\n \n"
    "Discharge Disposition:\n{disposition}\n \n"
    "{diagnosis}"
    "Discharge Condition:\nMental Status: Clear and coherent.\n \n"
    "Discharge Instructions:\nYou were in the hospital for {complaint}.\n \n"
    "Followup Instructions:\n___\n"
)


def write_notes(kind: str, path: Path, count: int, seed: int) -> None:
    """Write a CSV file of ``count`` notes, gzipped if its name ends in .gz.

    Args:
        kind: ``discharge`` or ``radiology``.
        path: the file.
        count: number of notes.
        seed: seed of the generator.
    """
    with (
        gzip.open(path, "wt", encoding="utf-8", newline="", compresslevel=6)
        if path.name.endswith(".gz")
        else path.open("w", encoding="utf-8", newline="")
    ) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_rows(kind, count, seed))


def _rows(kind: str, count: int, seed: int) -> Iterator[tuple[object, ...]]:
    patient, left, number = 10_000_000, 0, 0
    for report in write_reports(kind, count, seed, seen=set()):
        dice = Dice(f"{seed}/{report.id}/note")
        if not left:
            patient, left, number = patient + dice.between(1, 50), dice.between(1, 5), 0
        left, number = left - 1, number + 1
        time = f"2150-01-{dice.between(1, 28):02d} {dice.between(0, 23):02d}:00:00"
        text = _discharge(report, dice) if kind == "discharge" else _radiology(report, dice)
        type_ = _TYPES[kind]
        yield (
            *(f"{patient}-{type_}-{number}", patient, patient + 10_000_000),
            *(type_, number, time, time, text),
        )


def _radiology(report: Report, dice: Dice) -> str:
    titled = _HEADING.sub(r"\n\n\1:  ", report.source).strip()
    layout = _RADIOLOGY_FLAWED if dice.chance(_FLAWED) else _RADIOLOGY
    return layout.format(report=titled, impression=report.target)


def _discharge(report: Report, dice: Dice) -> str:
    diagnoses = _SENTENCE_END.sub("\n", report.target)
    findings = report.source.partition("FINDINGS: ")[2]
    return _DISCHARGE.format(
        sex=dice.pick("FM"),
        allergies=dice.pick(("No Known Allergies / Adverse Drug Reactions", "Penicillins")),
        complaint=report.study.indication.text,
        findings=findings,
        course=f"Imaging showed: {_SENTENCE_END.split(findings)[0].lower()}.",
        disposition=dice.pick(("Home", "Home With Service", "Extended Care")),
        diagnosis=""
        if dice.chance(_FLAWED)
        else f"{dice.pick(('Discharge Diagnosis', 'Final Diagnoses'))}:\n{diagnoses}\n \n",
    )
