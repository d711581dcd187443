"""Cache of token ids between runs, in a folder that the user names.

Stored files are mapped into memory, so the processes of a run, the cells of a sweep and other runs
share one copy.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from harness.api.task import Task
from harness.data.cache_folder import cache_folder, made_once, unusable
from harness.data.examples import TokenizedSplit
from harness.data.hashing import data_hash
from harness.data.stored_examples import stored_rows
from harness.data.tokenizing import Limits, tokenize, tokenized_chunks

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_FILE = "tokens.arrow"


def tokenize_once(
    split: Dataset, tokenizer: PreTrainedTokenizerBase, task: Task[Any]
) -> TokenizedSplit:
    """Convert a split to token ids, or map those that an earlier run stored.

    Raises:
        HarnessError: the cache cannot be written or read.
    """
    folder = cache_folder("tokens")
    if folder is None:
        return tokenize(split, tokenizer, task)
    from harness.data.token_file import map_tokens, write_tokens

    limits, rows = Limits.of(task), None
    if stored := stored_rows(split):
        # Splits that another seed draws from the same files have the same token ids.
        file, rows = stored
        split, texts = type(split).from_file(str(file)), f"{file.parent.name}/{file.name}"
    else:
        texts = data_hash(split)
    place = folder / _key(texts, tokenizer, limits)
    if not place.exists():
        with made_once(place) as work:
            if work is not None:
                write_tokens(work / _FILE, tokenized_chunks(split, tokenizer, limits))
    try:
        return map_tokens(place / _FILE, rows)
    # Arrow's own errors are ValueErrors or OSErrors.
    except (OSError, ValueError, KeyError) as error:
        raise unusable(place, error) from error


def _key(texts: str, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> str:
    """Hash everything that the token ids depend on.

    Args:
        texts: a hash of the texts, or of the files that they come from.
        tokenizer: the tokenizer.
        limits: the prefix and the limits.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = backend.to_str() if backend else json.dumps(sorted(tokenizer.get_vocab().items()))
    parts = [
        "arrow",
        texts,
        type(tokenizer).__name__,
        rules,
        json.dumps(tokenizer.special_tokens_map, default=str, sort_keys=True),
        limits.prefix,
        limits.source,
        limits.target,
    ]
    return sha256(json.dumps(parts).encode()).hexdigest()[:24]
