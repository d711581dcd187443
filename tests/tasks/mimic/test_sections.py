"""Titled sections: what is source, what is target, and where a section ends."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import HarnessError
from tasks.mimic.sections import BUILT_IN, SectionReader, Titles, read_titles

DISCHARGE = """
Name:  ___                     Unit No:   ___

Allergies:
Penicillins

Attending: ___.

Chief Complaint:
Shortness of
breath

Discharge Medications:
1. Aspirin: daily

Discharge Diagnosis:
PRIMARY: Pneumonia
Secondary:  COPD

Discharge Condition:
Stable.
"""

RADIOLOGY = """EXAMINATION:  CHEST (PA AND LAT)

INDICATION:  History of impression: none.

FINDINGS:

The lungs are clear.
No effusion.

IMPRESSION:

No acute process.

NOTIFICATION: Called to the team.
"""


def reader(kind: str) -> SectionReader:
    return SectionReader(read_titles(kind))


def test_a_discharge_note() -> None:
    pair = reader("discharge").read(DISCHARGE)
    assert pair.target == "primary: pneumonia secondary: copd"
    assert pair.source == (
        "allergies: penicillins chief complaint: shortness of breath "
        "discharge medications: 1. aspirin: daily discharge condition: stable."
    )


@pytest.mark.parametrize(
    "title", ["Final Diagnoses", "DISCHARGE DIAGNOSIS", "discharge diagnoses", "Final Diagnosis"]
)
def test_each_title_of_the_diagnosis(title: str) -> None:
    note = DISCHARGE.replace("Discharge Diagnosis", title)
    assert reader("discharge").read(note).target == "primary: pneumonia secondary: copd"


@pytest.mark.parametrize(
    "line", ["Name:  ___   Unit No:   ___", " Admission Date:  ___", "Date of Birth:  ___  Sex: F"]
)
def test_the_name_block_ends_the_target(line: str) -> None:
    note = f"Allergies: none\nDischarge Diagnosis:\nPneumonia\n{line}\nfurther words\n"
    pair = reader("discharge").read(note)
    assert pair == ("allergies: none", "pneumonia")


def test_a_radiology_report() -> None:
    pair = reader("radiology").read(RADIOLOGY)
    assert pair == ("findings: the lungs are clear. no effusion.", "no acute process.")


def test_final_report_is_a_title_without_a_colon() -> None:
    note = (
        "      FINAL REPORT\r\n HISTORY: fall.\r\n\r\nNo fracture.\r\n\r\nIMPRESSION: Normal.\r\n"
    )
    pair = reader("radiology").read(note)
    assert pair == ("final report: history: fall. no fracture.", "normal.")


def test_a_title_within_a_line_is_no_title() -> None:
    pair = reader("radiology").read("FINDINGS: see impression: below\nIMPRESSION: ok")
    assert pair == ("findings: see impression: below", "ok")


def test_the_first_target_that_holds_text_is_taken_and_no_other_is_source() -> None:
    note = "Findings: a\nImpression:\n\nImpression: first\nImpression: second\nFindings: b"
    assert reader("radiology").read(note) == ("findings: a findings: b", "first")


@pytest.mark.parametrize(
    ("note", "pair"),
    [
        ("FINDINGS: a", ("findings: a", None)),
        ("FINDINGS: a\nIMPRESSION:\n  \n", ("findings: a", "")),
        ("IMPRESSION: b", ("", "b")),
        ("FINDINGS:\n \nIMPRESSION: b", ("", "b")),
        ("nothing here", ("", None)),
        ("", ("", None)),
    ],
)
def test_what_is_lacking(note: str, pair: tuple[str, str | None]) -> None:
    assert reader("radiology").read(note) == pair


def test_of_titles_with_a_common_beginning_the_longest_is_used() -> None:
    titles = Titles(target=["plan"], source=["exam", "exam on discharge"])
    assert SectionReader(titles).read("Exam on discharge: x\nPlan: y").source == (
        "exam on discharge: x"
    )


@given(st.text(alphabet="ab: \n\r\tİ.FINDGSIMPRESO", max_size=60))
def test_any_note_keeps_its_words_in_order(note: str) -> None:
    """Nothing is made up: the words of both texts are words of the note, in its order."""
    pair = reader("radiology").read(f"FINDINGS: {note}")
    rest = iter(f"findings: {note.lower()}".replace(":", " ").split())
    if pair.target is None:
        assert all(word in rest for word in pair.source.replace(":", " ").split())


def test_titles_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "titles.toml"
    path.write_text('[radiology]\ntarget = ["schluss"]\nsource = ["befund"]\n')
    reader = SectionReader(read_titles("radiology", path))
    assert reader.read("Befund: a\nSchluss: b") == ("befund: a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[radiology", "cannot be read"),
        ('[discharge]\ntarget = ["a"]\nsource = ["b"]', r"no table \[radiology\]"),
        ('[radiology]\ntarget = ["a"]', "'?source"),
        ('[radiology]\ntarget = []\nsource = ["b"]', "target"),
        ('[radiology]\ntarget = ["a"]\nsource = ["b"]\nsorce = []', "no option 'sorce'"),
        ('[radiology]\ntarget = ["a"]\nsource = ["b"]\nends = ["a"]', "'a' is given twice"),
        ('[radiology]\ntarget = ["A"]\nsource = ["b"]', "'A' is not a title in lower case"),
        ('[radiology]\ntarget = [" "]\nsource = ["b"]', "not a title"),
    ],
)
def test_a_bad_file_of_titles(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "titles.toml"
    path.write_text(text)
    with pytest.raises(HarnessError, match=message) as caught:
        read_titles("radiology", path)
    assert str(path) in caught.value.message


def test_a_missing_file_of_titles_points_to_the_one_to_copy(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot be read") as caught:
        read_titles("radiology", tmp_path / "gone.toml")
    assert str(BUILT_IN) in (caught.value.hint or "")
