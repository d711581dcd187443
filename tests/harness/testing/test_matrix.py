"""The matrix of methods: an ability is shown where the method was tried and right."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from typer.testing import Result

from harness import HarnessError
from harness.api.plugins import installed
from harness.testing.compressor import check_compressor
from harness.testing.matrix import COLUMNS, find_matrix, matrix_of
from harness.testing.outcomes import outcomes_of


def test_a_method_with_every_ability_has_all_marks() -> None:
    (row,) = find_matrix(["lora_ff"], installed(), ["t5"])
    outcomes = {name: cell.outcome for name, cell in row.abilities.items()}
    assert outcomes == dict.fromkeys(COLUMNS, "passed")


def test_what_a_method_cannot_do_has_a_reason() -> None:
    (row,) = find_matrix(["houlsby"], installed(), ["bart"])
    merges = row.abilities["merges"]
    assert merges.outcome == "does not apply"
    assert merges.reason
    assert row.abilities["trains"].outcome == "passed"


@pytest.mark.slow
def test_outcomes_of_checks_are_the_same_matrix() -> None:
    (tried, *_) = find_matrix(["houlsby"], installed(), ["t5"])
    report = check_compressor("houlsby")
    (read, *_) = matrix_of(outcomes_of([report]))
    assert read == tried


def test_a_missing_outcome_is_an_error() -> None:
    with pytest.raises(HarnessError, match="no outcome of 'ia3' on t5"):
        matrix_of({"ia3": {}})


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_family(harness: Callable[..., Result]) -> None:
    result = harness("list", "compressors", "bitfit", "--matrix", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["family"] for row in rows] == ["t5", "gated-t5", "bart"]


def test_only_compressors_have_a_matrix(harness: Callable[..., Result]) -> None:
    result = harness("list", "tasks", "--matrix")
    assert result.exit_code == 2
    assert "There is no matrix of tasks" in result.output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["int8", "distill"])
def test_what_trains_nothing_alone_is_tried_beside_a_method(name: str) -> None:
    for row in find_matrix([name], installed(), ["t5", "bart"]):
        outcomes = {ability: cell.outcome for ability, cell in row.abilities.items()}
        assert "failed" not in outcomes.values(), row
        assert outcomes["trains"] == "passed"
