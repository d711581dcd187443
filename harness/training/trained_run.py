"""The trained model of a finished run, rebuilt from its folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.backbone import Backbone
from harness.api.plugins import Plugins, installed
from harness.api.recipe import Recipe
from harness.errors import HarnessError
from harness.records.report import Report
from harness.records.run_folder import SPEC, read_report
from harness.spec.run_spec import RunSpec, read_toml, resolve
from harness.training.run_plugins import require_plugin_files

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

    from harness.api.context import Context
    from harness.data.calibration import CalibrationData


@dataclass(frozen=True)
class TrainedRun:
    """A finished run whose model can be rebuilt.

    Attributes:
        folder: the folder of the run.
        report: what the run measured.
        spec: the settings of the run.
        backbone: the original model.
        recipe: the recipe that it was trained with.
        prefix: text before every source.
        max_source_length: longest source in tokens.
        max_target_length: longest target in tokens.
    """

    folder: Path
    report: Report
    spec: RunSpec
    backbone: Backbone
    recipe: Recipe
    prefix: str
    max_source_length: int
    max_target_length: int

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer."""
        return self.backbone.tokenizer()

    def original(self) -> PreTrainedModel:
        """Load the original model, in float32 on the CPU, as the run loaded it.

        Random weights are drawn again from the run's seed.
        """
        from transformers import set_seed

        set_seed(self.spec.seed)
        return self.backbone.load(self.spec.weights)

    def _context(self) -> Context:
        """Return the context that the run had; it reads the task's data if a compressor asks."""
        from harness.training.resolved_run import resolve_run
        from harness.training.run_context import run_context

        spec = self.spec.model_copy(update={"device": "cpu"})
        run = resolve_run(spec, self.backbone, self.recipe)

        def read(examples: int) -> list[BatchEncoding]:
            return run_context(replace(run, calibration=self._examples())).calibration(examples)

        return replace(run_context(run), synthetic=False, read_batches=read)

    def _examples(self) -> CalibrationData:
        from harness.data.calibration import CalibrationData
        from harness.data.token_cache import tokenize_once

        task = installed().task(self.spec.task, self.spec.task_options)
        rows = task.splits(self.spec.seed).train
        split = tokenize_once(rows, self.tokenizer, task)
        return CalibrationData.sample(split.examples, self.spec.seed)

    def untrained(self) -> PreTrainedModel:
        """Load the original model, apply the recipe, and change the structure as training did."""
        import torch

        from harness.model.composition import change_structure, compose

        model = compose(self.original(), self.backbone, self.recipe, self._context())
        changes = self.report.training.changes if self.report.training else []
        with torch.no_grad():
            change_structure(model, self.backbone, self.recipe, changes)
        return model

    def load(self) -> PreTrainedModel:
        """Load the original model, apply the recipe, and copy the trained weights into it.

        Returns:
            The model with its adapters, in float32 on the CPU, in evaluation mode.

        Raises:
            HarnessError: the trained weights are missing or do not fit the model.
        """
        import torch

        from harness.training.trained_weights import FILE, load_weights

        model = self.untrained()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        try:
            with torch.no_grad():
                load_weights(trained, self.folder)
        except FileNotFoundError as error:
            raise HarnessError(
                f"The run {self.report.id} has no trained weights: {FILE} is missing.",
                f"Copy the file into {str(self.folder)!r}, or repeat the run: "
                f"harness run --spec {self.folder / SPEC}",
            ) from error
        except Exception as error:  # Errors of damaged safetensors files are not documented.
            raise HarnessError(
                f"The trained weights of the run {self.report.id} do not fit its model: {error}",
                f"Repeat the run: harness run --spec {self.folder / SPEC}",
            ) from error
        return model.eval()


def open_run(folder: Path, plugins: Plugins | None = None) -> TrainedRun:
    """Open a finished run, without loading weights.

    Args:
        folder: the folder of the run.
        plugins: the plugins of this environment.

    Raises:
        HarnessError: there is no finished run, or a plugin that it used is missing.
    """
    report = read_report(folder)
    if report.status != "ok" or report.training is None:
        raise HarnessError(
            f"The run {report.id} ended as {report.status}: it has no trained model.",
            f"Repeat it: harness run --spec {folder / SPEC}",
        )
    spec = resolve(read_toml(folder / SPEC), "paper")
    plugins = plugins or installed()
    require_plugin_files(report, folder, plugins)
    backbone = plugins.backbone(spec.backbone)
    _require_same_files(report, backbone)
    data = report.data
    if data is not None and data.prefix is not None:
        prefix, source = data.prefix, data.max_source_length
        target = data.max_target_length
    else:  # A report of an older version.
        task = plugins.task(spec.task, spec.task_options)
        prefix, source, target = task.prefix, task.max_source_length, task.max_target_length
    assert source is not None
    assert target is not None
    recipe = plugins.recipe(spec.recipe)
    return TrainedRun(folder, report, spec, backbone, recipe, prefix, source, target)


def _require_same_files(report: Report, backbone: Backbone) -> None:
    """Raise an error if the backbone's files are not those that the run started from."""
    then = report.backbone_version
    if then is not None and (now := backbone.version()) != then:
        raise HarnessError(
            f"The files of the backbone {report.backbone} have changed since the run "
            f"{report.id}: {now} now, {then} then.",
            "Restore the files that the run started from.",
        )
