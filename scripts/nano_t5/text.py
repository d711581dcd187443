"""The pre-training text of nano-t5: its tokenizer, and the bounds of documents and sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 8192
SENTINELS = 48
PAD, EOS, UNK = 0, 1, 2
WINDOW = 160
"""Tokens of a piece of text that is denoised."""
HELD_OUT_TOKENS = 50_000


def train_tokenizer(corpus: Path, folder: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; digits stand alone, so that numbers are read digit by digit."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(SENTINELS))]
    tokenizer.train_from_iterator(
        documents(corpus),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - SENTINELS,
            special_tokens=["<pad>", "</s>", "<unk>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_special_tokens(sentinels)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", EOS)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=sentinels,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    assert len(fast) == VOCABULARY
    fast.save_pretrained(folder)
    return fast


def documents(corpus: Path) -> Iterator[str]:
    """Yield the documents of a corpus."""
    with corpus.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


@dataclass(frozen=True)
class Text:
    """A part of the corpus.

    Attributes:
        tokens: all documents in one row, each ended by </s>.
        starts: where documents start, of those with enough tokens after them for a window.
        ends: whether a token ends a sentence; same shape as ``tokens``.
    """

    tokens: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.bool_]

    @classmethod
    def of(cls, tokens: NDArray[np.int64], tokenizer: PreTrainedTokenizerFast) -> Text:
        """Look for documents and sentences."""
        words = tokenizer.convert_ids_to_tokens(range(VOCABULARY))
        newline, space = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("\n ")
        closes = np.array([word.endswith(".") for word in words])[tokens]
        opens = np.array([word[0] in newline[0] + space[0] for word in words])[tokens]
        opens |= tokens == EOS
        ends = closes & np.roll(opens, -1)
        starts = np.flatnonzero(np.roll(tokens == EOS, 1))
        return cls(tokens, starts[starts < len(tokens) - WINDOW], ends)


def encode(corpus: Path, tokenizer: PreTrainedTokenizerFast) -> tuple[Text, Text]:
    """Return the text that is trained on, and the text that is held out."""
    texts = list(documents(corpus))
    rows = []
    for start in range(0, len(texts), 2000):
        ids = tokenizer(texts[start : start + 2000], verbose=False).input_ids
        rows += [np.array(row) for row in ids]
    tokens = np.concatenate(rows)
    held_out, trained = tokens[:HELD_OUT_TOKENS], tokens[HELD_OUT_TOKENS:]
    return Text.of(trained, tokenizer), Text.of(held_out, tokenizer)
