"""Collect the English text that nano-t5 is pre-trained on, one document a line, as JSON strings.

    apt-get -o Acquire::Languages=en -o Dir::State::Lists=LISTS update
    apt-get download wordnet-base && dpkg -x wordnet-base*.deb WORDNET
    python scripts/nano_t5/corpus.py --lists LISTS --wordnet WORDNET \\
        --held-out EVAL.jsonl TEST.jsonl --out corpus.jsonl

The text is the long descriptions of Debian's packages and the glosses of WordNet 3.0.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

# A WordNet synset: offset, file, type, word count (hex), the words, pointers ..., | gloss
_SYNSET = re.compile(r"\d{8} \d\d [nvasr] ([0-9a-f]{2}) (.*?) \| (.*)")
_GLOSSES_A_DOCUMENT = 8


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", type=Path, required=True, help="apt's folder of lists")
    parser.add_argument("--wordnet", type=Path, required=True, help="the unpacked wordnet-base")
    parser.add_argument(
        "--held-out",
        type=Path,
        nargs="*",
        default=[],
        help="JSONL files whose ids are packages; these and all others of their sources stay out",
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    held_out = {
        json.loads(line)["id"]
        for path in arguments.held_out
        for line in path.open(encoding="utf-8")
    }
    documents = [*descriptions(arguments.lists, held_out), *glosses(arguments.wordnet)]
    Random(0).shuffle(documents)
    with arguments.out.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in documents)
    print(len(documents), "documents,", sum(map(len, documents)), "characters")  # noqa: T201


def descriptions(lists: Path, held_out: set[str]) -> Iterator[str]:
    """Yield each distinct long description; the one-line synopsis is left out.

    The synopses are the targets of a summarization task: a model that had seen them beside their
    descriptions would have been trained on that task.
    """
    sources: dict[str, str] = {}
    for path in lists.glob("*_Packages*"):
        for record in _records(path):
            name = record["Package"]
            # "Source: name (version)"; a package without the field is its own source.
            sources[name] = record.get("Source", name).split()[0]
    kept_out = {sources.get(name, name) for name in held_out}
    seen: set[str] = set()
    secret: set[str] = set()
    texts: list[str] = []
    for path in sorted(lists.glob("*Translation-en*")):
        for record in _records(path):
            text = _description(record["Description-en"])
            name = record["Package"]
            if sources.get(name, name) in kept_out or name in held_out:
                secret.add(text)
            elif text not in seen and len(text) > 40:
                seen.add(text)
                texts.append(text)
    # Some sources share a description word for word.
    yield from (text for text in texts if text not in secret)


def _records(path: Path) -> Iterator[dict[str, str]]:
    """Read the stanzas of an apt index, whatever its compression."""
    command = ["/usr/lib/apt/apt-helper", "cat-file", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        record: dict[str, str] = {}
        key = ""
        for line in process.stdout:
            if line == "\n":
                yield record
                record = {}
            elif line[0] == " ":
                record[key] += "\n" + line[1:].rstrip("\n")
            else:
                key, _, value = line.rstrip("\n").partition(": ")
                record[key] = value
        if record:
            yield record


def _description(field: str) -> str:
    """Unfold a Description-en field without its first line, the synopsis."""
    _, _, body = field.partition("\n")
    lines: list[str] = []
    for line in body.split("\n"):
        if line == ".":
            lines.append("\n")
        elif line.startswith(" "):  # Verbatim, most often a list item.
            lines.append("\n" + line.strip() + " ")
        else:
            lines.append(line + " ")
    return re.sub(r" *\n\s*", "\n", "".join(lines)).strip()


def glosses(wordnet: Path) -> Iterator[str]:
    """Yield documents of a few neighbouring synsets, each written "words: gloss"."""
    for path in sorted(wordnet.rglob("data.*")):
        entries: list[str] = []
        for line in path.read_text("utf-8").splitlines():
            match = _SYNSET.match(line)
            if match is None:
                continue
            count, rest, gloss = match.groups()
            words = rest.split()[: 2 * int(count, 16) : 2]
            names = ", ".join(re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words)
            entries.append(f"{names}: {gloss.strip()}")
            if len(entries) == _GLOSSES_A_DOCUMENT:
                yield "\n".join(entries)
                entries = []
        if entries:
            yield "\n".join(entries)


if __name__ == "__main__":
    main()
