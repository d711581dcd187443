"""Each step of ``make gpu`` at a size that takes a CPU seconds, and its counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Import = Callable[[str], ModuleType]


@pytest.fixture
def run_tiny(module: Import, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """Run a step in this process, and return its record."""

    def call(name: str) -> dict[str, Any]:
        file = tmp_path / f"{name}.json"
        step = module(f"gpu.{name}")
        arguments = ["--result", str(file), "--device", "cpu", "--tiny"]
        assert module("gpu.step").run_step(step.run, arguments) == 0, file.read_text()
        record: dict[str, Any] = json.loads(file.read_text())
        return record

    return call


def test_tests_are_counted_by_their_outcome(module: Import, tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(
        "import pytest\n"
        "gpu = pytest.mark.gpu\n"
        "@gpu\ndef test_good(): pass\n"
        "@gpu\ndef test_bad(): assert 1 == 2, 'one is not two'\n"
        "@gpu\n@pytest.mark.slow\ndef test_slow(): assert False\n"
        "@gpu\n@pytest.mark.skip\ndef test_skipped(): pass\n"
        "def test_unmarked(): assert False\n"
    )
    step = module("gpu.marked_tests")
    outcomes = step.run_file(file, 60)
    assert outcomes["passed"] == outcomes["skipped"] == 1
    assert list(outcomes["failed"]) == ["test_bad"]
    assert "one is not two" in outcomes["failed"]["test_bad"]
    assert outcomes["seconds_of_tests"].keys() == {"test_good", "test_bad", "test_skipped"}
    assert "failure" not in outcomes


@pytest.mark.slow
def test_tests_that_ended_are_counted_when_time_runs_out(
    module: Import, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(
        "import time, pytest\n"
        "pytestmark = pytest.mark.gpu\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'one is not two'\n"
        "def test_endless(): time.sleep(600)\n"
    )
    outcomes = module("gpu.marked_tests").run_file(file, 8)
    assert outcomes["passed"] == 1
    assert "one is not two" in outcomes["failed"]["test_bad"]
    assert outcomes["failure"] == "not done after 8 s"
    assert ".F" in capsys.readouterr().out


def test_a_test_that_kills_pytest_loses_no_other(module: Import, tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(
        "import os, pytest\n"
        "pytestmark = pytest.mark.gpu\n"
        "def test_good(): pass\n"
        "def test_fatal(): os._exit(9)\n"
    )
    outcomes = module("gpu.marked_tests").run_file(file, 60)
    assert outcomes["passed"] == 1
    assert outcomes["failure"] == "pytest ended with status 9"


def test_tests_that_measure_run_alone(module: Import) -> None:
    step = module("gpu.marked_tests")
    measuring, others = (set(step.marked_files(step.ROOT / "tests", m)) for m in (True, False))
    (cuda,) = measuring
    assert cuda.relative_to(step.ROOT / "tests").parts == ("harness", "measurement", "test_cuda.py")
    assert len(others) >= 5
    assert measuring.isdisjoint(others)


def test_a_failed_test_fails_the_step(
    module: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = module("gpu.marked_tests")
    outcomes = {"passed": 3, "skipped": 0, "failed": {"test_bad": "one is not two"}}
    monkeypatch.setattr(step, "run_file", lambda *_: outcomes)
    file = tmp_path / "tests.json"
    assert module("gpu.step").run_step(step.run, ["--result", str(file), "--tiny"]) == 1
    record = json.loads(file.read_text())
    assert record["wrong"] == ["test_bad"]
    assert record["summary"] == "3 passed, 1 failed, 0 skipped, first test_bad"


def test_all_files_with_marked_tests_are_found(module: Import) -> None:
    step = module("gpu.marked_tests")
    names = {path.name for path in step.marked_files(step.ROOT / "tests" / "harness", False)}
    assert {"test_cuda.py", "test_fused_attention.py", "test_async_scalar.py"} <= names
    assert "test_packed.py" not in names


def test_device_time_is_summed_by_kind(module: Import) -> None:
    step = module("gpu.kernels")
    kernels = [
        step.Kernel("sm90_xmma_gemm_bf16", 0, 2_000_000),
        step.Kernel("void pytorch_flash::flash_fwd_kernel", 1_000_000, 3_000_000),
        step.Kernel("vectorized_elementwise_kernel<add>", 6_000_000, 1_000_000),
        step.Kernel("Memcpy HtoD (Pinned -> Device)", 6_500_000, 100_000),
        step.Kernel("multi_tensor_apply_kernel<FusedAdam>", 9_000_000, 500_000),
    ]
    sums = step.sum_up(kernels, step_seconds=0.010)
    assert sums["launches"] == 5
    assert sums["device_ms_by_kind"] == pytest.approx(
        {"products": 2, "attention": 3, "element-wise": 1, "copies": 0.1, "optimizer": 0.5}
    )
    # 0 to 4, 6 to 7 and 9 to 9.5: overlapping kernels count once.
    assert sums["device_ms"] == pytest.approx(5.5)
    assert sums["idle_ms"] == pytest.approx(4.5)


def test_a_step_of_both_contenders_is_profiled(run_tiny: Callable[[str], dict[str, Any]]) -> None:
    cases = run_tiny("kernels")["cases"]
    own, other = (cases[f"nano-t5 lora_ff+lprun {who}"] for who in ("harness", "trainer"))
    assert own["tokens"] == other["tokens"] > 0
    for case in (own, other):
        assert case["device_ms_by_kind"]["products"] > 0
        assert 0 < case["host_ms"] <= case["step_ms"]
        assert 5 < case["loss"] < 12


@pytest.mark.slow
def test_losses_gradients_and_predictions_are_the_librarys(
    run_tiny: Callable[[str], dict[str, Any]],
) -> None:
    record = run_tiny("equality")
    assert record["summary"] == "2 equal, 0 different"
    assert record["wrong"] == []
    case = record["cases"]["nano-t5 lora_ff+lprun"]
    assert case["distances"]["float32"]["gradients"] < 1e-4
    # A step compared with itself would have distance 0 in bfloat16.
    assert case["distances"]["bfloat16"]["gradients"] > 1e-3


def test_distances_are_relative(module: Import) -> None:
    import torch

    step = module("gpu.equality")
    expected = torch.tensor(2.0), {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([4.0])}
    measured = torch.tensor(2.2), {"a": torch.tensor([3.0, 0.5]), "b": torch.tensor([4.0])}
    assert step.distances(expected, measured) == pytest.approx({"loss": 0.1, "gradients": 0.1})
    with pytest.raises(RuntimeError, match="only one of both steps gives b a gradient"):
        step.distances(expected, (measured[0], {"a": measured[1]["a"]}))
