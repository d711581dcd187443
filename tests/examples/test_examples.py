"""The examples work as documented, as third-party plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness import HarnessError, Job, RunSpec
from harness.api.metric import make_metric
from harness.api.options import validate
from harness.records.report import LayersKept
from harness.sweeps.executor import open_executor

if TYPE_CHECKING:
    from harness import Report
    from harness.api.plugins import Plugins

FILES = sorted((Path(__file__).parents[2] / "examples" / "harness_examples").glob("*.py"))

METHODS = {"distillation", "influence", "sparsity", "thinning"}
"""Further compressors: with an objective, data, a schedule, and a structure that changes."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_short(file: Path) -> None:
    most = 90 if file.stem in METHODS else 60
    assert 20 <= len(file.read_text().splitlines()) <= most


def test_there_is_one_example_of_each_kind(plugins: Plugins) -> None:
    kinds = {"backbone", "compressor", "executor", "metric", "observer", "task"}
    assert {file.stem for file in FILES} == {"__init__", *kinds, *METHODS}
    for registry in plugins.registries.values():
        entries = [*registry, *registry.families]
        assert "harness-examples" in {entry.origin.package for entry in entries}


# --- Compressor ----------------------------------------------------------------------------------


def test_the_compressor_trains_biases_and_norms_of_a_pruned_model(
    report: Report, run_folder: Path
) -> None:
    from safetensors import safe_open

    assert report.status == "ok"
    assert report.parameters
    with safe_open(run_folder / "weights.safetensors", "pt") as weights:
        names = set(weights.keys())
    assert names
    assert all(name.endswith(".bias") or "norm" in name for name in names)
    assert report.parameters.trainable < 0.1 * report.parameters.original


# --- Task ----------------------------------------------------------------------------------------


def open_task(plugins: Plugins, **options: Any) -> Any:
    kind = plugins.tasks.find("commit_messages").load()
    return kind("commit_messages", validate(kind.Options, options, "the task"))


def test_the_task_tests_on_the_newest_commits(plugins: Plugins, repository: Path) -> None:
    splits = open_task(plugins, path=repository).splits(seed=0)
    numbers = range(1, 41)
    assert splits.train["target"] == [f"Set the number to {n}" for n in numbers[:32]]
    assert splits.eval["target"] == [f"Set the number to {n}" for n in numbers[32:36]]
    assert splits.test["target"] == [f"Set the number to {n}" for n in numbers[36:]]
    assert "-The number is 39\n+The number is 40" in splits.test["source"][-1]
    assert splits.skipped == {"target is empty": 1}


def test_the_task_says_what_it_needs(plugins: Plugins, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"has 0 commits.*not a git repository") as raised:
        open_task(plugins, path=tmp_path).splits(seed=0)
    assert "task_options.path" in (raised.value.hint or "")


def test_the_suite_of_the_task_is_built_in(plugins: Plugins) -> None:
    names = [name for metric in open_task(plugins).metrics() for name in metric.names]
    assert "rouge1" in names
    assert "bleu" in names


# --- Backbone ------------------------------------------------------------------------------------


def test_the_backbone_is_trained_pruned_and_merged(report: Report) -> None:
    assert report.backbone == "tiny-pegasus"
    kept = [1, 2, 3, 5, 6]
    assert report.layers_kept == LayersKept(encoder=kept, decoder=kept)
    assert report.handover
    assert report.handover.largest_logit_difference < 1e-4


def test_every_role_of_the_backbone_is_found(plugins: Plugins, pegasus: Path) -> None:
    reference = f"pegasus:{pegasus}"
    backbone = plugins.backbones.find(reference).load()(reference)
    model = backbone.skeleton()
    depth = {"self_attn": 6 + 6, "cross_attn": 6, "ffn": 6 + 6}
    for role in ("self_attn.q", "cross_attn.v", "ffn.in", "ffn.out"):
        assert len(backbone.modules(model, role)) == depth[role.partition(".")[0]]
    assert backbone.longest_sequence() == 128


# --- Metric --------------------------------------------------------------------------------------


def test_the_metric_counts_edits_of_words(plugins: Plugins) -> None:
    metric = make_metric("wer", plugins.metrics)
    predictions = ["the cat sat", "a b c d", ""]
    references = ["the cat sat down", "b c x", "two words"]
    score = metric.score(["", "", ""], predictions, references)["wer"]
    # One insertion of 4 words; one deletion and one change of 3; two insertions of 2.
    assert score.examples == pytest.approx([25, 200 / 3, 100])
    assert score.value == pytest.approx(100 * 5 / 9)
    assert not score.higher_is_better


def test_an_option_of_the_metric_is_in_its_signature(plugins: Plugins) -> None:
    chosen = make_metric("wer:case=false", plugins.metrics)
    usual = make_metric("wer", plugins.metrics)
    scores = [metric.score([""], ["The Cat"], ["the cat"])["wer"] for metric in (usual, chosen)]
    assert [score.value for score in scores] == [100, 0]
    assert scores[0].signature != scores[1].signature


def test_the_metric_is_in_the_report(report: Report, run_folder: Path) -> None:
    score = report.quality["wer"]
    assert not score.higher_is_better
    assert "case:lower" in score.signature
    rows = map(json.loads, (run_folder / "predictions.jsonl").read_text().splitlines())
    assert all("wer" in row["scores"] for row in rows)


# --- Observer ------------------------------------------------------------------------------------


def test_the_observer_logs_the_run_from_its_start_to_its_end(
    events: list[dict[str, Any]], report: Report
) -> None:
    kinds = [event["event"] for event in events]
    assert kinds[0] == "run"
    assert kinds[-1] == "end"
    assert events[-1]["status"] == "ok"
    assert events[-1]["wer"] == pytest.approx(report.quality["wer"].value)
    losses = [event["loss"] for event in events if "loss" in event]
    assert len(losses) == 4
    assert "eval" in kinds


# --- Executor ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_executor_starts_the_worker_by_srun(srun_call: str) -> None:
    options = "--nodes=1 --ntasks=1 --unbuffered --cpus-per-task=4 --partition=night --time=7 "
    assert srun_call.startswith(options)
    assert srun_call.endswith("-m harness.sweeps.worker\n")


def test_the_executor_requests_what_several_processes_need(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "srun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    executor: Any = open_executor("srun:gpus=1,cpus=3", plugins)
    executor.use_processes(4)
    words = executor.command(Job(spec=RunSpec(), results=tmp_path))
    assert {"--nodes=1", "--ntasks=1", "--cpus-per-task=12", "--gpus=4"} <= set(words)


def test_the_executor_says_where_there_is_no_slurm(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HarnessError, match="There is no srun here"):
        open_executor("srun:gpus=1", plugins)
