"""Speed and memory of a profile beside runs that measured neither, and runs without their texts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from harness import HarnessError, load_reports, recommend
from harness.records.profile import Profile
from harness.records.run_folder import PREDICTIONS, PROFILE, SCORES
from harness.reporting.summary import Group, RecipeRow

Harness = Callable[..., Result]
WriteRun = Callable[..., Path]

COSTS = {"full": (1.0, 8), "lprun": (1.5, 6), "lora_ff": (1.2, 4)}
"""Recipe -> relative speed and GiB in the profile."""


def write_profile(results: Path, machine: dict[str, Any], **changes: Any) -> None:
    rows = [
        {
            "recipe": recipe,
            "status": "ok",
            "speed": {
                "tokens_per_s": 100 * speed,
                "samples_per_s": 10 * speed,
                "relative": speed,
                "relative_ci": [speed * 0.98, speed * 1.02],
                "noise_floor": 1.01,
                "baseline": "full",
                "engine": "packed",
                "schedule_sha256": "ab" * 32,
                "window_seconds": [1.0],
            },
            "memory": {"peak_bytes": gib * 2**30, "static_bytes": 1, "relative": gib / 8},
        }
        for recipe, (speed, gib) in COSTS.items()
    ]
    values = {
        "backbone": "tiny",
        "task": "notes",
        "batches": "drawn from the task's length profile",
        "batch_size": 8,
        "accumulation": 1,
        "mean_source_tokens": 50,
        "mean_target_tokens": 20,
        "fingerprint": machine,
        "recipes": rows,
        **changes,
    }
    Profile.model_validate(values)
    (results / PROFILE).write_text(json.dumps(values))


@pytest.fixture
def machine() -> dict[str, Any]:
    return {
        "device": "cpu",
        "driver": None,
        "cpu": "a processor",
        "threads": 2,
        "versions": {"torch": "2"},
        "dtype": "float32",
        "matmul_precision": "highest",
        "attention": "eager",
        "git": None,
    }


@pytest.fixture
def results(tmp_path: Path, write_run: WriteRun) -> Path:
    """Three seeds of three recipes that measured neither speed nor memory."""
    difficulty = np.random.default_rng(9).normal(0, 5, 40)
    for number, recipe in enumerate(COSTS):
        for seed in range(3):
            noise = np.random.default_rng(10 * number + seed).normal(0, 1, 40)
            write_run(
                tmp_path,
                {"rouge1": list(40 - number + difficulty + noise)},
                recipe=recipe,
                seed=seed,
                speed=None,
                memory=None,
                not_measured={"speed": "off", "memory": "off"},
            )
    return tmp_path


def group_of(results: Path) -> Group:
    (group,) = load_reports(results).summarize().groups
    return group


def row_of(group: Group, recipe: str) -> RecipeRow:
    return next(row for row in group.rows if row.recipe == recipe)


def test_a_profile_in_the_results_folder_gives_speed_memory_and_a_front(
    results: Path, machine: dict[str, Any]
) -> None:
    without = group_of(results)
    assert all(row.speed is None and row.on_front is None for row in without.rows)
    assert row_of(without, "lprun").not_measured["speed"] == "off"
    write_profile(results, machine)
    group = group_of(results)
    row = row_of(group, "lprun")
    assert row.speed
    assert row.speed.value == pytest.approx(1.5)
    assert row.memory_bytes == 6 * 2**30
    assert row.memory_relative == 0.75
    assert not row.not_measured
    assert [fingerprint.cpu for fingerprint in group.fingerprints] == ["a processor"]
    assert all(row.on_front is not None for row in group.rows)
    assert any("profile.json" in note for note in group.notes)


def test_a_recommendation_follows_the_memory_of_the_profile(
    results: Path, machine: dict[str, Any]
) -> None:
    needs: dict[str, Any] = {"min_quality": 0.9, "max_memory_bytes": 5 * 2**30}
    (unknown,) = recommend(results, **needs)
    assert unknown.chosen is None
    assert "its memory is not known" in unknown.verdicts[0].reasons
    write_profile(results, machine)
    (small,) = recommend(results, **needs)
    assert small.chosen == "lora_ff"
    (large,) = recommend(results, min_quality=0.9, max_memory_bytes=9 * 2**30)
    assert large.chosen == "lprun"


def test_costs_that_runs_measured_are_their_own(
    tmp_path: Path, write_run: WriteRun, machine: dict[str, Any]
) -> None:
    write_run(tmp_path, {"rouge1": [40.0, 41.0]}, recipe="full")
    write_profile(tmp_path, machine)
    group = group_of(tmp_path)
    assert row_of(group, "full").memory_bytes == 2**30
    assert not any("profile.json" in note for note in group.notes)


@pytest.mark.parametrize("other", [{"backbone": "large"}, {"task": "letters"}])
def test_a_profile_of_another_model_or_task_changes_nothing(
    results: Path, machine: dict[str, Any], other: dict[str, str]
) -> None:
    write_profile(results, machine, **other)
    assert all(row.speed is None for row in group_of(results).rows)


def test_a_damaged_profile_is_an_error_that_names_it(results: Path) -> None:
    (results / PROFILE).write_text("{}")
    with pytest.raises(HarnessError, match=r"profile\.json' is not a profile"):
        group_of(results)


def test_scores_without_texts_give_the_same_comparison(results: Path) -> None:
    def shares() -> list[Any]:
        rows = group_of(results).rows
        return [row.quality["rouge1"].model_copy(update={"floor": None}) for row in rows]

    def stripped(quality: Any) -> Any:
        return quality.model_copy(update={"retention_above_floor": None})

    expected = [stripped(quality) for quality in shares()]
    for path in results.glob(f"*/{PREDICTIONS}"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{"id": line["id"], "scores": line["scores"]} for line in lines]
        (path.parent / SCORES).write_text("".join(json.dumps(line) + "\n" for line in kept))
        path.unlink()
    for cache in (results / ".cache").glob("*.json"):
        cache.unlink()
    assert [stripped(quality) for quality in shares()] == expected


@pytest.mark.slow
def test_a_page_embeds_no_examples_without_texts(results: Path, harness: Harness) -> None:
    for path in results.glob(f"*/{PREDICTIONS}"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{"id": line["id"], "scores": line["scores"]} for line in lines]
        (path.parent / SCORES).write_text("".join(json.dumps(line) + "\n" for line in kept))
        path.unlink()
    page = harness("report", str(results), "--format", "html")
    assert page.exit_code == 0, page.output
    assert "Prediction 3" not in page.output
