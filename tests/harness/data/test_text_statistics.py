"""The columns of table 1, against values by hand and against their definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.text_statistics import count_sentences, describe_texts


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("  \n", 0),
        ("No stop", 1),
        ("One. Two! Three?", 3),
        ("One. Two", 2),
        ('He said "no." Then he left.', 2),
        ("Really?! Yes...", 2),
        ("1. aspirin 2. heparin", 1),
        ("Dose of 2.5 mg daily.", 1),
        ("J. Smith was seen.", 1),
        ("seen by dr.\nstable.", 2),
        ("...", 1),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    assert count_sentences(text) == sentences


def test_means_and_novelty_by_hand() -> None:
    statistics = describe_texts(
        [
            # Target words: a, b, x; x is new. Pairs: (a, b) is in the source, (b, x) is not.
            ("a b c. d", "A b, x."),
            # Target words: y, y: one distinct word, new; its pair (y, y) is new.
            ("a b", "y y"),
            # Without a word there is no share; the pair counts for lengths only.
            ("a", "--"),
        ]
    )
    assert statistics.examples == 3
    assert statistics.source_words == pytest.approx((4 + 2 + 1) / 3)
    assert statistics.target_words == pytest.approx((3 + 2 + 1) / 3)
    assert statistics.source_sentences == pytest.approx(1.0 + 0 / 3)
    assert statistics.target_sentences == pytest.approx(1.0)
    assert statistics.novel_unigrams_pct == pytest.approx((100 / 3 + 100) / 2)
    assert statistics.novel_bigrams_pct == pytest.approx((50 + 100) / 2)


def test_no_target_with_words_has_no_novelty() -> None:
    statistics = describe_texts([("a", "..."), ("b", "?")])
    assert (statistics.novel_unigrams_pct, statistics.novel_bigrams_pct) == (None, None)


def test_no_pairs() -> None:
    assert describe_texts([]).examples == 0


WORDS = st.lists(st.sampled_from("abcd"), max_size=8)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=8))
def test_novelty_is_that_of_a_plain_count(pairs: list[tuple[list[str], list[str]]]) -> None:
    statistics = describe_texts([(" ".join(s), " ".join(t)) for s, t in pairs])
    for order, value in ((1, statistics.novel_unigrams_pct), (2, statistics.novel_bigrams_pct)):
        shares = []
        for source, target in pairs:
            text = " ".join(source)
            grams = {" ".join(target[i : i + order]) for i in range(len(target) - order + 1)}
            if grams:
                shares.append(100 * sum(gram not in text for gram in grams) / len(grams))
        assert value == (pytest.approx(sum(shares) / len(shares)) if shares else None)


def test_a_target_copied_from_its_source_has_nothing_new() -> None:
    statistics = describe_texts([("The lungs are clear. No effusion.", "the lungs ARE clear")] * 5)
    assert (statistics.novel_unigrams_pct, statistics.novel_bigrams_pct) == (0, 0)


def test_pairs_are_read_in_one_pass() -> None:
    assert describe_texts((text, text) for text in ("a", "b c")).source_words == 1.5
