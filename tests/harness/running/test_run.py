"""A run: its inputs, the files in its folder, and that it can be repeated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from safetensors import safe_open
from typer.testing import Result

from harness import HarnessError
from harness.api.plugins import installed
from harness.errors import OutOfMemoryError
from harness.evaluation.decoding import generate
from harness.evaluation.predictions import read_predictions
from harness.evaluation.scoring import score
from harness.measurement.fingerprint import fingerprint
from harness.records.report import Report
from harness.records.run_folder import read_report
from harness.running.failure import status_of
from harness.running.inputs import read_inputs
from harness.spec.run_spec import RunSpec, read_toml, resolve
from harness.training.build import load_trainer
from harness.training.log import NonFiniteLossError
from harness.training.trained_weights import load_weights
from tasks.metrics import summary_metrics


@pytest.fixture(scope="session")
def folder(finished_run: Any) -> Path:
    place: Path = finished_run.folder
    return place


@pytest.fixture(scope="session")
def report(folder: Path) -> Report:
    return read_report(folder)


@pytest.fixture(scope="session")
def predictions(folder: Path) -> list[dict[str, Any]]:
    with (folder / "predictions.jsonl").open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def spec_of(folder: Path) -> RunSpec:
    return resolve(read_toml(folder / "spec.toml"), "paper")


def test_the_folder_is_complete_and_named_by_the_run(folder: Path, report: Report) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "history.jsonl",
        "predictions.jsonl",
        "report.json",
        "spec.toml",
        "weights.safetensors",
    ]
    assert folder.name == report.id
    assert report.id.startswith("tiny-t5-lora_ff+lprun-notes-s0-")
    # The only other folder allowed is the cache of `harness report`.
    assert {path.name for path in folder.parent.iterdir()} - {".cache"} == {report.id}


def test_the_report_describes_the_run(report: Report) -> None:
    assert (report.status, report.failure) == ("ok", None)
    assert (report.backbone, report.recipe, report.task) == ("tiny-t5", "lora_ff+lprun", "notes")
    assert report.data
    assert (report.data.train, report.data.eval, report.data.test) == (48, 6, 6)
    assert report.layers_kept
    assert report.layers_kept.encoder == report.layers_kept.decoder == [1, 2, 3, 5, 6]
    assert report.training
    assert (report.training.steps, report.training.planned_steps) == (6, 6)
    assert report.training.best_step in (3, 6)
    assert report.fingerprint
    attention = report.fingerprint.attention
    assert report.fingerprint == fingerprint(torch.device("cpu"), torch.float32, attention)
    assert report.seconds > report.training.seconds > 0
    assert report.handover
    assert report.handover.largest_logit_difference < 1e-3


def test_the_report_holds_measurements_and_invents_no_ratio(report: Report) -> None:
    speed, memory, parameters = report.speed, report.memory, report.parameters
    assert speed
    assert memory
    assert parameters
    assert speed.baseline == "off"
    assert (speed.relative, speed.relative_ci, speed.noise_floor) == (None, None, None)
    assert speed.tokens_per_s > speed.samples_per_s > 0
    assert len(speed.window_seconds) == 4
    assert memory.relative is None
    assert memory.peak_bytes >= memory.static_bytes > 0
    # Rank 16 on two linear layers of 32 x 48 in each of the ten remaining layers.
    assert parameters.trainable == 10 * 2 * 16 * (32 + 48)
    share = 100 * parameters.trainable / parameters.original
    assert parameters.trainable_pct_of_original == pytest.approx(share)


def test_predictions_are_of_the_test_rows(predictions: list[dict[str, Any]], notes: Path) -> None:
    rows = {row["id"]: row for row in map(json.loads, notes.read_text().splitlines())}
    assert len({p["id"] for p in predictions}) == len(predictions) == 6
    for p in predictions:
        assert (p["source"], p["reference"]) == (rows[p["id"]]["source"], rows[p["id"]]["target"])
        assert {"rouge1", "rouge2", "rougeL", "bleu"} <= set(p["scores"])


def test_quality_is_that_of_the_stored_predictions(
    folder: Path,
    predictions: list[dict[str, Any]],
    report: Report,
    harness: Callable[..., Result],
) -> None:
    again = score(summary_metrics(), read_predictions(folder / "predictions.jsonl"))
    assert again.values() == report.quality
    assert again.not_computed == report.not_computed
    command = harness(
        "score", str(folder / "predictions.jsonl"), "--metrics", "rouge,bleu", "--json"
    )
    assert json.loads(command.stdout)["corpus"] == {
        name: value.value for name, value in report.quality.items()
    }
    package = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name in package.rouge_types:
        expected = [
            100 * package.score(p["reference"], p["prediction"])[name].fmeasure for p in predictions
        ]
        assert [p["scores"][name] for p in predictions] == pytest.approx(expected, abs=1e-4)
        assert report.quality[name].value == pytest.approx(sum(expected) / len(expected))


def test_the_best_step_has_the_highest_score_of_the_history(folder: Path, report: Report) -> None:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    scores = {row["step"]: row["eval"]["rouge1"] for row in rows if "eval" in row}
    assert list(scores) == [3, 6]
    assert report.training
    assert report.training.best_value == max(scores.values())
    assert scores[report.training.best_step] == report.training.best_value


def test_the_stored_weights_generate_the_stored_predictions(
    folder: Path, report: Report, predictions: list[dict[str, Any]]
) -> None:
    spec = spec_of(folder)
    inputs = read_inputs(spec, installed())
    trainer = load_trainer(inputs.run)
    load_weights(trainer.trained, folder)
    trainer.engine.unpatch(trainer.model)
    sources = [example.source for example in inputs.test.examples]
    generated = generate(trainer.model, inputs.tokenizer, sources, spec.test, shared_beams=True)
    assert generated == [p["prediction"] for p in predictions]
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        numel = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert report.parameters
    assert numel == report.parameters.trainable


def test_the_stored_spec_runs_again_with_the_same_bits(
    folder: Path, harness: Callable[..., Result], tmp_path: Path
) -> None:
    result = harness("run", str(folder / "spec.toml"), "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    (again,) = tmp_path.iterdir()
    assert again.name == folder.name
    for name in ("predictions.jsonl", "history.jsonl", "spec.toml", "weights.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    first, second = read_report(folder), read_report(again)
    assert first.speed
    assert second.speed
    assert first.speed.schedule_sha256 == second.speed.schedule_sha256
    assert (first.quality, first.data, first.fingerprint) == (
        second.quality,
        second.data,
        second.fingerprint,
    )


def changed(spec: RunSpec, **values: Any) -> RunSpec:
    return RunSpec.model_validate({**spec.model_dump(), **values})


def test_samples_of_eval_and_test_are_the_same_in_every_run(folder: Path) -> None:
    spec = spec_of(folder)
    train = {**spec.train.model_dump(), "eval_examples": 3}
    test = {**spec.test.model_dump(), "examples": 4}
    sampled = changed(spec, train=train, test=test, task_options={"split_seed": 5})
    all_rows = read_inputs(changed(spec, task_options={"split_seed": 5}), installed())
    first, second = (read_inputs(changed(sampled, seed=seed), installed()) for seed in (0, 1))
    assert (len(first.eval_rows), len(first.test_rows)) == (3, 4)
    assert first.eval_rows["id"] == second.eval_rows["id"]
    assert first.test_rows["id"] == second.test_rows["id"]
    assert [i for i in all_rows.test_rows["id"] if i in first.test_rows["id"]] == first.test_rows[
        "id"
    ]
    assert [e.source for e in first.test.examples] == [
        e.source
        for e, i in zip(all_rows.test.examples, all_rows.test_rows["id"], strict=True)
        if i in first.test_rows["id"]
    ]
    # The hash covers all rows, also those that are not scored.
    assert first.data.sha256 == all_rows.data.sha256


def test_skipped_rows_and_truncated_texts_are_counted(folder: Path, tmp_path: Path) -> None:
    rows: list[dict[str, str | None]] = [
        {"source": "short " * n, "target": "word " * n} for n in (1, 2, 40)
    ]
    rows = [*rows * 4, {"source": " ", "target": "x"}, {"source": "x", "target": None}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"max_source_length": 20, "max_target_length": 10}
    data = read_inputs(
        changed(spec_of(folder), task=str(path), task_options=options), installed()
    ).data
    assert (data.train, data.eval, data.test) == (10, 1, 1)
    assert data.skipped == {"source is empty": 1, "target is missing": 1}
    assert (data.cut_sources, data.cut_targets) == (4, 4)


def test_an_unsuitable_baseline_is_refused_before_anything_is_measured(
    folder: Path,
) -> None:
    spec = spec_of(folder)
    probe = {**spec.probe.model_dump(), "baseline": str(folder)}
    with pytest.raises(HarnessError, match=r"it is lora_ff\+lprun and ended as ok"):
        read_inputs(changed(spec, probe=probe), installed())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (NonFiniteLossError("The loss is nan."), "nan"),
        (OutOfMemoryError("killed"), "oom"),
        (MemoryError(), "oom"),
        (RuntimeError("anything"), "error"),
    ],
)
def test_every_error_has_a_status(error: BaseException, status: str) -> None:
    assert status_of(error) == status
