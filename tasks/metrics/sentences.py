"""Sentence splitting without a download: Punkt's rules with fixed lists of words."""

from __future__ import annotations

import functools
import re
from typing import Any

SIGNATURE = "punkt-fixed-lists-2"
"""Version of the splitter; raise the number when the lists change, because scores change."""

# Punkt (Kiss and Strunk 2006) learns its lists from text, and nltk's learned lists need a download.
# Its rules work with any lists; they handle initials and decimal points without lists.
_ABBREVIATIONS = (
    "dr mr mrs ms prof rev hon st jr sr messrs e.g i.e cf etc al vs viz approx ca nos fig figs eq "
    "vol pp ed eds a.m p.m u.s u.k u.n inc ltd corp dept univ est jan feb mar apr jun jul aug sep "
    "sept oct nov dec mon tue tues wed thu thurs fri pt pts hx dx tx rx sx b.i.d t.i.d q.i.d p.o "
    "p.r.n i.v"
)
_STARTERS = "the a an this that these there he she it they we i patient in on at no"


_ENDS = "\u3002\uff01\uff1f\u0964\u0965\u061f"
_OTHER_ENDS = re.compile(f"(?<=[{_ENDS}])(?![{_ENDS}\u300d\u300f\u201d\u2019)])")
"""Sentence ends in other scripts, which need no white space after them."""


def split_sentences(text: str) -> list[str]:
    """Split text into sentences and strip white space around them.

    Abbreviations follow English rules. Chinese, Japanese, Hindi and Arabic marks always end a
    sentence.
    """
    punkt = _punkt()
    return [
        sentence for piece in _OTHER_ENDS.split(text) for sentence in punkt.tokenize(piece.strip())
    ]


@functools.cache
def _punkt() -> Any:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(_ABBREVIATIONS.split())
    parameters.sent_starters = set(_STARTERS.split())
    return PunktSentenceTokenizer(parameters)
