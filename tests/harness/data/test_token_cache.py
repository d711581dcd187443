"""The cache of token ids: used only on request, private, made once, and never for other data."""

from __future__ import annotations

import multiprocessing
import stat
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from harness import HarnessError
from harness.backbones.nano import NanoT5
from harness.data import token_cache, tokenizing
from harness.data.examples import TokenizedSplit
from harness.data.token_cache import tokenize_once
from harness.data.token_file import MappedTokens, map_tokens
from harness.data.tokenizing import tokenize

TOKENIZER = NanoT5("nano-t5").tokenizer()
ROWS = {"source": ["no effusion", "a nodule is seen " * 9], "target": ["normal", "nodule"]}


class Limits:
    prefix = "summarize: "
    max_source_length = 12
    max_target_length = 8


def made(task: Any = Limits, rows: dict[str, list[str]] = ROWS) -> TokenizedSplit:
    return tokenize_once(Dataset.from_dict(rows), TOKENIZER, task)


def many(count: int) -> dict[str, list[str]]:
    """Return rows of very different lengths, some of them beyond the limits."""
    generator = np.random.default_rng(0)
    words = ["effusion", "no", "lung", "clear", "nodule", "left"]
    texts = [" ".join(generator.choice(words, size)) for size in generator.integers(1, 30, count)]
    return {"source": texts, "target": texts[::-1]}


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

    monkeypatch.setattr(token_cache, "tokenized_chunks", fail)
    allocated = pa.total_allocated_bytes()
    again = made()
    assert list(again.examples) == list(expected.examples)
    assert (again.truncated_sources, again.truncated_targets) == (1, 0)
    assert pa.total_allocated_bytes() == allocated
    (entry,) = cache.iterdir()
    assert str(entry) in Path("/proc/self/maps").read_text()


def test_only_the_user_can_read_what_is_stored(cache: Path) -> None:
    made()
    for path in (cache, *cache.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


@pytest.mark.parametrize("count", [9, 10, 11])
def test_a_file_of_many_batches_has_every_row_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    rows = many(count)
    expected = tokenize(Dataset.from_dict(rows), TOKENIZER, Limits)  # type: ignore[arg-type]
    monkeypatch.setattr(tokenizing, "CHUNK", 5)
    stored = made(rows=rows)
    assert list(stored.examples) == list(expected.examples)
    assert stored.examples.lengths.tolist() == expected.examples.lengths.tolist()
    assert stored.examples.sources.longest == expected.examples.sources.longest
    assert stored.truncated_sources == expected.truncated_sources > 0
    for mapped, ids in (
        (stored.examples.sources, expected.examples.sources),
        (stored.examples.targets, expected.examples.targets),
    ):
        assert np.array_equal(np.concatenate([*mapped.pieces()]), np.concatenate([*ids.pieces()]))


def test_chosen_rows_are_those_examples_in_that_order(cache: Path) -> None:
    every = made(rows=many(20)).examples
    (file,) = cache.rglob("*.arrow")
    rows = np.array([7, 0, 19, 7])
    chosen = map_tokens(file, rows)
    assert list(chosen.examples) == [every[row] for row in rows.tolist()]
    long = [
        len(TOKENIZER(text).input_ids) > Limits.max_target_length for text in many(20)["target"]
    ]
    assert chosen.truncated_targets == sum(long[row] for row in rows)


def test_several_processes_give_the_ids_of_one(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = many(60)
    expected = tokenize(Dataset.from_dict(rows), TOKENIZER, Limits)  # type: ignore[arg-type]
    monkeypatch.setattr(tokenizing, "MANY", 10)
    monkeypatch.setattr(tokenizing, "CHUNK", 7)
    monkeypatch.setattr(tokenizing, "usable_cores", lambda: 2)
    stored = made(rows=rows)
    assert list(stored.examples) == list(expected.examples)
    assert stored.truncated_targets == expected.truncated_targets
    assert not multiprocessing.active_children()


def test_of_two_that_begin_at_once_one_tokenizes(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, both = [], threading.Barrier(2)

    def count(*arguments: Any) -> Any:
        began.append(arguments)
        return tokenizing.tokenized_chunks(*arguments)

    def work() -> None:
        both.wait()
        results.append(made())

    monkeypatch.setattr(token_cache, "tokenized_chunks", count)
    results: list[TokenizedSplit] = []
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(began) == 1
    assert list(results[0].examples) == list(results[1].examples)
    assert len(list(cache.iterdir())) == 1


def test_what_was_not_finished_is_not_there(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        yield next(tokenizing.tokenized_chunks(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(token_cache, "tokenized_chunks", fail)
    with pytest.raises(KeyboardInterrupt):
        made()
    assert list(cache.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setenv("HARNESS_CACHE", str(cache.parent))
    assert isinstance(made().examples.sources, MappedTokens)


def test_other_data_limits_or_prefixes_are_other_entries(cache: Path) -> None:
    made()
    made(rows={**ROWS, "target": ["normal", "nodules"]})
    for name, value in [("prefix", ""), ("max_source_length", 9), ("max_target_length", 2)]:
        changed = made(task=type("Changed", (Limits,), {name: value}))
        assert list(changed.examples) != list(made().examples) or name == "max_target_length"
    assert len(list(cache.iterdir())) == 5


@pytest.mark.parametrize("content", [b"not an array", b""])
def test_a_damaged_entry_is_an_error_that_names_it(cache: Path, content: bytes) -> None:
    made()
    (entry,) = cache.iterdir()
    (entry / "tokens.arrow").write_bytes(content)
    with pytest.raises(HarnessError, match=entry.name):
        made()
