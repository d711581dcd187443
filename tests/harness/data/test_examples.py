"""Texts as token ids: limits, end tokens and counts."""

from collections.abc import Sequence

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from harness import HarnessError, Metric, Options, Splits, Task
from harness.backbones.bart import Bart
from harness.backbones.nano import NanoT5
from harness.backbones.t5 import T5
from harness.data.examples import Example, Examples, Tokens, check_fit, longest_examples
from harness.data.tokenizing import tokenize

TOKENIZER = NanoT5("nano-t5").tokenizer()
END = TOKENIZER.eos_token_id


class Texts(Task[Options]):
    """A task of which only lengths and prefix matter."""

    Options = Options

    def splits(self, seed: int) -> Splits:
        raise NotImplementedError

    def metrics(self) -> Sequence[Metric]:
        raise NotImplementedError


def task(prefix: str = "", source: int = 512, target: int = 128) -> Texts:
    task_of_texts = Texts("texts", Options())
    task_of_texts.prefix, task_of_texts.max_source_length, task_of_texts.max_target_length = (
        prefix,
        source,
        target,
    )
    return task_of_texts


def rows(sources: list[str], targets: list[str]) -> Dataset:
    return Dataset.from_dict({"source": sources, "target": targets})


def test_ids_are_the_tokenizers_own_with_the_prefix_before_sources_only() -> None:
    split = tokenize(rows(["no effusion"], ["normal"]), TOKENIZER, task("summarize: "))
    assert split.examples[0].source == TOKENIZER("summarize: no effusion").input_ids
    assert split.examples[0].target == TOKENIZER("normal").input_ids
    assert (split.truncated_sources, split.truncated_targets) == (0, 0)


@given(
    st.lists(st.text(max_size=40), min_size=1, max_size=8), st.integers(1, 12), st.integers(1, 12)
)
def test_limits_hold_and_what_is_cut_still_ends(texts: list[str], source: int, target: int) -> None:
    split = tokenize(rows(texts, texts), TOKENIZER, task(source=source, target=target))
    whole = [TOKENIZER(text).input_ids for text in texts]
    for example, ids in zip(split.examples, whole, strict=True):
        for cut, limit in ((example.source, source), (example.target, target)):
            assert len(cut) == min(len(ids), limit)
            assert cut[-1] == END
            assert cut[:-1] == ids[: len(cut) - 1]
    assert split.truncated_sources == sum(len(ids) > source for ids in whole)
    assert split.truncated_targets == sum(len(ids) > target for ids in whole)


@pytest.mark.parametrize("count", [999, 1000, 1001, 2000])
def test_no_row_is_lost_between_chunks(count: int) -> None:
    texts = [f"case {i}" for i in range(count)]
    split = tokenize(rows(texts, texts[::-1]), TOKENIZER, task(target=3))
    assert TOKENIZER.decode(split.examples[-1].source, skip_special_tokens=True) == texts[-1]
    assert len(split.examples) == count
    assert 0 < split.truncated_targets <= count


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=6), st.integers(0, 6))
def test_sequences_are_read_back_unchanged(rows: list[list[int]], cut: int) -> None:
    tokens = Tokens.joined([Tokens.of(rows[:cut]), Tokens.of(rows[cut:])])
    assert [tokens[i] for i in range(len(tokens))] == rows
    assert tokens.longest == max(map(len, rows), default=0)
    examples = Examples(tokens, tokens)
    assert list(examples) == [Example(row, row) for row in rows]
    assert examples[1:3] == list(examples)[1:3]
    for count in range(len(rows) + 1):
        assert longest_examples(examples, count) == longest_examples(list(examples), count)


def test_sequences_longer_than_the_positions_say_how_to_cut_them() -> None:
    """T5 has 512 in its configuration, but its relative positions have no limit."""
    split = tokenize(rows(["word " * 1100], ["x"]), TOKENIZER, task(source=2000))
    assert split.examples.sources.longest > 1024
    check_fit(split, T5("t5-large"))
    with pytest.raises(HarnessError, match="bart-large has positions for 1,024") as caught:
        check_fit(split, Bart("bart-large"))
    assert caught.value.hint == "Truncate it: --set task_options.max_source_length=1024"


def test_a_long_text_draws_no_warning_of_the_tokenizer(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer: PreTrainedTokenizerBase = NanoT5("nano-t5").tokenizer()
    tokenizer.model_max_length = 8
    tokenize(rows(["word " * 50], ["x"]), tokenizer, task())
    assert "longer than" not in caplog.text
