"""Cache of token ids between runs, in a folder that the user names.

Token ids are as confidential as the text, so nothing is stored unless ``$HARNESS_CACHE`` names a
folder. Stored files are memory-mapped, so runs at the same time share one copy in memory.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api.task import Task
from harness.data.examples import Examples, TokenizedSplit, Tokens, tokenize
from harness.data.hashing import data_hash
from harness.errors import HarnessError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

FOLDER = "HARNESS_CACHE"
_COUNTS = "counts.json"


def tokenize_once(
    split: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task[Any]
) -> TokenizedSplit:
    """Convert a split to token ids, or read those that an earlier run stored.

    Raises:
        HarnessError: the cache cannot be written or read.
    """
    root = os.environ.get(FOLDER)
    if not root:
        return tokenize(split, tokenizer, task)
    folder = Path(root).expanduser() / "tokens" / _key(split, tokenizer, task)
    try:
        if not folder.is_dir():
            _store(tokenize(split, tokenizer, task), folder)
        return _load(folder)
    except (OSError, ValueError, KeyError) as error:
        raise HarnessError(
            f"The token cache {folder} cannot be used: {error}.",
            f"Remove that folder, or name another place: export {FOLDER}=FOLDER",
        ) from error


def _key(split: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task[Any]) -> str:
    """Hash everything that the token ids depend on."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend else json.dumps(sorted(tokenizer.get_vocab().items()))
    parts = [
        data_hash(split),
        type(tokenizer).__name__,
        rules,
        json.dumps(tokenizer.special_tokens_map, default=str, sort_keys=True),
        task.prefix,
        task.max_source_length,
        task.max_target_length,
    ]
    return sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _store(split: TokenizedSplit, folder: Path) -> None:
    """Write to a temporary folder and rename it, because another run may do the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    sources, targets = split.examples.sources, split.examples.targets
    try:
        for side, tokens in (("source", sources), ("target", targets)):
            np.save(work / f"{side}_ids.npy", tokens.ids)
            np.save(work / f"{side}_ends.npy", tokens.ends)
        counts = {"cut_sources": split.truncated_sources, "cut_targets": split.truncated_targets}
        (work / _COUNTS).write_text(json.dumps(counts))
        work.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _load(folder: Path) -> TokenizedSplit:
    def tokens(side: str) -> Tokens:
        ids, ends = (
            np.load(folder / f"{side}_{part}.npy", mmap_mode="r", allow_pickle=False)
            for part in ("ids", "ends")
        )
        return Tokens(ids, ends)

    counts = json.loads((folder / _COUNTS).read_text())
    examples = Examples(tokens("source"), tokens("target"))
    return TokenizedSplit(examples, counts["cut_sources"], counts["cut_targets"])
