"""``harness run``: its output, its failures, and mistakes, which leave no files."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

from harness import hookimpl
from harness.api.events import PhaseStarted
from harness.api.plugins import installed
from harness.records.run_folder import read_report

Harness = Callable[..., Result]


def test_it_shows_the_phases_the_table_and_the_folder(finished_run: Any) -> None:
    result = finished_run.result
    phases = ["load", "probe speed", "probe memory", "train", "evaluate", "hand-over"]
    assert [line for line in result.stderr.splitlines() if line in phases] == phases
    assert "step 3: rouge1" in result.stderr
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("lora_ff+lprun ")]
    assert "25.6 k" in row
    assert f"Report, predictions and weights: {finished_run.folder}\n" in result.stderr
    missing = read_report(finished_run.folder).not_computed
    (note,) = [line for line in result.stderr.splitlines() if line.startswith("Not computed: ")]
    assert all(metric in note for metric in missing)


def test_the_report_command_shows_the_run(finished_run: Any, harness: Harness) -> None:
    result = harness("report", str(finished_run.folder.parent))
    assert result.exit_code == 0
    assert "25.6 k" in result.stdout
    assert "tiny-t5 on notes, 6 test examples" in result.stdout


class Trouble:
    """An observer that raises an error when a phase begins."""

    def __init__(self, phase: str, error: BaseException) -> None:
        self.phase = phase
        self.error = error

    @hookimpl
    def phase_started(self, event: PhaseStarted) -> None:
        if event.phase == self.phase:
            raise self.error


@pytest.fixture
def trouble() -> Iterator[Callable[[str, BaseException], None]]:
    """Return a function that raises an error when a phase begins."""
    manager = installed().manager
    registered: list[Trouble] = []

    def cause(phase: str, error: BaseException) -> None:
        registered.append(Trouble(phase, error))
        manager.register(registered[-1])

    yield cause
    for plugin in registered:
        manager.unregister(plugin)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (KeyboardInterrupt(), "interrupted", 130),
        (MemoryError("[enforce fail] no memory"), "oom", 1),
        (RuntimeError("[/usr/lib] broke [bold]\nat length"), "error", 1),
    ],
    ids=["interrupted", "oom", "error"],
)
def test_a_run_that_fails_leaves_a_report_with_its_status(
    harness: Harness,
    trouble: Callable[[str, BaseException], None],
    short_run: list[str],
    tmp_path: Path,
    error: BaseException,
    status: str,
    code: int,
) -> None:
    trouble("probe speed", error)
    result = harness(*short_run, "--seed", "1", "--out", str(tmp_path))
    assert result.exit_code == code
    assert "Traceback" not in result.output
    message = str(error).partition("\n")[0] or "KeyboardInterrupt"
    assert f"{status} in the phase 'probe speed': {message}" in result.stderr
    (folder,) = tmp_path.iterdir()
    report = read_report(folder)
    assert (report.status, report.seed) == (status, 1)
    assert report.failure
    assert (report.failure.phase, report.failure.message) == ("probe speed", message)
    assert report.data
    assert report.data.train == 48
    assert report.speed is None
    shown = harness("report", str(tmp_path))
    assert status in shown.stdout


def test_a_failure_does_not_replace_a_good_result_of_the_same_run(
    harness: Harness,
    trouble: Callable[[str, BaseException], None],
    finished_run: Any,
    tmp_path: Path,
) -> None:
    good = tmp_path / finished_run.folder.name
    shutil.copytree(finished_run.folder, good)
    before = {path.name: path.read_bytes() for path in good.iterdir()}
    trouble("probe speed", KeyboardInterrupt())
    result = harness("run", str(good / "spec.toml"), "--out", str(tmp_path))
    assert result.exit_code == 130
    assert {path.name: path.read_bytes() for path in good.iterdir()} == before
    aside = tmp_path / f".{good.name}.partial"
    assert read_report(aside).status == "interrupted"
    assert str(aside) in result.stderr
    assert "interrupted" not in harness("report", str(tmp_path)).stdout


def test_an_interrupt_before_the_data_are_read_leaves_no_files(
    harness: Harness,
    trouble: Callable[[str, BaseException], None],
    short_run: list[str],
    tmp_path: Path,
) -> None:
    trouble("load", KeyboardInterrupt())
    result = harness(*short_run, "--out", str(tmp_path / "results"))
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (130, "Interrupted.")
    assert not (tmp_path / "results").exists()


def test_a_run_that_diverges_is_nan(harness: Harness, short_run: list[str], tmp_path: Path) -> None:
    wild = ["train.adapter_learning_rate=1e38", "train.warmup_steps=0", "probe.baseline=probe"]
    settings = [word for setting in wild for word in ("--set", setting)]
    command = [*short_run, "--compressor", "lora_ff", *settings, "--out", str(tmp_path)]
    result = harness(*command)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    (folder,) = tmp_path.iterdir()
    report = read_report(folder)
    assert report.status == "nan"
    assert report.failure
    assert report.failure.phase == "train"
    assert "The loss of step" in report.failure.message
    assert report.quality == {}
    # Earlier measurements stay in the report, here with a baseline.
    speed, memory = report.speed, report.memory
    assert speed
    assert memory
    assert speed.relative
    assert speed.relative_ci
    assert speed.relative_ci[0] <= speed.relative <= speed.relative_ci[1]
    assert speed.noise_floor
    assert speed.noise_floor >= 1
    assert memory.relative
    assert not (folder / "weights.safetensors").exists()


def test_predictions_are_stored_when_a_metric_fails(
    harness: Harness, short_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise RuntimeError("out of luck")

        patch.setattr("tasks.metrics.bleu.Chrf.score", fail)
        result = harness(*short_run, "--metrics", "chrf", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "error in the phase 'evaluate': out of luck" in result.stderr
    (folder,) = tmp_path.iterdir()
    report = read_report(folder)
    # The task's own metric still chose the best weights.
    assert report.training
    assert report.training.best_value is not None
    assert report.training.best_value >= 0
    assert report.quality == {}
    again = harness("score", str(folder / "predictions.jsonl"), "--metrics", "chrf", "--json")
    assert again.exit_code == 0, again.output
    assert len(json.loads(again.stdout)["examples"]) == 6


MISTAKES = {
    "no such file": (["--task", "missing.jsonl"], "There is no file or folder 'missing.jsonl'"),
    "task": (["--task", "radiology_dem"], "Did you mean 'radiology_demo'"),
    "compressor": (["--compressor", "lora_fff"], "Did you mean 'lora_ff'"),
    "option": (["--compressor", "lora_ff:rank=8"], "has no option 'rank'"),
    "preset": (["--preset", "fast"], "Unknown preset 'fast'"),
    "setting": (["--set", "train.batchsize=4"], "Did you mean 'batch_size'"),
    "value": (["--set", "train.epochs=many"], "train.epochs='many' is not valid"),
    "task not text": (["--set", "task=7"], "Unknown task '7'"),
    "backbone not text": (["--set", "backbone=7"], "Unknown backbone '7'"),
    "backbone": (["--backbone", "t5-lagre"], "Did you mean 't5-large'"),
    "weights": (["--backbone", "t5-large"], "hf download"),
    "folder": (["--backbone", "./nowhere"], "config.json is missing"),
    "column": (["--source-column", "findings"], "there is no column 'findings'"),
    "baseline": (["--set", "probe.baseline=results/x"], "There is no run in 'results/x'"),
    "metric": (["--metrics", "rouge,rogue"], "Did you mean 'rouge'"),
    "metric not at hand": (["--metrics", "rouge,bertscore"], "hf download nobody/no-such-model"),
    "no metric": (["--metrics", ","], "names no metric"),
    "task option": (["--set", "task_options.colour=red"], "has no option 'colour'"),
}


@pytest.mark.parametrize(("arguments", "complaint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_explained_and_leaves_no_files(
    harness: Harness,
    short_run: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_BERTSCORE_MODEL", "nobody/no-such-model")
    result = harness(*short_run, *arguments, "--out", "results")
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "the file has no rows"),
        ('{"source": "a", "target": "b"}\n', "too few usable rows"),
        ('{"source": 3, "target": "b"}\n' * 20, "a number instead of text"),
        ('{"text": "a", "other": "b"}\n' * 20, "no column is obviously the target"),
    ],
)
def test_unusable_data_leave_no_files(
    harness: Harness, short_run: list[str], tmp_path: Path, content: str, complaint: str
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(content)
    result = harness(*short_run, "--task", str(data), "--out", str(tmp_path / "results"))
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr
    assert list(tmp_path.iterdir()) == [data]


def test_a_missing_spec_file_is_an_error(harness: Harness, tmp_path: Path) -> None:
    result = harness("run", str(tmp_path / "spec.toml"))
    assert result.exit_code == 2
    assert "There is no spec file" in result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_an_error(
    harness: Harness, short_run: list[str], tmp_path: Path
) -> None:
    result = harness(*short_run, "--set", "device=cuda", "--out", str(tmp_path / "results"))
    assert result.exit_code == 2
    assert "There is no CUDA device here" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_missing_weights_leave_no_files(
    harness: Harness, short_run: list[str], tiny_t5: Path, tmp_path: Path
) -> None:
    backbone = shutil.copytree(tiny_t5, tmp_path / "backbone")
    (backbone / "model.safetensors").unlink()
    command = [*short_run, "--backbone", str(backbone), "--out", str(tmp_path / "results")]
    result = harness(*command)
    assert result.exit_code == 2, result.output
    assert "There are no PyTorch weights in the folder" in result.stderr
    assert "--set weights=random" in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == [backbone]


def test_a_results_folder_that_is_a_file_is_an_error(
    harness: Harness, short_run: list[str], tmp_path: Path
) -> None:
    (tmp_path / "results").write_text("mine")
    result = harness(*short_run, "--out", str(tmp_path / "results"))
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert (tmp_path / "results").read_text() == "mine"


def test_options_override_the_file_and_settings_override_both(
    harness: Harness,
    trouble: Callable[[str, BaseException], None],
    finished_run: Any,
    tmp_path: Path,
) -> None:
    trouble("probe speed", KeyboardInterrupt())
    spec = str(finished_run.folder / "spec.toml")
    options = ["--seed", "3", "--compressor", "lprun", "--set", "train.batch_size=2"]
    harness("run", spec, *options, "--out", str(tmp_path))
    (folder,) = tmp_path.iterdir()
    text = (folder / "spec.toml").read_text()
    report = json.loads((folder / "report.json").read_text())
    assert (report["seed"], report["recipe"]) == (3, "lprun")
    assert "batch_size = 2\n" in text
    assert "max_steps = 6\n" in text
