"""An earlier run as the baseline: only on equal hardware, versions and batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError
from harness.records.measurements import Fingerprint
from harness.records.report import Report
from harness.records.run_folder import RunFolder
from harness.running.baseline import apply_baseline, read_baseline

MakeReport = Callable[..., Report]


@pytest.fixture
def earlier(tmp_path: Path, make_report: MakeReport) -> Callable[..., Path]:
    def make(**changes: Any) -> Path:
        return RunFolder(tmp_path, "earlier").finish(make_report(**changes))

    return make


@pytest.fixture
def recipe_report(make_report: MakeReport) -> Report:
    report = make_report(recipe="lora_ff", id="ours")
    assert report.speed
    assert report.memory
    report.speed.tokens_per_s *= 1.75
    report.memory.peak_bytes //= 4
    return report


def test_ratios_are_recipe_over_full(recipe_report: Report, earlier: Callable[..., Path]) -> None:
    apply_baseline(recipe_report, earlier())
    assert recipe_report.speed
    assert recipe_report.memory
    assert recipe_report.speed.relative == pytest.approx(1.75)
    assert recipe_report.memory.relative == 0.25
    # Their windows were not interleaved, so there is no interval; the report says so.
    assert recipe_report.speed.relative_ci is None
    assert recipe_report.speed.noise_floor is None
    assert "tiny-full-notes-s0-0123abcd" in recipe_report.speed.baseline
    assert "not interleaved" in recipe_report.speed.baseline


OTHER = {
    "device": "Some GPU",
    "driver": "999.1",
    "cpu": "Another Processor",
    "threads": 64,
    "versions": {"torch": "2.12.0", "transformers": "5.24.0"},
    "dtype": "bfloat16",
    "matmul_precision": "high",
    "attention": "eager",
    "environment": {"NVIDIA_TF32_OVERRIDE": "1"},
    "git": None,
}


@pytest.mark.parametrize("field", Fingerprint.model_fields)
def test_unequal_fingerprints_are_refused_by_name(
    recipe_report: Report, earlier: Callable[..., Path], field: str
) -> None:
    assert recipe_report.fingerprint
    setattr(recipe_report.fingerprint, field, OTHER[field])
    before = recipe_report.model_copy(deep=True)
    with pytest.raises(HarnessError) as raised:
        apply_baseline(recipe_report, earlier())
    assert f"they differ in {field} (" in raised.value.message
    assert str(OTHER[field]) in raised.value.message
    assert "Leave probe.baseline out" in str(raised.value)
    assert recipe_report == before


def test_every_difference_is_named(recipe_report: Report, earlier: Callable[..., Path]) -> None:
    assert recipe_report.fingerprint
    assert recipe_report.speed
    recipe_report.fingerprint.threads = 64
    recipe_report.fingerprint.dtype = "bfloat16"
    recipe_report.speed.schedule_sha256 = "ef" * 32
    with pytest.raises(HarnessError) as raised:
        apply_baseline(recipe_report, earlier())
    assert "threads (2 there, 64 here)" in raised.value.message
    assert "dtype (float32 there, bfloat16 here)" in raised.value.message
    assert "the batches that were timed" in raised.value.message


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"recipe": "lora_ff"}, "it is lora_ff and ended as ok"),
        (
            {"status": "oom", "failure": {"phase": "train", "message": "full"}},
            "it is full and ended as oom",
        ),
    ],
)
def test_only_a_good_run_of_full_can_be_a_baseline(
    earlier: Callable[..., Path], changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(HarnessError, match="cannot be a baseline") as raised:
        read_baseline(earlier(**changes))
    assert complaint in raised.value.message


@pytest.mark.parametrize("field", ["speed", "memory", "fingerprint"])
def test_a_run_without_measurements_cannot_be_compared(
    recipe_report: Report, earlier: Callable[..., Path], field: str
) -> None:
    with pytest.raises(HarnessError, match="holds no measurements"):
        apply_baseline(recipe_report, earlier(**{field: None}))


def test_a_folder_without_a_run_is_named(recipe_report: Report, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="There is no run in"):
        apply_baseline(recipe_report, tmp_path)
