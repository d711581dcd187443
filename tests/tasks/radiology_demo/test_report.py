"""Properties that every synthetic report has, checked on its text and on its facts."""

import re
from collections import Counter
from dataclasses import replace
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.radiology_demo.dice import Dice
from tasks.radiology_demo.lexicon import Change, Kind
from tasks.radiology_demo.modalities import MODALITIES
from tasks.radiology_demo.report import (
    MAX_NAMED,
    Report,
    write_impression,
    write_reports,
    write_source,
)
from tasks.radiology_demo.study import NAMED_FROM, Finding, Study, draw_study

KINDS = [(m, t, k) for m in MODALITIES for t in m.topics for k in t.kinds]


@pytest.fixture(scope="module")
def reports() -> list[Report]:
    return list(write_reports("train", 3000, seed=0, seen=set()))


def sentences(source: str) -> list[str]:
    return re.split(r"(?<=\.) (?=[A-Z0-9])", source.partition("FINDINGS: ")[2])


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


# The lexicon


def test_an_impression_says_nothing_that_its_report_leaves_out() -> None:
    for _, _, kind in KINDS:
        if kind.weight >= NAMED_FROM:
            for wording in kind.seen:
                assert fields(kind.named) <= fields(wording), wording
        assert fields(kind.gone) <= {"side", "site"}


def test_a_wording_means_one_kind_only() -> None:
    for modality in MODALITIES:
        wordings = [w for topic in modality.topics for kind in topic.kinds for w in kind.seen]
        assert len(set(wordings)) == len(wordings)


def test_indications_ask_about_topics_that_can_be_answered() -> None:
    for modality in MODALITIES:
        for indication in modality.indications:
            (topic,) = (t for t in modality.topics if t.name == indication.asks)
            assert topic.answer
            assert topic.absent or topic.normal


def test_light_kinds_neither_resolve_nor_call_for_advice() -> None:
    for _, _, kind in KINDS:
        if kind.weight < NAMED_FROM:
            assert not kind.gone
            assert not kind.advice


# The facts


@given(st.text(max_size=20))
def test_a_study_settles_each_topic_at_most_once_and_in_order(key: str) -> None:
    study = draw_study(Dice(key))
    places = [study.modality.topics.index(f.topic) for f in study.findings]
    assert places == sorted(set(places))
    for finding in study.findings:
        assert finding.kind in finding.topic.kinds
        assert study.has_prior or finding.change is Change.UNSAID
        if finding.kind.size:
            least, greatest = finding.kind.size
            assert least <= finding.millimetres <= greatest


def test_earlier_sizes_agree_with_the_change(reports: list[Report]) -> None:
    checked = 0
    for report in reports:
        for finding in report.study.findings:
            if finding.kind.size and finding.change in {Change.WORSE, Change.BETTER}:
                number, unit = finding.details["prior"].split()
                prior = float(number) * (10 if unit == "cm" else 1)
                assert (prior < finding.millimetres) is (finding.change is Change.WORSE)
                checked += 1
    assert checked > 100


# Reading a report back: all that an impression says can be recovered from the source alone

CUES = {
    Change.NEW: r"new since the prior study|not present previously|a new finding|"
    r"This is new|not seen on the prior study",
    Change.STABLE: r"unchanged|stable in the interval|similar to the prior study",
    Change.WORSE: r"increased since|worse than before|progressed|more pronounced",
    Change.BETTER: r"decreased since|, improved|has improved|less than before|less pronounced",
}
PRIOR = r"(?:previously|compared with|This measured) ([\d.]+ [mc]m)"


def one_article(text: str) -> str:
    return re.sub(r"\b([Aa])n ", r"\1 ", text)


def pattern(template: str, kind: Kind) -> re.Pattern[str]:
    values = {
        "site": "|".join(map(re.escape, sorted(kind.sites, key=len, reverse=True))),
        "side": "left|right",
        "grade": "|".join(kind.grades),
        "size": r"[\d.]+ [mc]m",
    }
    regex = re.sub(
        r"\\{(\w+)\\}", lambda m: f"(?P<{m[1]}>{values[m[1]]})", re.escape(one_article(template))
    )
    return re.compile(regex, re.IGNORECASE)


READERS = {
    modality.name: [
        (topic, kind, bool(kind.gone) and template is kind.gone, pattern(template, kind))
        for topic in modality.topics
        for kind in topic.kinds
        for template in (*kind.seen, *([kind.gone] if kind.gone else []))
    ]
    for modality in MODALITIES
}


def millimetres(size: str) -> int:
    number, unit = size.split()
    return round(float(number) * (10 if unit == "cm" else 1))


def read(report: Report) -> Study:
    """Recover a study from the sentences of its report."""
    sentences_of_report = sentences(one_article(report.source))
    findings = []
    for place, sentence in enumerate(sentences_of_report):
        after = sentences_of_report[place + 1] if sentences_of_report[place + 1 : place + 2] else ""
        story = f"{sentence} {after}" if after.startswith("This ") else sentence
        resolved = re.search(r"resolution of|can no longer be identified", sentence)
        for topic, kind, gone, regex in READERS[report.study.modality.name]:
            match = (regex.search if gone else regex.match)(sentence)
            if not match or gone is not bool(resolved):
                continue
            details = {k: v.lower() if k != "site" else v for k, v in match.groupdict().items()}
            size = millimetres(details["size"]) if "size" in details else 0
            change = Change.RESOLVED if gone else Change.UNSAID
            for cue, words in CUES.items():
                if not gone and re.search(words, story.replace(match[0], "", 1)):
                    change = cue
            if prior := re.search(PRIOR, story):
                change = Change.WORSE if millimetres(prior[1]) < size else Change.BETTER
            findings.append(Finding(topic, kind, change, details, size))
            break
    findings.sort(key=lambda f: report.study.modality.topics.index(f.topic))
    return Study(
        report.study.modality, report.study.indication, report.study.has_prior, tuple(findings)
    )


def test_the_impression_follows_from_the_report(reports: list[Report]) -> None:
    for report in reports:
        assert write_impression(read(report)).lower() == report.target.lower(), report.source


def test_the_words_of_a_report_have_no_bearing_on_its_impression(reports: list[Report]) -> None:
    for number, report in enumerate(reports[:300]):
        retold = replace(report, source=write_source(report.study, Dice(f"retold {number}")))
        assert retold.source != report.source
        assert write_impression(read(retold)).lower() == report.target.lower(), retold.source


# The text


def test_every_placeholder_is_filled_and_punctuation_is_single(reports: list[Report]) -> None:
    for report in reports:
        for text in (report.source, report.target):
            assert not re.search(
                r"[{}]|None\b(?! available|\. FINDINGS)|  |[.,:;]{2}| [.,:;]", text
            )
            assert text.strip() == text
            assert text.endswith(".")
        for sentence in sentences(report.source) + report.target.split(". "):
            assert re.match(r"[A-Z0-9]", sentence), sentence


def test_articles_fit_the_next_word(reports: list[Report]) -> None:
    pairs = Counter(
        (article.lower(), word)
        for report in reports
        for text in (report.source, report.target)
        for article, word in re.findall(r"\b([Aa]n?) ([\w.]+)", text)
    )
    assert sum(pairs.values()) > 1000
    for article, word in pairs:
        # By sound, not by letter: eight, eleven, eighteen; none of the words has a silent h.
        number = re.match(r"\d+", word)
        if number:
            spoken_with_vowel = number[0][0] == "8" or number[0] in {"11", "18"}
        else:
            spoken_with_vowel = word[0].lower() in "aeiou"
        assert (article == "an") is spoken_with_vowel, (article, word)


def test_no_report_both_asserts_and_denies_a_thing(reports: list[Report]) -> None:
    denials = 0
    for report in reports:
        asserted, denied = [], []
        for sentence in sentences(report.source):
            match = re.fullmatch(
                r"(?:There is no|No evidence of|No) (.*?)(?: is seen)?\.", sentence
            )
            if match:
                denied += re.split(r", | or ", match[1])
            else:
                asserted.append(sentence.lower())
        for term in denied:
            assert not any(term.lower() in sentence for sentence in asserted), (term, asserted)
        assert len(set(denied)) == len(denied)
        denials += len(denied)
    assert denials > 3000


def test_topics_with_a_finding_are_not_called_normal(reports: list[Report]) -> None:
    for report in reports:
        for finding in report.study.findings:
            assert not any(phrase in report.source for phrase in finding.topic.normal)
            assert not finding.topic.answer or (
                f"{finding.topic.answer[0].upper()}{finding.topic.answer[1:]}." not in report.target
            )


def test_the_report_answers_what_the_indication_asks(reports: list[Report]) -> None:
    for report in reports:
        asked = report.study.asked
        if report.study.at(asked) is None:
            assert any(phrase in report.source for phrase in (*asked.absent, *asked.normal))
            assert asked.answer[1:] in report.target


def test_the_impression_names_the_weightiest_findings_in_order(reports: list[Report]) -> None:
    for report in reports:
        target = report.target.lower()
        findings = sorted(report.study.findings, key=lambda f: -f.weight)
        findings = [f for f in findings if f.weight >= NAMED_FROM][:MAX_NAMED]
        places = []
        for finding in findings:
            resolved = finding.change is Change.RESOLVED
            template = finding.kind.gone if resolved else finding.kind.named
            places.append(target.find(template.format(**finding.details).lower()))
        assert -1 not in places, report.target
        assert places == sorted(places)
        if not findings:
            assert target.startswith(report.study.modality.normal)


def test_all_modalities_and_changes_occur(reports: list[Report]) -> None:
    assert {r.study.modality.name for r in reports} == {m.name for m in MODALITIES}
    assert {f.change for r in reports for f in r.study.findings} == set(Change)
    seen = {id(f.kind) for r in reports for f in r.study.findings}
    assert seen == {id(kind) for _, _, kind in KINDS}
