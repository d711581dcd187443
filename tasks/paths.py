"""Which task references mean data somewhere, and which file of a folder is which split."""

from __future__ import annotations

from pathlib import Path

from harness import HarnessError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")
HUB = "hub:"
SPLIT_NAMES = {
    "train": ("train",),
    "eval": ("eval", "validation", "valid", "val", "dev"),
    "test": ("test",),
}


def is_data_path(reference: str) -> bool:
    """Whether the reference is written as a path, ends like a data file, or exists."""
    written = reference.startswith(("/", "./", "../", "~")) or reference.endswith(SUFFIXES)
    return written or Path(reference).exists()


def is_hub_reference(reference: str) -> bool:
    """Whether the reference is written ``hub:org/name``."""
    return reference.startswith(HUB)


def stem(path: Path) -> str:
    """Return the file's name without its data suffix."""
    longest = max((s for s in SUFFIXES if path.name.endswith(s)), key=len, default="")
    return path.name.removesuffix(longest)


def find_split_files(folder: Path) -> dict[str, Path]:
    """Return split -> file for the splits that a folder holds.

    Raises:
        HarnessError: two files claim the same split.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(SUFFIXES))
    found = {}
    for split, names in SPLIT_NAMES.items():
        claims = [path for path in files if stem(path) in names]
        if len(claims) > 1:
            listed = ", ".join(path.name for path in claims)
            raise HarnessError(
                f"{folder}: more than one file could be the {split} split: {listed}.",
                "Leave one of them in the folder.",
            )
        if claims:
            found[split] = claims[0]
    return found
