"""The report: documented fields, no undeclared ones, JSON round trips."""

import json
from collections.abc import Callable, Iterator
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from harness.records.report import Report


def records(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a record type and all record types within it."""
    yield model
    for info in model.model_fields.values():
        for part in (info.annotation, *get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from records(part)


def test_json_and_back(make_report: Callable[..., Report]) -> None:
    report = make_report()
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert Report.model_validate(json.loads(report.model_dump_json(indent=2))) == report


def test_a_failed_run_needs_no_numbers(make_report: Callable[..., Report]) -> None:
    nothing = ("data", "speed", "memory", "parameters", "layers_kept", "training", "fingerprint")
    failure = {"phase": "load", "message": "it broke"}
    changes = {**dict.fromkeys(nothing), "quality": {}, "status": "error", "failure": failure}
    report = make_report(**changes)
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_every_field_of_every_record_is_documented() -> None:
    all_records = list(records(Report))
    assert len(all_records) > 8
    undocumented = [
        f"{record.__name__}.{name}"
        for record in all_records
        for name, info in record.model_fields.items()
        if not info.description
    ]
    assert undocumented == []
    assert "description" in Report.model_json_schema()["$defs"]["Speed"]["properties"]["relative"]


@pytest.mark.parametrize("path", ["extra", "speed.extra", "quality.rouge1.extra"])
def test_a_field_that_is_not_declared_is_refused(
    make_report: Callable[..., Report], path: str
) -> None:
    values = make_report().model_dump()
    inner = values
    *groups, name = path.split(".")
    for group in groups:
        inner = inner[group]
    inner[name] = 1
    with pytest.raises(ValidationError, match="extra"):
        Report.model_validate(values)


def test_the_status_is_one_of_a_few(make_report: Callable[..., Report]) -> None:
    with pytest.raises(ValidationError, match="status"):
        make_report(status="fine")


@pytest.mark.parametrize(
    "path",
    [
        "status",
        "layers_kept.encoder",
        "layers_kept.decoder",
        "parameters.original",
        "parameters.total",
        "parameters.trainable",
        "parameters.trainable_pct_of_original",
        "speed.tokens_per_s",
        "speed.samples_per_s",
        "speed.relative",
        "speed.relative_ci",
        "speed.noise_floor",
        "memory.peak_bytes",
        "memory.relative",
        "quality.rouge1.value",
        "quality.rouge1.signature",
        "fingerprint.device",
    ],
)
def test_the_names_that_others_read_are_there(
    make_report: Callable[..., Report], path: str
) -> None:
    value = json.loads(make_report().model_dump_json())
    for part in path.split("."):
        value = value[part]
