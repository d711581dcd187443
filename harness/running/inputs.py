"""Inputs of a run: plugins, data and tokens, checked before anything costs time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from harness.api.metric import Metric
from harness.api.plugins import Plugins
from harness.api.task import Splits, Task
from harness.data.calibration import CalibrationData
from harness.data.examples import TokenizedSplit, check_fit, check_useful
from harness.data.stored_examples import splits_hash
from harness.data.token_cache import tokenize_once
from harness.errors import HarnessError
from harness.evaluation.ctranslate import require_ctranslate2
from harness.evaluation.scoring import metric_of, named_metrics, references_of
from harness.records.report import Data
from harness.running.baseline import baseline_folder, read_baseline
from harness.spec.run_spec import RunSpec
from harness.training.optimizer import require_optimizer
from harness.training.resolved_run import ResolvedRun, resolve_run
from harness.training.teacher_model import find_teacher


@dataclass(frozen=True)
class Inputs:
    """Inputs of a run, after the checks for mistakes of the user.

    Attributes:
        run: the settings, the backbone and the recipe, with device and data type chosen.
        task: the task.
        metrics: the metrics that score the test split.
        best_metric: the name of the score that chooses the best weights.
        chooser: the metric that computes this score.
        tokenizer: the backbone's tokenizer.
        train: tokens of the training split.
        eval: tokens of the examples that are scored during training.
        test: tokens of the test examples that are scored.
        eval_rows: texts of the same examples as ``eval``.
        test_rows: texts of the same examples as ``test``.
        data: the report's part on the data.
    """

    run: ResolvedRun
    task: Task[Any]
    metrics: Sequence[Metric]
    best_metric: str
    chooser: Metric
    tokenizer: PreTrainedTokenizerBase
    train: TokenizedSplit
    eval: TokenizedSplit
    test: TokenizedSplit
    eval_rows: Dataset
    test_rows: Dataset
    data: Data


def read_inputs(spec: RunSpec, plugins: Plugins) -> Inputs:
    """Build the plugins, load the data and tokenize them.

    Raises:
        HarnessError: a mistake in the spec or the data, or a missing package or file.
    """
    # Cheap checks first: names and options before data, data before weights.
    recipe = plugins.recipe(spec.recipe)
    backbone = plugins.backbone(spec.backbone)
    task = plugins.task(spec.task, spec.task_options)
    run = resolve_run(spec, backbone, recipe)
    if teacher := find_teacher(recipe):
        teacher.check(backbone)
    if folder := baseline_folder(spec.probe):
        read_baseline(folder)
    require_optimizer(spec.train)
    if spec.test.decoder == "ctranslate2":
        require_ctranslate2()
    suite = task.metrics()
    named = spec.metrics
    metrics = suite if named is None else [*named_metrics(named, plugins.metrics).values()]
    best_metric = spec.train.best_metric or task.primary_metric
    chooser = metric_of([*metrics, *suite], best_metric)
    splits = task.splits(spec.seed)
    tokenizer = backbone.tokenizer()
    backbone.check(spec.weights)
    eval_count, test_count = scored_counts(spec, task, splits)
    eval_rows, test_rows = _sample(splits.eval, eval_count), _sample(splits.test, test_count)
    train, evaluation, test = (
        tokenize_once(rows, tokenizer, task) for rows in (splits.train, eval_rows, test_rows)
    )
    tokenized = (train, evaluation, test)
    for split in tokenized:
        check_fit(split, backbone)
        check_useful(split, tokenizer, task)
    if reason := chooser.unreadable(references_of(eval_rows, chooser)):
        raise HarnessError(f"{best_metric} cannot choose the best weights.", reason)
    calibration = CalibrationData.sample(train.examples, spec.seed)
    return Inputs(
        replace(run, calibration=calibration),
        task,
        metrics,
        best_metric,
        chooser,
        tokenizer,
        train,
        evaluation,
        test,
        eval_rows,
        test_rows,
        _describe_data(splits, tokenized, task),
    )


def _describe_data(splits: Splits, tokenized: Sequence[TokenizedSplit], task: Task[Any]) -> Data:
    """Return the report's part on the data.

    Args:
        splits: all rows that the task supplied.
        tokenized: the training examples, and the eval and test examples that are scored.
        task: provides the prefix and the limits in tokens.
    """
    train, evaluation, test = tokenized
    return Data(
        train=len(train.examples),
        eval=len(evaluation.examples),
        test=len(test.examples),
        skipped=splits.skipped,
        leakage=splits.leakage,
        cut_sources=sum(split.truncated_sources for split in tokenized),
        cut_targets=sum(split.truncated_targets for split in tokenized),
        sha256=splits_hash(splits.train, splits.eval, splits.test),
        prefix=task.prefix,
        max_source_length=task.max_source_length,
        max_target_length=task.max_target_length,
        rows=len(splits.train) + len(splits.eval) + len(splits.test),
        notes=list(splits.notes),
    )


def scored_counts(spec: RunSpec, task: Task[Any], splits: Splits) -> tuple[int, int]:
    """Return the numbers of examples of the eval split and of the test split that are scored."""
    share = max(1, round(task.eval_share * len(splits.eval)))
    return (
        min(spec.train.eval_examples or share, len(splits.eval)),
        min(spec.test.examples or len(splits.test), len(splits.test)),
    )


def _sample(rows: Dataset, count: int) -> Dataset:
    """Return a sample of ``count`` rows in their order; the sample is the same in every run."""
    if count == len(rows):
        return rows
    return rows.select(sorted(Random(0).sample(range(len(rows)), count)))
