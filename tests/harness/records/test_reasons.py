"""Exactly the null fields have a reason."""

from __future__ import annotations

from collections.abc import Callable

from harness.records.reasons import explain_nulls
from harness.records.report import Report, Value


def test_only_nulls_are_explained_and_stale_reasons_go(make_report: Callable[..., Report]) -> None:
    report = make_report(training=None)
    report.not_measured["memory"] = "stale"
    explain_nulls(report, "no time", "training", "memory", "fingerprint.driver", "fingerprint.cpu")
    assert report.not_measured == {"training": "no time", "fingerprint.driver": "no time"}


def test_a_field_of_a_record_that_is_null_needs_no_reason(
    make_report: Callable[..., Report],
) -> None:
    report = make_report(fingerprint=None)
    explain_nulls(report, "no time", "fingerprint", "fingerprint.driver")
    assert report.not_measured == {"fingerprint": "no time"}


def test_a_key_may_hold_dots(make_report: Callable[..., Report]) -> None:
    value = Value(value=1.0, ci=None, signature="s", higher_is_better=True)
    report = make_report(quality={"a.b": value})
    explain_nulls(report, "one example", "quality.a.b.ci", "quality.a.b.value")
    assert report.not_measured == {"quality.a.b.ci": "one example"}
