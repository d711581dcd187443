"""Texts for the facts of a study: the report, which is the source, and the impression."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.radiology_demo.dice import Dice
from tasks.radiology_demo.lexicon import Change
from tasks.radiology_demo.study import NAMED_FROM, Finding, Study, draw_study

MAX_NAMED = 3
"""Largest number of findings in an impression; those of lowest weight are left out."""

_TRAILS = {
    Change.NEW: (", new since the prior study", ", not present previously", ", a new finding"),
    Change.STABLE: (", unchanged", ", stable in the interval", ", similar to the prior study"),
    Change.WORSE: (", increased since the prior study", ", worse than before", ", progressed"),
    Change.BETTER: (", decreased since the prior study", ", improved", ", less than before"),
}
_REMARKS = {
    Change.NEW: ("This is new.", "This was not seen on the prior study."),
    Change.STABLE: ("This is unchanged.", "This is similar to the prior study."),
    Change.WORSE: ("This has progressed in the interval.", "This is more pronounced than before."),
    Change.BETTER: ("This has improved in the interval.", "This is less pronounced than before."),
}
_SIZED_TRAILS = (", previously {prior}", ", compared with {prior} before")
_SIZED_REMARK = "This measured {prior} on the prior study."
_GONE = (
    "There has been interval resolution of the {}.",
    "Complete resolution of the previously seen {}.",
    "The {} described on the prior study can no longer be identified.",
)
_DENIALS = ("There is no {}.", "No {}.", "No evidence of {}.", "No {} is seen.")
_PERSONS = ("___-year-old woman with", "___-year-old man with", "Patient with")
_PRIORS = ("{} from ___", "Prior {} dated ___", "Most recent {}, ___")
_NO_PRIORS = ("None", "None available", "No prior studies")

_UNSAID = 0.12
"""Probability that a report omits a normal topic, except the topic of the indication."""

# Applied to filled templates, because the next word is often a field: "an 8 mm nodule".
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio]|un|8|1[18]\b|L\d)")


@dataclass(frozen=True)
class Report:
    """One example and the facts from which both of its texts were written."""

    id: str
    source: str
    target: str
    study: Study


def write_reports(split: str, count: int, seed: int, seen: set[str]) -> Iterator[Report]:
    """Yield ``count`` reports.

    Args:
        split: part of the ids and of the random key, so that splits do not depend on each other's
            sizes.
        count: number of reports.
        seed: seed of the generator.
        seen: sources that exist already; new ones are added, so that all sources are distinct.
    """
    for index in range(count):
        attempt = 0
        while True:
            dice = Dice(f"{seed}/{split}/{index}/{attempt}")
            study = draw_study(dice)
            source = write_source(study, dice)
            if source not in seen:
                break
            attempt += 1
        seen.add(source)
        yield Report(f"{split}-{index:05d}", source, write_impression(study), study)


def write_source(study: Study, dice: Dice) -> str:
    """Write the report without its impression; the dice choose only the words."""
    comparison = dice.pick(_PRIORS if study.has_prior else _NO_PRIORS)
    text = " ".join(
        (
            f"EXAMINATION: {dice.pick(study.modality.exams)}.",
            f"INDICATION: {dice.pick(_PERSONS)} {study.indication.text}.",
            f"COMPARISON: {_capital(comparison.format(study.modality.name))}.",
            f"FINDINGS: {' '.join(_narrate(study, dice))}",
        )
    )
    return _ARTICLE.sub(r"\1n ", text)


def write_impression(study: Study) -> str:
    """Write the impression, which depends only on the facts.

    It has the important findings in order of weight. A denial follows if the topic of the
    indication is normal. The last sentence is the advice for the first finding that has one.
    """
    weighty = [finding for finding in study.findings if finding.weight >= NAMED_FROM]
    named = sorted(weighty, key=lambda finding: -finding.weight)[:MAX_NAMED]
    phrases = [_name(finding) for finding in named] or [study.modality.normal]
    if study.asked.answer and study.at(study.asked) is None:
        phrases.append(study.asked.answer)
    advice = next((finding.kind.advice for finding in named if _calls_for_advice(finding)), "")
    if advice:
        phrases.append(f"recommend {advice}")
    return _ARTICLE.sub(r"\1n ", " ".join(f"{_capital(phrase)}." for phrase in phrases))


def _narrate(study: Study, dice: Dice) -> Iterator[str]:
    """Yield the sentences of the findings in the order of the topics."""
    denied: list[str] = []
    for topic in study.modality.topics:
        finding = study.at(topic)
        denies, states = bool(topic.absent), bool(topic.normal)
        if finding:
            yield from _deny(denied, dice)
            yield from _describe(finding, dice)
        elif topic is not study.asked and dice.chance(_UNSAID):
            continue
        elif denies and (not states or dice.chance(0.6)):
            denied.append(dice.pick(topic.absent))
            if len(denied) == 3:
                yield from _deny(denied, dice)
        elif states:
            yield from _deny(denied, dice)
            yield dice.pick(topic.normal)
    yield from _deny(denied, dice)


def _deny(denied: list[str], dice: Dice) -> Iterator[str]:
    """Yield one denial of all gathered phrases, and empty the list."""
    if denied:
        *rest, last = denied
        yield dice.pick(_DENIALS).format(f"{', '.join(rest)} or {last}" if rest else last)
        denied.clear()


def _describe(finding: Finding, dice: Dice) -> Iterator[str]:
    kind, change, details = finding.kind, finding.change, finding.details
    if change is Change.RESOLVED:
        yield dice.pick(_GONE).format(kind.gone.format(**details))
        return
    sentence = _capital(dice.pick(kind.seen).format(**details))
    if change is Change.UNSAID:
        yield f"{sentence}."
        return
    sized = kind.size is not None and change in {Change.WORSE, Change.BETTER}
    if dice.chance(0.6):
        trail = dice.pick(_SIZED_TRAILS if sized else _TRAILS[change])
        yield f"{sentence}{trail.format(**details)}."
    else:
        yield f"{sentence}."
        yield _SIZED_REMARK.format(**details) if sized else dice.pick(_REMARKS[change])


def _name(finding: Finding) -> str:
    """Return the name of a finding in the impression."""
    kind, details = finding.kind, finding.details
    if finding.change is Change.RESOLVED:
        return f"resolved {kind.gone.format(**details)}"
    sized = kind.size is not None
    word = {
        Change.UNSAID: "",
        Change.NEW: "new ",
        Change.STABLE: "unchanged ",
        Change.WORSE: "enlarging " if sized else "worsening ",
        Change.BETTER: "decreasing " if sized else "improving ",
    }[finding.change]
    return word + kind.named.format(**details)


def _calls_for_advice(finding: Finding) -> bool:
    active = finding.change in {Change.UNSAID, Change.NEW, Change.WORSE}
    return active and bool(finding.kind.advice) and finding.millimetres >= finding.kind.advice_from


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
