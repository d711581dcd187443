"""The facts of one synthetic study, which are drawn before its report is written.

Each topic is drawn once: it has one finding or is normal. A report therefore cannot both assert and
deny something.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tasks.radiology_demo.dice import Dice
from tasks.radiology_demo.lexicon import Change, Indication, Kind, Modality, Topic
from tasks.radiology_demo.modalities import MODALITIES

SIDES = ("left", "right")

NAMED_FROM = 20
"""Smallest weight of a finding in an impression."""
SHIFTS = {Change.NEW: 10, Change.WORSE: 12, Change.STABLE: -18, Change.BETTER: -14}
"""Change of a finding -> number added to its weight; new and growing findings gain weight."""

_WEIGHTY_COUNTS = (0,) * 2 + (1,) * 5 + (2,) * 7 + (3,) * 4 + (4,) * 2
_RESOLVED_WEIGHT = 21


@dataclass(frozen=True)
class Finding:
    """Finding on one topic of a study.

    Attributes:
        details: values for the fields of the kind's templates, and ``prior``, the earlier size.
        millimetres: size of the finding; 0 if the kind has no size.
    """

    topic: Topic
    kind: Kind
    change: Change
    details: dict[str, str] = field(default_factory=dict)
    millimetres: int = 0

    @property
    def weight(self) -> int:
        """The weight of the finding, including its change."""
        if self.kind.weight < NAMED_FROM:
            return self.kind.weight
        if self.change is Change.RESOLVED:
            return _RESOLVED_WEIGHT
        return max(self.kind.weight + SHIFTS.get(self.change, 0), NAMED_FROM)


@dataclass(frozen=True)
class Study:
    """All facts of one study; topics without a finding are normal."""

    modality: Modality
    indication: Indication
    has_prior: bool
    findings: tuple[Finding, ...]

    @property
    def asked(self) -> Topic:
        """The topic that the indication asks about."""
        return next(t for t in self.modality.topics if t.name == self.indication.asks)

    def at(self, topic: Topic) -> Finding | None:
        """Return the finding of a topic, or None if the topic is normal."""
        return next((f for f in self.findings if f.topic is topic), None)


def draw_study(dice: Dice) -> Study:
    """Draw the facts of a study."""
    modality = dice.pick(MODALITIES)
    indication = dice.pick(modality.indications)
    has_prior = dice.chance(0.65)
    weighty = {topic.name: _kinds(topic, light=False) for topic in modality.topics}
    light = {topic.name: _kinds(topic, light=True) for topic in modality.topics}
    chosen = dice.sample([n for n, kinds in weighty.items() if kinds], dice.pick(_WEIGHTY_COUNTS))
    findings = []
    for topic in modality.topics:
        if topic.name in chosen:
            kind = dice.pick(weighty[topic.name])
        elif light[topic.name] and dice.chance(0.3):
            kind = dice.pick(light[topic.name])
        else:
            continue
        findings.append(_draw_finding(topic, kind, has_prior, dice))
    return Study(modality, indication, has_prior, tuple(findings))


def _kinds(topic: Topic, light: bool) -> list[Kind]:
    return [kind for kind in topic.kinds if (kind.weight < NAMED_FROM) is light]


def _draw_finding(topic: Topic, kind: Kind, has_prior: bool, dice: Dice) -> Finding:
    changes = kind.changes + ((Change.RESOLVED,) if kind.gone else ())
    compared = has_prior and changes and dice.chance(0.75)
    change = dice.pick(changes) if compared else Change.UNSAID
    details = {"side": dice.pick(SIDES), "grade": dice.pick(kind.grades)}
    if kind.sites:
        details["site"] = dice.pick(kind.sites)
    if kind.size is None:
        return Finding(topic, kind, change, details)
    now = dice.between(*kind.size)
    step = max(2, now * dice.between(15, 45) // 100)
    details["size"] = _length(now)
    details["prior"] = _length(now + step if change is Change.BETTER else max(1, now - step))
    return Finding(topic, kind, change, details, now)


def _length(millimetres: int) -> str:
    return f"{millimetres} mm" if millimetres < 20 else f"{millimetres / 10:.1f} cm"
