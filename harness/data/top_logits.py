"""Stored logits of a teacher: the most likely tokens at each target token of the examples.

They tell the texts about as well as token ids do, so they are stored where token ids are: in the
folder that ``$HARNESS_CACHE`` names, and nowhere without one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.cache_folder import VARIABLE, cache_folder, made_once
from harness.data.examples import Example
from harness.errors import HarnessError

_BYTES = 6
"""Bytes of one logit: four for its token id, two for its value."""
_COUNTS = "counts.json"


@dataclass(frozen=True)
class TopLogits:
    """The most likely tokens of a teacher, with a row for each target token.

    Attributes:
        keys: a hash of each example.
        ends: end of each example's rows.
        ids: token ids, shape (target tokens, K); int32.
        logits: the logits less the largest of their row; float16. The most likely tokens, which
            matter most, are near 0, where half precision is finest.
        seconds: time that the teacher took to compute them.
    """

    keys: NDArray[np.uint64]
    ends: NDArray[np.int64]
    ids: NDArray[np.int32]
    logits: NDArray[np.float16]
    seconds: float
    _order: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_order", np.argsort(self.keys, kind="stable"))

    def rows(self, examples: Sequence[Example]) -> tuple[NDArray[np.int32], NDArray[np.float16]]:
        """Return the ids and the logits of some examples, end to end.

        Raises:
            HarnessError: an example is not among those that the teacher has read.
        """
        places = [self._rows(example) for example in examples]
        return (
            np.concatenate([self.ids[place] for place in places]),
            np.concatenate([self.logits[place] for place in places]),
        )

    def _rows(self, example: Example) -> slice:
        key = key_of(example)
        found = int(np.searchsorted(self.keys, key, sorter=self._order))
        number = int(self._order[min(found, len(self.keys) - 1)])
        start = int(self.ends[number - 1]) if number else 0
        end = int(self.ends[number])
        if self.keys[number] != key or end - start != len(example.target):
            raise HarnessError(
                "A teacher's stored logits lack an example of this run.",
                f"Remove the folder teachers in ${VARIABLE}, and repeat the command.",
            )
        return slice(start, end)


def key_of(example: Example) -> np.uint64:
    """Return a hash of an example."""
    source, target = (np.array(ids, np.int32).tobytes() for ids in (example.source, example.target))
    digest = sha256(len(source).to_bytes(8, "little") + source + target).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def stored_bytes(target_tokens: int, top: int) -> int:
    """Return the bytes that the logits of some target tokens take on disk."""
    return target_tokens * top * _BYTES


def teacher_folder(identity: Sequence[object]) -> Path:
    """Return the folder of a teacher's logits.

    Args:
        identity: all that the logits depend on.

    Raises:
        HarnessError: no folder is named for them.
    """
    teachers = cache_folder("teachers")
    if teachers is None:
        raise HarnessError(
            "A teacher's logits need a folder to be stored in.",
            f"Name one on this machine: export {VARIABLE}=FOLDER. Or leave out the option cache; "
            "the teacher then computes them in every step.",
        )
    name = sha256(json.dumps([str(part) for part in identity]).encode()).hexdigest()[:24]
    return teachers / name


def write_top_logits(
    folder: Path,
    examples: Sequence[Example],
    top: int,
    parts: Iterable[tuple[NDArray[np.int32], NDArray[np.float16], float]],
) -> None:
    """Write the logits of all examples to a folder, which appears whole or not at all.

    Args:
        folder: the folder, which does not exist.
        examples: the examples, in the order of the parts.
        top: logits of each target token.
        parts: ids and logits of some target tokens, and the seconds since the first part began.
    """
    with made_once(folder) as work:
        if work is not None:
            _write(work, examples, top, parts)


def _write(
    work: Path,
    examples: Sequence[Example],
    top: int,
    parts: Iterable[tuple[NDArray[np.int32], NDArray[np.float16], float]],
) -> None:
    ends = np.cumsum([len(example.target) for example in examples], dtype=np.int64)
    shape = (int(ends[-1]), top)
    np.save(work / "ends.npy", ends)
    np.save(work / "keys.npy", np.array([key_of(e) for e in examples], np.uint64))
    open_file = np.lib.format.open_memmap
    ids = open_file(work / "ids.npy", mode="w+", dtype=np.int32, shape=shape)
    logits = open_file(work / "logits.npy", mode="w+", dtype=np.float16, shape=shape)
    done, seconds = 0, 0.0
    for some_ids, some_logits, elapsed in parts:
        seconds = elapsed
        ids[done : done + len(some_ids)] = some_ids
        logits[done : done + len(some_ids)] = some_logits
        done += len(some_ids)
    ids.flush()
    logits.flush()
    (work / _COUNTS).write_text(json.dumps({"seconds": seconds}))


def read_top_logits(folder: Path) -> TopLogits:
    """Map the files of a folder into memory.

    Raises:
        HarnessError: they are damaged.
    """
    try:
        keys, ends, ids, logits = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("keys", "ends", "ids", "logits")
        )
        seconds = float(json.loads((folder / _COUNTS).read_text())["seconds"])
    except (OSError, ValueError, KeyError) as error:
        raise HarnessError(
            f"The teacher's logits in {folder} cannot be used: {error}.", "Remove that folder."
        ) from error
    return TopLogits(keys, ends, ids, logits, seconds)
