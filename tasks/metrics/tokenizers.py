"""Tokenizers of metrics: ROUGE's own, one for any script, and sacreBLEU's."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import regex

from tasks.metrics.porter import porter_stemmer

SacreBleuName = Literal[
    "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "flores101", "flores200", "none"
]
Tokenizer = Callable[[str], list[str]]

_REFERENCE = re.compile("[a-z0-9]+")
_UNDIVIDED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
"""Scripts without white space between words."""
_ANY_SCRIPT = regex.compile(
    rf"(?V1)[{_UNDIVIDED}&&[\p{{L}}\p{{N}}]]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNDIVIDED}]]+"
)
_LETTERS = regex.compile(r"[\p{L}\p{N}]")
_LONG = regex.compile(
    r"[\p{Han}\p{Hiragana}]{5,}|[\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]{12,}"
)
"""A run of such a script that is longer than one word."""


def reference_tokens(text: str) -> list[str]:
    """Return stemmed runs of a-z and 0-9, as ROUGE's reference implementation does."""
    return [stem(word) for word in _REFERENCE.findall(text.lower())]


def any_script_tokens(text: str) -> list[str]:
    """Return runs of letters, marks and digits of any script, with English words stemmed.

    In scripts without white space between words, each character is a token. For text in a-z and 0-9
    the tokens equal those of ``reference_tokens``.
    """
    words = _ANY_SCRIPT.findall(text.lower())
    return [stem(word) if _REFERENCE.fullmatch(word) else word for word in words]


def sacrebleu_tokens(name: str) -> Tokenizer:
    """Return one of sacreBLEU's tokenizers."""
    divide = _sacrebleu(name)
    return lambda text: divide(text).split()


def lower_sacrebleu_tokens(name: str) -> Tokenizer:
    """Return one of sacreBLEU's tokenizers after lower-casing, without a stemmer, for ROUGE."""
    divide = _sacrebleu(name)
    return lambda text: divide(text.lower()).split()


@functools.cache
def _sacrebleu(name: str) -> Callable[[str], str]:
    from sacrebleu.metrics.bleu import _get_tokenizer

    tokenizer: Callable[[str], str] = _get_tokenizer(name)()
    return tokenizer


def missing_for(name: str) -> str | None:
    """Return what a tokenizer of sacreBLEU needs and is missing here, or ``None``."""
    if name in ("ja-mecab", "ko-mecab"):
        package, extra = ("MeCab", "ja") if name == "ja-mecab" else ("mecab_ko", "ko")
        if importlib.util.find_spec(package) is None:
            return f"The tokenizer {name} is not installed: pip install sacrebleu[{extra}]"
    if name in ("flores101", "flores200"):
        home = os.environ.get("SACREBLEU", str(Path.home() / ".sacrebleu"))
        model = Path(home, "models", f"{name}sacrebleuspm")
        if not model.is_file():
            return (
                f"The model of the tokenizer {name} is missing, and it is not downloaded "
                "automatically. "
                f"Copy sacreBLEU's file to {model}"
            )
    return None


def texts_of(references: Iterable[str | list[str]]) -> list[str]:
    """Return all texts of the references; an example may have several."""
    return [
        text
        for reference in references
        for text in ([reference] if isinstance(reference, str) else reference)
    ]


def dropped_share(texts: Sequence[str], tokenize: Tokenizer) -> float:
    """Return a lower bound of the share of letters and digits that are in no token."""
    total = kept = 0
    for text in texts:
        total += len(_LETTERS.findall(text))
        kept += sum(len(_LETTERS.findall(token)) for token in tokenize(text))
    return max(0.0, 1 - kept / total) if total else 0.0


def undivided_share(texts: Sequence[str], tokenize: Tokenizer) -> float:
    """Return the share of letters in tokens that must be several words."""
    total = whole = 0
    for text in texts:
        total += len(_LETTERS.findall(text))
        for token in tokenize(text):
            whole += sum(len(_LETTERS.findall(run)) for run in _LONG.findall(token))
    return whole / total if total else 0.0


@functools.lru_cache(maxsize=1 << 18)
def stem(word: str) -> str:
    """Return a word's stem by Porter's rules; words up to three characters are unchanged."""
    # The original ROUGE script does the same.
    return str(porter_stemmer().stem(word)) if len(word) > 3 else word
