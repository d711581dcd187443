"""Time ``harness prepare`` on radiology notes: python benchmarks/notes.py --help.

The expensive part of a note is its text: finding the sections among other headings, normalising
words, and hashing them for the leakage check. The synthetic notes are as long as real ones (Zhu et
al. 2023, table 1: 132 words of source and 38 of target). Their lengths vary, all are different, and
the file is compressed like the published one; a few notes lack a section. The program fails if that
does not hold, or if examples or their hashes are missing afterwards. Each window is a new process.
Its time is processor time of all threads, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from demands import demand, demand_spread
from pyarrow import parquet

from harness.records.atomic import write_text
from tasks.mimic.notes import COLUMNS
from tasks.mimic.prepare import EXAMPLES, HASHES

FILE = "notes.json"
GOAL = 5000
"""Notes per second of one core."""
SOURCE, TARGET = 132, 38
"""Words of a real note's text, on average."""
FLAWED = 0.02
HEADINGS = ("EXAMINATION", "INDICATION", "TECHNIQUE", "COMPARISON")
WORK = """
import sys, time
from pathlib import Path
from harness import Preparation
from tasks.mimic.task import Radiology
began = time.process_time()
Radiology.prepare(Preparation(Path(sys.argv[2]), Path(sys.argv[1])))
print(time.process_time() - began)
"""


def make_notes(count: int) -> list[str]:
    """Return texts of notes with headings and sentences; some lack an impression."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    weights = range(len(letters), 0, -1)
    words = ["".join(rng.choices(letters, weights, k=rng.randint(2, 11))) for _ in range(4000)]
    frequencies = [1 / rank for rank in range(1, len(words) + 1)]

    def prose(mean: int) -> str:
        length = max(4, round(mean * rng.lognormvariate(-0.1, 0.45)))
        chosen = rng.choices(words, frequencies, k=length)
        ends = {i for i in range(length) if rng.random() < 0.08} | {length - 1}
        return " ".join(f"{word}." if i in ends else word for i, word in enumerate(chosen))

    def note() -> str:
        parts = [f"{heading}: {prose(8)}" for heading in HEADINGS]
        parts.append(f"FINDINGS:\n\n{prose(SOURCE)}")
        if rng.random() >= FLAWED:
            parts.append(f"IMPRESSION:\n\n{prose(TARGET)}")
        return "\n \n".join(parts)

    return [note() for _ in range(count)]


def check_notes(texts: Sequence[str]) -> None:
    """Fail if notes are shorter than real ones, all of one length, or equal."""
    lengths = [len(text.split()) for text in texts]
    mean = statistics.mean(lengths)
    demand(mean >= SOURCE + TARGET, f"notes of {mean:.0f} words are shorter than real ones")
    demand_spread(lengths, "notes")
    demand(len(set(texts)) == len(texts), "notes are equal")


def check_examples(folder: Path, notes: int) -> None:
    """Fail if examples, their texts or their hashes are missing."""
    rows = parquet.read_table(folder / EXAMPLES).to_pylist()
    kept = (1 - 2 * FLAWED) * notes < len(rows) < notes
    demand(kept, f"{len(rows):,} examples are made of {notes:,} notes")
    for side, words in (("source", SOURCE), ("target", TARGET)):
        mean = statistics.mean(len(row[side].split()) for row in rows)
        demand(mean > 0.9 * words, f"a {side} has {mean:.0f} words, a real one {words}")
    different = len({row[HASHES[0]] for row in rows})
    demand(different > 0.9 * len(rows), f"{len(rows):,} examples have {different:,} hashes")


def write_notes(path: Path, texts: Sequence[str]) -> None:
    """Write the CSV file."""
    with gzip.open(path, "wt", encoding="utf-8", newline="", compresslevel=6) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number, text in enumerate(texts):
            writer.writerow([f"n{number}", number // 3, "", "RR", "1", "t", "t", text])


def main() -> int:
    """Prepare the notes several times; print and write the rate; return 1 if it misses the goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--notes", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    texts = make_notes(options.notes)
    check_notes(texts)
    rates = []
    with tempfile.TemporaryDirectory() as temporary:
        notes = Path(temporary) / "radiology.csv.gz"
        write_notes(notes, texts)
        for number in range(options.repeats):
            prepared = Path(temporary) / str(number)
            call = [sys.executable, "-c", WORK, str(notes), str(prepared)]
            shown = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout
            rates.append(options.notes / float(shown))
            check_examples(prepared, options.notes)
    rate = statistics.median(rates)
    reached = rate >= GOAL
    record = {"goal": GOAL, "notes": options.notes, "notes_per_core_second": rates}
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")
    verdict = "reached" if reached else "missed"
    print(f"{rate:,.0f} notes a second of one core (goal {GOAL:,}: {verdict})")
    return int(not reached)


if __name__ == "__main__":
    sys.exit(main())
