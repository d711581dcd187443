"""Sentence splitting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.metrics.sentences import split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["The lungs are clear.", "No effusion is seen."],
        ["Dr. Smith saw the pt. on Jan. 3rd.", "He has e.g. pain."],
        ["The mass is 3.5 cm.", "No change."],
        ["Seen at 5 p.m.", "The lungs are clear."],
        ["Is there pain?", "Yes!", "J. R. Smith agrees."],
        ["no capitals here.", "another one."],
        ["no full stop"],
        ["रोगी को दर्द है।", "सांस ठीक है।"],
        ["هل هناك ألم؟", "لا"],
        [],
    ],
)
def test_splits_where_a_reader_would(sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences)) == sentences


@given(st.text(max_size=200))
def test_loses_no_character_but_white_space(text: str) -> None:
    joined = "".join(split_sentences(text))
    assert "".join(joined.split()) == "".join(text.split())


def test_chinese_needs_no_white_space() -> None:
    assert split_sentences("肺部清晰。未见胸腔积液！心影正常") == [
        "肺部清晰。",
        "未见胸腔积液！",
        "心影正常",
    ]
