"""The vocabulary of the synthetic reports: modalities, their topics and possible findings."""

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
    ``size``. Every field of ``named`` is in each of ``seen``, so that the report contains
    everything that its impression says.

    Attributes:
        named: name of the finding in the impression.
        seen: sentences for the findings section, without the full stop.
        weight: importance, 0 to 100. Findings of low weight are not in the impression.
        sites: values of ``site``.
        grades: values of ``grade``.
        size: least and greatest ``size`` in mm.
        changes: possible changes since the prior study.
        gone: name of the finding after it has resolved; empty if it cannot resolve.
        advice: recommendation, unless the finding is stable or better.
        advice_from: smallest size in mm for which the advice holds.
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
    """One structure that a modality examines; it has one finding or is normal.

    Attributes:
        name: name that indications refer to.
        kinds: possible findings.
        absent: noun phrases that a report can deny if the topic is normal.
        normal: sentences for the normal topic. Without ``absent`` and ``normal``, a report does
            not mention a normal topic.
        answer: denial in the impression, for an indication that asks about the topic.
    """

    name: str
    kinds: tuple[Kind, ...]
    absent: tuple[str, ...] = ()
    normal: tuple[str, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Indication:
    """Reason for a study, and the name of the topic that it asks about."""

    text: str
    asks: str


@dataclass(frozen=True)
class Modality:
    """One type of examination, with its topics in the order of a report."""

    name: str
    exams: tuple[str, ...]
    indications: tuple[Indication, ...]
    topics: tuple[Topic, ...]
    normal: str
