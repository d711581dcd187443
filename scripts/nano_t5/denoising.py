"""Pre-training tasks of nano-t5: copying, and restoring text that was corrupted.

The denoisers are T5's span corruption (Raffel et al. 2020, section 3.1.4: 15 % of the tokens, spans
of mean length 3); half of the tokens in spans of mean length 8, the "extreme" denoiser of UL2 (Tay
et al. 2023); a marked span that lacks a few words and is asked for whole, akin to BART's text
infilling (Lewis et al. 2020); and the first sentence of a document, asked for from the rest, as
PEGASUS does (Zhang et al. 2020).
"""

from __future__ import annotations

import numpy as np
import torch
from nano_t5.text import EOS, VOCABULARY, WINDOW, Text
from numpy.typing import NDArray
from torch import Tensor

BATCH = 32
COPY_TOKENS = 2048
"""Tokens in a batch of copies."""
SPAN = 56
"""Tokens of a span that is rewritten."""
LEAD = 48
"""Most tokens of a first sentence, with its </s>."""
IGNORED = -100
"""The label of what fills shorter targets."""

Pair = tuple[NDArray[np.int64], NDArray[np.int64]]
"""A source and its target; of one denoiser all sources are equally long, and all targets."""


def span_corruption(text: Text, random: np.random.Generator) -> Pair:
    """Corrupt as T5 does."""
    return corrupt(window(text, random), 0.15, 3.0, random)


def extreme(text: Text, random: np.random.Generator) -> Pair:
    """Corrupt half of it."""
    return corrupt(window(text, random), 0.5, 8.0, random)


def corrupt(
    tokens: NDArray[np.int64], share: float, mean_span: float, random: np.random.Generator
) -> Pair:
    """Replace random spans by sentinels.

    The source keeps the other tokens with one sentinel a span; the target is each sentinel
    followed by what it stands for, and </s>.
    """
    noise = round(len(tokens) * share)
    spans = round(noise / mean_span)
    kept = segments(len(tokens) - noise, spans, random)
    gone = segments(noise, spans, random)
    ends = np.cumsum(np.stack([kept, gone], 1).ravel())
    pieces = np.split(tokens, ends[:-1])
    sentinels = VOCABULARY - 1 - np.arange(spans)
    source = [part for i in range(spans) for part in (pieces[2 * i], sentinels[i : i + 1])]
    target = [part for i in range(spans) for part in (sentinels[i : i + 1], pieces[2 * i + 1])]
    return np.concatenate([*source, [EOS]]), np.concatenate([*target, [EOS]])


def rewrite(text: Text, random: np.random.Generator) -> Pair:
    """Mark a span, drop a tenth of its tokens without a trace, and ask for all of it."""
    tokens = window(text, random)
    start = int(random.integers(0, len(tokens) - SPAN))
    span = tokens[start : start + SPAN]
    dropped = round(0.1 * SPAN)
    # Runs of dropped tokens of mean length 2, as for noise spans.
    kept = segments(SPAN - dropped, dropped // 2, random)
    gone = segments(dropped, dropped // 2, random)
    mask = np.repeat(np.tile([True, False], len(kept)), np.stack([kept, gone], 1).ravel())
    first, last = VOCABULARY - 1, VOCABULARY - 2
    source = [tokens[:start], [first], span[mask], [last], tokens[start + SPAN :], [EOS]]
    return np.concatenate(source), np.concatenate([[first], span, [EOS]])


def lead(text: Text, random: np.random.Generator) -> Pair:
    """Ask for the first sentence of a document, from what follows it."""
    start = int(random.choice(text.starts))
    ends = np.flatnonzero(text.ends[start : start + LEAD - 1])
    length = int(ends[0]) + 1 if len(ends) else LEAD - 1
    rest = text.tokens[start + length : start + length + WINDOW - LEAD]
    sentence = np.concatenate([text.tokens[start : start + length], [EOS]])
    filled = np.pad(sentence, (0, LEAD - len(sentence)), constant_values=IGNORED)
    return np.concatenate([[VOCABULARY - 1], rest, [EOS]]), filled


def window(text: Text, random: np.random.Generator) -> NDArray[np.int64]:
    """Return a row of text from anywhere."""
    start = int(random.integers(0, len(text.tokens) - WINDOW))
    return text.tokens[start : start + WINDOW]


def segments(total: int, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Cut ``total`` into ``count`` positive lengths, all cuts equally likely."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=total)


# Rewriting twice, so that copying is not unlearned.
MIXTURE = (span_corruption, rewrite, extreme, lead, rewrite)


def copies(text: Text, length: int, seed: tuple[int, ...]) -> Tensor:
    """Return rows to be copied, a function of the arguments alone: shape (rows, length).

    Tokens are drawn one by one: as frequent as in text, in an order that says nothing.
    """
    random = np.random.default_rng(seed)
    rows = random.choice(text.tokens, (COPY_TOKENS // length, length))
    rows[:, -1] = EOS
    return torch.from_numpy(rows)


def denoised(text: Text, turn: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return (sources, targets) of one denoiser, a function of the arguments alone."""
    random = np.random.default_rng(seed)
    denoise = MIXTURE[turn % len(MIXTURE)]
    sources, targets = zip(*(denoise(text, random) for _ in range(BATCH)), strict=True)
    return torch.from_numpy(np.stack(sources)), torch.from_numpy(np.stack(targets))
