"""Each check of a compressor fails where its promise is broken, and says which line to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness.testing
from harness import HarnessError
from harness.api.plugin_files import PluginFile
from harness.testing.applying import APPLYING
from harness.testing.composing import BESIDE_OTHERS
from harness.testing.compressor import CHECKS, check_compressor
from harness.testing.handing_over import HANDING_OVER
from harness.testing.result import CheckResult
from harness.testing.runner import run_checks
from harness.testing.training import TRAINING

faulty = PluginFile.read(Path(__file__).with_name("faulty.py")).load()
"""Compressors that each break one promise."""

ALL = [*BESIDE_OTHERS, *APPLYING, *TRAINING, *HANDING_OVER]


def check_one(kind: type, name: str, place: Path) -> CheckResult:
    """Run one check of a class on T5."""
    from harness.api.plugins import installed
    from harness.testing.compressor import _copy, _name_of, _subject

    registry = _copy(installed().compressors)
    text = _name_of(kind, registry)
    chosen = [check for check in ALL if check.name == name]
    assert len(chosen) == 1
    (result,) = run_checks(chosen, _subject("t5", text, text, registry, place), kind)
    return result


def line_of(result: CheckResult) -> str:
    assert result.place
    file, _, number = result.place.rpartition(":")
    assert file == faulty.__file__
    return Path(file).read_text().splitlines()[int(number) - 1].strip()


@pytest.mark.parametrize(
    ("kind", "check", "reason", "line"),
    [
        ("WithValues", "applies to shapes and to weights alike", "on the meta device", "def apply"),
        ("Unused", "trains exactly what it says", "extra.weight", "def apply"),
        ("OwnSeed", "another seed gives other weights", "context.generator", "def apply"),
        ("NoSeed", "the same seed gives the same weights", "difference is", "def apply"),
        ("Forgetful", "a killed training resumes identically", "state_dict", ""),
        ("Unmerged", "the merged model is equal and reloads", "have no place", ""),
        ("Nameless", "the merged model is equal and reloads", "without naming", "raise Harness"),
        ("Positional", "packed rows equal padded batches", "difference is", "def loss"),
        ("Still", "the loss falls", "the objective is", "def loss"),
        pytest.param(
            "Silent",
            "composes with others or refuses by name",
            "is not trained any more",
            "",
            marks=pytest.mark.slow,
        ),
        ("Crashing", "valid options work or are refused by name", "share=3 raise ZeroDiv", ""),
        ("Undocumented", "options are documented and validated", "'size' is not documented", ""),
    ],
)
def test_a_broken_promise_is_found(
    kind: str, check: str, reason: str, line: str, tmp_path: Path
) -> None:
    result = check_one(getattr(faulty, kind), check, tmp_path)
    assert result.outcome == "failed", result
    assert reason in str(result.reason)
    if line:
        assert line_of(result).startswith(line)


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("Base", "trains exactly what it says"),
        ("Remembering", "a killed training resumes identically"),
        ("Base", "composes with others or refuses by name"),
        ("Base", "the merged model is equal and reloads"),
    ],
)
def test_a_kept_promise_passes(kind: str, check: str, tmp_path: Path) -> None:
    result = check_one(getattr(faulty, kind), check, tmp_path)
    assert result.outcome == "passed", result
    assert result.difference in (None, 0.0) or result.difference < 1e-6


def test_a_method_without_random_numbers_does_not_pass_as_seeded(tmp_path: Path) -> None:
    result = check_one(faulty.Base, "another seed gives other weights", tmp_path)
    assert (result.outcome, result.reason) == ("does not apply", "it adds no random numbers")


@pytest.mark.slow
def test_a_class_is_checked_alone_and_with_pruned_layers() -> None:
    report = check_compressor(faulty.Base, families=["bart"])
    report.require_passed()
    assert report.name == "base"
    on = {result.on for result in report.results}
    assert on == {"", "bart", "bart+lprun"}
    assert len(report.results) == len(BESIDE_OTHERS) + 2 * len(CHECKS)
    packed = [r for r in report.results if "packed" in r.check]
    assert all(r.outcome == "passed" and r.difference is not None for r in packed)


def test_what_applies_nowhere_fails() -> None:
    report = check_compressor("lprun", families=["t5"])  # Its pattern drops none of three layers.
    (failure,) = report.failures
    assert failure.check == "applies to at least one model"
    assert "drops none of 3 layers" in str(failure.reason)
    with pytest.raises(AssertionError, match="drops none of 3 layers"):
        report.require_passed()


@pytest.mark.slow
def test_a_compressor_that_trains_nothing_alone_is_checked_beside_lora() -> None:
    report = check_compressor("int8", families=["t5"], pruned=[False])
    report.require_passed()
    assert (report.name, report.beside) == ("int8", "lora_ff")
    outcomes = {result.check: result.outcome for result in report.results}
    assert outcomes["trains exactly what it says"] == "passed"
    assert outcomes["the merged model is equal and reloads"] == "passed"


@pytest.mark.parametrize(
    ("compressor", "helps"), [("nf4", True), ("lora_ff", False), (faulty.Frozen, False)]
)
def test_only_what_says_that_it_trains_nothing_is_checked_beside_another(
    compressor: str | type, helps: bool, tmp_path: Path
) -> None:
    from harness.api.plugins import installed
    from harness.testing.companion import companion_of
    from harness.testing.compressor import _copy, _name_of, _subject

    registry = _copy(installed().compressors)
    name = compressor if isinstance(compressor, str) else _name_of(compressor, registry)
    found = companion_of(_subject("t5", name, name, registry, tmp_path))
    assert (found == "lora_ff") is helps


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(HarnessError, match="Unknown compressor 'lora_f'"):
        check_compressor("lora_f")
    with pytest.raises(HarnessError, match="no family 'gpt'"):
        check_compressor("lora_ff", families=["gpt"])


def test_the_kit_is_imported_when_it_is_used() -> None:
    assert set(harness.testing.__all__) >= {"check_compressor", "check_metric", "check_task"}
    assert all(getattr(harness.testing, name) for name in harness.testing.__all__)
