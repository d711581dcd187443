"""Checks of metrics, tasks and backbones, and outcomes that are stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from harness import HarnessError, Metric, Options, Splits, Task, find_metrics
from harness.api.plugin_files import PluginFile
from harness.testing import CheckReport, CheckResult, check_backbone, check_metric, check_task
from harness.testing.families import TinyBart, TinyT5
from harness.testing.outcomes import differences, outcomes_of, read_outcomes, write_outcomes

faulty = PluginFile.read(Path(__file__).with_name("faulty.py")).load()


def failed(report: CheckReport) -> dict[str, str]:
    return {result.check: str(result.reason) for result in report.failures}


@pytest.mark.parametrize("name", ["rouge", "bleu", "chrf"])
def test_built_in_metrics_pass(name: str) -> None:
    check_metric(name).require_passed()


@pytest.mark.parametrize(
    ("kind", "check", "reason"),
    [
        (faulty.Words, "a copy of the reference scores best", "words of the references themselves"),
        pytest.param(
            faulty.Dividing,
            "every text has a finite score",
            "ZeroDivisionError",
            marks=pytest.mark.slow,  # tests/harness/cli/test_check.py finds it too.
        ),
        pytest.param(
            faulty.Ordered,
            "the order of the examples does not matter",
            "depends on the order",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_faulty_metric_is_found(kind: type[Metric], check: str, reason: str) -> None:
    found = failed(check_metric(kind))
    assert reason in found[check]


class Repeated(Task[Options]):
    """The same three rows in each split; it has no options."""

    primary_metric = "bleu"

    def splits(self, seed: int) -> Splits:
        from datasets import Dataset

        rows = Dataset.from_dict({"id": ["a", "b"], "source": ["x", "y"], "target": ["u", "v"]})
        return Splits(rows, rows, rows)

    def metrics(self) -> Sequence[Metric]:
        return find_metrics("rouge")


def test_a_faulty_task_is_found() -> None:
    found = failed(check_task(Repeated))
    assert set(found) == {
        "ids are unique over all splits",
        "the suite computes the primary metric",
    }
    assert "'a' is in train and in eval" in found["ids are unique over all splits"]


def test_a_built_in_task_passes() -> None:
    check_task("radiology_demo").require_passed()


def test_a_task_without_its_data_is_not_passed(tmp_path: Path) -> None:
    report = check_task(f"{tmp_path / 'none.jsonl'}")
    assert not [r for r in report.results if r.outcome == "passed" and "split" in r.check]


class Swapped(TinyT5):
    """Calls its queries keys as well."""

    role_paths: ClassVar = {
        stack: {**paths, "self_attn.k": paths["self_attn.q"]}
        for stack, paths in TinyT5.role_paths.items()
    }


def test_a_backbone_whose_roles_overlap_is_found() -> None:
    report = check_backbone(Swapped("swapped"), recipes=[])
    assert "has the roles" in failed(report)["every layer has a module of each role"]


@pytest.mark.slow
def test_a_backbone_passes() -> None:
    check_backbone(TinyBart("bart"), recipes=["lora:targets=all"]).require_passed()


def result(check: str, on: str, outcome: str, reason: str | None = None) -> CheckResult:
    return CheckResult.model_validate(
        {"check": check, "on": on, "outcome": outcome, "reason": reason, "difference": 0.5}
    )


def test_outcomes_are_stored_without_what_depends_on_the_machine(tmp_path: Path) -> None:
    results = [
        result("packs", "t5", "passed"),
        result("packs", "bart", "passed"),
        result("merges", "t5", "passed"),
        result("merges", "bart", "does not apply", "why"),
    ]
    report = CheckReport(kind="compressor", name="x:r=1", results=results)
    outcomes = outcomes_of([report])
    assert outcomes == {
        "x:r=1": {"packs": "passed", "merges": {"t5": "passed", "bart": "does not apply: why"}}
    }
    write_outcomes(tmp_path / "expected.json", outcomes)
    stored = read_outcomes(tmp_path / "expected.json")
    assert differences(stored, [report]) == []
    on_t5 = report.model_copy(update={"results": results[::2]})
    assert differences(stored, [on_t5]) == []
    worse = report.model_copy(update={"results": [result("packs", "t5", "failed", "no")]})
    assert differences(stored, [worse]) == ["x:r=1: packs (t5): failed: no; expected: passed"]
    otherwise = report.model_copy(update={"results": [result("merges", "bart", "passed")]})
    assert differences(stored, [otherwise]) == [
        "x:r=1: merges (bart): passed; expected: does not apply: why"
    ]
    new = report.model_copy(update={"name": "y"})
    assert len(differences(stored, [new])) == 4


def test_outcomes_that_cannot_be_read_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(HarnessError, match="cannot be read"):
        read_outcomes(tmp_path / "bad.json")
