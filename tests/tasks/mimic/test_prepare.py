"""Preparation of notes from CSV to Parquet: kept and counted rows, and errors."""

import csv
import gzip
import io
import json
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from harness import HarnessError, Preparation, Prepared
from harness.data.leakage import hash_text
from tasks.mimic.notes import COLUMNS
from tasks.mimic.prepare import COUNTS, EXAMPLES, HASHES
from tasks.mimic.synthetic import write_notes
from tasks.mimic.task import Discharge, Radiology

GOOD = "FINDINGS:\nThe lungs are clear.\n\nIMPRESSION:\nNormal.\n"


def row(number: int, text: str = GOOD, subject: str = "7") -> list[str]:
    return [f"n{number}", subject, "", "RR", "1", "t", "t", text]


def write(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = COLUMNS) -> Path:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerows([header, *rows])
    return write_bytes(path, buffer.getvalue().encode("utf-8", "surrogateescape"))


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def prepare(notes: Path | None, out: Path, **options: Any) -> Prepared:
    return Radiology.prepare(Preparation(out, notes, **options))


@pytest.mark.parametrize("name", ["radiology.csv", "radiology.csv.gz"])
def test_examples_hold_texts_patients_and_hashes(tmp_path: Path, name: str) -> None:
    notes = write(tmp_path / name, [row(1), row(2, "IMPRESSION: x"), row(3, subject="8")])
    prepared = prepare(notes, tmp_path / "out")
    source = "findings: the lungs are clear."
    hashes = dict(zip(HASHES, hash_text(source), strict=True))
    assert parquet.read_table(tmp_path / "out" / EXAMPLES).to_pylist() == [
        {"id": id_, "subject_id": subject, "source": source, "target": "normal.", **hashes}
        for id_, subject in (("n1", "7"), ("n3", "8"))
    ]
    assert (prepared.kept, prepared.left_out) == (2, {"no section of the source holds text": 1})
    counts = json.loads((tmp_path / "out" / COUNTS).read_text())
    assert counts == {"kept": 2, "left_out": prepared.left_out}


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    notes = write(tmp_path / "a.csv", [[GOOD, "7", "n1"]], header=["text", "subject_id", "note_id"])
    assert prepare(notes, tmp_path / "out").kept == 1


def test_each_row_that_is_no_example_is_counted_by_its_reason(tmp_path: Path) -> None:
    rows = [
        row(1),
        ["n2", "7", "too short"],
        [*row(3), "too long"],
        row(4, subject=""),
        ["", *row(5)[1:]],
        row(6, " \n"),
        row(7, GOOD + "\udcff"),
        row(8, "FINDINGS: a"),
        row(9, "FINDINGS: a\nIMPRESSION:"),
        row(10, "IMPRESSION: a"),
    ]
    prepared = prepare(write(tmp_path / "a.csv", rows), tmp_path / "out")
    assert prepared.kept == 1
    assert prepared.left_out == {
        "the row is malformed": 2,
        "the row names no note or no patient": 2,
        "the note is empty": 1,
        "the note is not UTF-8 text": 1,
        "no section has a title of the target": 1,
        "the target is empty": 1,
        "no section of the source holds text": 1,
    }


def test_an_unclosed_quotation_mark_costs_its_row_and_not_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [row(1), row(2)])
    with path.open("a") as file:
        file.write('n3,7,,RR,1,t,t,"never closed\n')
    prepared = prepare(path, tmp_path / "out")
    assert (prepared.kept, prepared.left_out) == (2, {"the row is malformed": 1})


def test_notes_longer_than_the_csv_modules_own_limit(tmp_path: Path) -> None:
    notes = write(tmp_path / "a.csv", [row(1, "FINDINGS: " + "word " * 60_000 + "\nIMPRESSION: x")])
    assert prepare(notes, tmp_path / "out").kept == 1


def test_batches_join_without_loss(tmp_path: Path) -> None:
    rows = [row(number, subject=str(number)) for number in range(2500)]
    assert prepare(write(tmp_path / "a.csv", rows), tmp_path / "out").kept == 2500
    ids = parquet.read_table(tmp_path / "out" / EXAMPLES)["id"].to_pylist()
    assert ids == [f"n{number}" for number in range(2500)]


def test_progress_reaches_the_end_of_the_file(tmp_path: Path) -> None:
    ticks = []
    notes = write(tmp_path / "a.csv.gz", [row(number) for number in range(2000)])
    prepare(notes, tmp_path / "out", on_progress=lambda *on_progress: ticks.append(on_progress))
    assert [number for number, _ in ticks] == [0, 500, 1000, 1500, 2000]
    shares = [share for _, share in ticks]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


# What goes wrong leaves nothing behind

PACKED = gzip.compress(b"note_id,subject_id,text\n" + b'n1,7,"FINDINGS: a"\n' * 5000)
BROKEN = {
    "cut.csv.gz": PACKED[:-20],
    "damaged.csv.gz": PACKED[: len(PACKED) // 2] + b"\0\0\0" + PACKED[len(PACKED) // 2 + 3 :],
    "plain.csv.gz": b"note_id,subject_id,text\n",
    "empty.csv": b"",
    "other.csv": b"a,b\n1,2\n",
    "no_notes.csv": b"note_id,subject_id,text\n",
    "useless.csv": b"note_id,subject_id,text\n1,2,nothing\n",
    "quote.csv": b'"note_id,subject_id,text\n',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_a_clear_error_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with pytest.raises(HarnessError) as caught:
        prepare(path, tmp_path / "data" / "out")
    assert name in caught.value.message
    assert caught.value.hint
    assert list((tmp_path / "data").iterdir()) == []


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"gone\.csv"):
        prepare(tmp_path / "gone.csv", tmp_path / "out")


def test_an_existing_folder_is_never_written_to(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(HarnessError, match="exists already"):
        prepare(write(tmp_path / "a.csv", [row(1)]), out)
    assert [path.name for path in out.iterdir()] == ["mine"]


def test_notes_or_a_number_of_made_up_ones_but_not_both(tmp_path: Path) -> None:
    both: dict[str, Any] = {"notes": tmp_path / "a.csv", "synthetic": 5}
    for options in ({}, both):
        with pytest.raises(HarnessError, match="Either") as caught:
            Discharge.prepare(Preparation(tmp_path / "out", **options))
        assert "discharge.csv.gz" in (caught.value.hint or "")


def in_fresh_process(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    write_notes("radiology", tmp_path / "a.csv", 3000, seed=0)
    # A limit on the size of files fails in the same calls as a full disk.
    output = in_fresh_process(
        """
        import resource, signal, sys
        from pathlib import Path
        from harness import HarnessError, Preparation
        from tasks.mimic.task import Radiology
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            Radiology.prepare(Preparation(Path(sys.argv[2]), Path(sys.argv[1])))
        except HarnessError as error:
            print(error)
        """,
        tmp_path / "a.csv",
        tmp_path / "data" / "out",
    )
    assert "out cannot be written" in output
    assert "Make room" in output
    assert list((tmp_path / "data").iterdir()) == []


PEAK = """
import resource, sys
from pathlib import Path
from harness import Preparation
from tasks.mimic.task import Radiology
Radiology.prepare(Preparation(Path(sys.argv[2]), Path(sys.argv[1])))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(tmp_path: Path, count: int, text: str) -> int:
    notes = tmp_path / f"{count}.csv"
    with notes.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(row(number, f"{text}{number}") for number in range(count))
    return int(in_fresh_process(PEAK, notes, tmp_path / f"out{count}"))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    # 60 MB of notes against 20 MB, which is two batches: holding them would cost 40 MB more, and as
    # much again in Arrow; a plateau wavers by some 10 MB, as allocators keep what they had.
    text = "FINDINGS: " + "the lungs are clear and well expanded " * 270 + "\nIMPRESSION: "
    assert peak_kib(tmp_path, 6000, text) < peak_kib(tmp_path, 2000, text) + 25_000


@pytest.mark.slow
def test_memory_on_200_thousand_notes_is_that_on_20_thousand(tmp_path: Path) -> None:
    for count in (20_000, 200_000):
        write_notes("radiology", tmp_path / f"{count}.csv.gz", count, seed=0)
    small, large = (
        int(in_fresh_process(PEAK, tmp_path / f"{count}.csv.gz", tmp_path / f"out{count}"))
        for count in (20_000, 200_000)
    )
    assert large < 1.2 * small


# Any rows at all: each is kept or counted

CELLS = st.text(max_size=12) | st.sampled_from([GOOD, "FINDINGS: a", '"', "n", "7", "\udcff"])


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.lists(CELLS, min_size=1, max_size=4) | st.just(["n", "7", GOOD]), max_size=8))
def test_every_row_is_kept_or_counted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    rows = [[cell.encode("utf-8", "replace").decode() for cell in cells] for cells in rows]
    path = write(folder / "a.csv", rows, header=["note_id", "subject_id", "text"])
    expected = Counter(tuple(cells) for cells in rows)[("n", "7", GOOD)]
    if not expected:
        rows.append(["n", "7", GOOD])
        path = write(path, rows, header=["note_id", "subject_id", "text"])
    prepared = prepare(path, folder / "out")
    assert prepared.kept >= max(1, expected)
    assert prepared.kept + sum(prepared.left_out.values()) == len(rows)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.binary(max_size=80), begun=st.booleans(), packed=st.booleans())
def test_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, begun: bool, packed: bool
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    start = b'note_id,subject_id,text\nn,7,"FINDINGS: a\nIMPRESSION: b"\n' if begun else b""
    path = write_bytes(folder / f"a.csv{'.gz' * packed}", start + data)
    try:
        assert prepare(path, folder / "out").kept >= 1
    except HarnessError:
        assert not (folder / "out").exists()
