"""The cache of token ids: used only on request, and never for other data or settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from harness import HarnessError
from harness.backbones.nano import NanoT5
from harness.data import token_cache
from harness.data.examples import TokenizedSplit, tokenize
from harness.data.token_cache import tokenize_once

TOKENIZER = NanoT5("nano-t5").tokenizer()
ROWS = {"source": ["no effusion", "a nodule is seen " * 9], "target": ["normal", "nodule"]}


class Limits:
    prefix = "summarize: "
    max_source_length = 12
    max_target_length = 8


def made(task: Any = Limits, rows: dict[str, list[str]] = ROWS) -> TokenizedSplit:
    return tokenize_once(Dataset.from_dict(rows), TOKENIZER, task)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def test_nothing_is_cached_unless_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARNESS_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert len(made().examples) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_second_time_the_ids_are_mapped_from_disk(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokenize(Dataset.from_dict(ROWS), TOKENIZER, Limits)  # type: ignore[arg-type]
    made()

    def fail(*_: object) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(token_cache, "tokenize", fail)
    again = made()
    assert list(again.examples) == list(expected.examples)
    assert (again.truncated_sources, again.truncated_targets) == (1, 0)
    assert isinstance(again.examples.sources.ids, np.memmap)
    assert len(list(cache.iterdir())) == 1


def test_other_data_limits_or_prefixes_are_other_entries(cache: Path) -> None:
    made()
    made(rows={**ROWS, "target": ["normal", "nodules"]})
    for name, value in [("prefix", ""), ("max_source_length", 9), ("max_target_length", 2)]:
        changed = made(task=type("Changed", (Limits,), {name: value}))
        assert list(changed.examples) != list(made().examples) or name == "max_target_length"
    assert len(list(cache.iterdir())) == 5


def test_a_damaged_entry_is_an_error_that_names_it(cache: Path) -> None:
    made()
    (entry,) = cache.iterdir()
    (entry / "source_ids.npy").write_bytes(b"not an array")
    with pytest.raises(HarnessError, match=entry.name):
        made()
