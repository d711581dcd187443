"""The pre-training of nano-t5: what it asks for, and how it grows."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from nano_t5.denoising import corrupt, lead, rewrite
from nano_t5.pretrain import build, deepen
from nano_t5.text import EOS, SENTINELS, VOCABULARY, WINDOW, Text

SENTINEL = VOCABULARY - SENTINELS
seeds = st.integers(0, 2**32 - 1)


def text_of(seed: int) -> Text:
    """A text of documents of sixty tokens and sentences of ten."""
    tokens = np.random.default_rng(seed).integers(3, SENTINEL, 6 * WINDOW)
    tokens[59::60] = EOS
    starts = np.arange(0, 4 * WINDOW, 60)
    return Text(tokens, starts, np.arange(len(tokens)) % 10 == 9)


@given(seeds, st.sampled_from([(0.15, 3.0), (0.5, 8.0)]))
def test_a_corrupted_source_and_its_target_hold_the_text(
    seed: int, how: tuple[float, float]
) -> None:
    random = np.random.default_rng(seed)
    tokens = random.integers(3, SENTINEL, WINDOW)
    source, target = corrupt(tokens, *how, random)
    assert source[-1] == target[-1] == EOS
    spans: dict[int, list[int]] = {}
    for token in target[:-1].tolist():
        if token >= SENTINEL:
            span = spans[token] = []
        else:
            span.append(token)
    restored = [part for token in source[:-1].tolist() for part in spans.get(token, [token])]
    assert restored == tokens.tolist()
    assert sum(map(len, spans.values())) == round(how[0] * WINDOW)


@given(seeds)
def test_a_marked_span_is_asked_for_whole(seed: int) -> None:
    text = text_of(seed)
    source, target = rewrite(text, np.random.default_rng(seed))
    first, last = np.flatnonzero(source >= SENTINEL)
    wanted = iter(target[1:-1].tolist())
    # What is left of the span is a subsequence of what is requested.
    assert all(token in wanted for token in source[first + 1 : last].tolist())
    whole = [*source[:first], *target[1:-1], *source[last + 1 : -1]]
    assert " ".join(map(str, whole)) in " ".join(map(str, text.tokens))


@given(seeds)
def test_a_first_sentence_is_asked_for_from_what_follows(seed: int) -> None:
    text = text_of(seed)
    source, target = lead(text, np.random.default_rng(seed))
    assert target[10] == EOS
    joined = " ".join(map(str, [*target[:10], *source[1:-1]]))
    assert joined in " ".join(map(str, text.tokens))


def test_a_grown_model_computes_what_it_did() -> None:
    shallow = build(3).eval()
    deep = deepen(shallow, 12).eval()
    assert len(deep.encoder.block) == len(deep.decoder.block) == 12
    source = torch.arange(5, 35).reshape(2, 15)
    with torch.no_grad():
        before, after = (model(input_ids=source, labels=source).logits for model in (shallow, deep))
    torch.testing.assert_close(after, before)
