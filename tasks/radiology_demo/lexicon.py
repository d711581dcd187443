"""The vocabulary of the synthetic reports: what a modality looks at and can find there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Change(Enum):
    """Change of a finding since the prior study."""

    UNSAID = auto()
    NEW = auto()
    STABLE = auto()
    WORSE = auto()
    BETTER = auto()
    RESOLVED = auto()


EVOLVING = (Change.NEW, Change.STABLE, Change.WORSE, Change.BETTER)
GROWING = (Change.NEW, Change.STABLE, Change.WORSE)
FIXED = (Change.NEW, Change.STABLE)


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    ``named``, ``seen`` and ``gone`` are templates over the fields ``site``, ``side``, ``grade`` and
    ``size``; every field of ``named`` is in each of ``seen``, so that the report tells all that its
    impression says.

    Attributes:
        named: how the impression names it.
        seen: how the findings word it; each is a whole sentence without its full stop.
        weight: 0 to 100; how much it matters. Light ones never reach the impression.
        sites: values of ``site``.
        grades: values of ``grade``.
        size: least and greatest ``size`` in mm.
        changes: what the comparison with a prior study can say.
        gone: how it is called once it has resolved; empty where it cannot.
        advice: what to do about it, unless it is stable or better.
        advice_from: the least size in mm for which the advice holds.
    """

    named: str
    seen: tuple[str, ...]
    weight: int
    sites: tuple[str, ...] = ()
    grades: tuple[str, ...] = ("mild", "moderate", "severe")
    size: tuple[int, int] | None = None
    changes: tuple[Change, ...] = EVOLVING
    gone: str = ""
    advice: str = ""
    advice_from: int = 0


@dataclass(frozen=True)
class Topic:
    """One thing that a modality looks at; it holds one finding or is normal.

    Attributes:
        name: for indications to refer to.
        kinds: what can be found.
        absent: noun phrases that a report can deny where the topic is normal.
        normal: sentences for the normal topic. With neither, a normal topic goes unsaid.
        answer: the impression's denial, for an indication that asks about the topic.
    """

    name: str
    kinds: tuple[Kind, ...]
    absent: tuple[str, ...] = ()
    normal: tuple[str, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Indication:
    """Why a study was requested, and the name of the topic that it asks about."""

    text: str
    asks: str


@dataclass(frozen=True)
class Modality:
    """One type of examination; topics are in the order in which a report walks through them."""

    name: str
    exams: tuple[str, ...]
    indications: tuple[Indication, ...]
    topics: tuple[Topic, ...]
    normal: str
