"""The subject of a diagnosis: a model, published or trained by a run, and its task's examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.api.backbone import Backbone
from harness.api.plugins import installed
from harness.errors import HarnessError
from harness.spec.run_spec import RunSpec, resolve

if TYPE_CHECKING:
    import torch
    from transformers import BatchEncoding, PreTrainedModel

    from harness.training.trained_run import TrainedRun

BATCH = 8
"""Examples in a batch."""


@dataclass(frozen=True)
class Subject:
    """A model and where it came from.

    Attributes:
        backbone: the model's backbone.
        spec: its settings; of a run, those that it had.
        run: the run that trained the model; None is the model before training.
    """

    backbone: Backbone
    spec: RunSpec
    run: TrainedRun | None = None

    @property
    def is_whole(self) -> bool:
        """Return whether the model has all layers, and no weights but its own were trained."""
        return self.run is None or self.run.spec.recipe == "full"

    def load(self, device: torch.device) -> PreTrainedModel:
        """Load the model in float32 and evaluation mode; adapters are merged."""
        from transformers import set_seed

        if self.run:
            from harness.export.stock_model import merge

            return merge(self.run, self.run.load()).to(device).eval()
        set_seed(self.spec.seed)
        return self.backbone.load(self.spec.weights).to(device).eval()

    def batches(self, examples: int, device: torch.device) -> list[BatchEncoding]:
        """Return a random sample of the eval split, tokenized as in training.

        Args:
            examples: number of examples; a smaller split gives as many as it has.
            device: the device of the tensors.
        """
        from random import Random

        import torch
        from transformers import BatchEncoding

        from harness.data.token_cache import tokenize_once
        from harness.training.engines.padded import PaddedEngine

        task = installed().task(self.spec.task, self.spec.task_options)
        split = task.splits(self.spec.seed).eval
        tokens = tokenize_once(split, self.backbone.tokenizer(), task).examples
        count = min(examples, len(tokens))
        chosen = [tokens[i] for i in Random(self.spec.seed).sample(range(len(tokens)), count)]
        engine = PaddedEngine(self.backbone.config().pad_token_id, torch.float32, "cpu")
        return [
            BatchEncoding(engine.collate(chosen[start : start + BATCH]).tensors).to(device)
            for start in range(0, count, BATCH)
        ]


def open_subject(
    run: TrainedRun | None,
    backbone: str | None,
    task: str | None,
    task_options: Mapping[str, Any],
) -> Subject:
    """Return what is to be diagnosed.

    Args:
        run: a trained run, which also names backbone and task.
        backbone: a registered name, a hub id or a folder.
        task: a registered name, a file or a folder.
        task_options: options of the task.

    Raises:
        HarnessError: both a run and a backbone or task, or unknown names.
    """
    if run:
        if backbone or task or task_options:
            raise HarnessError(
                "A run names its backbone and its task.",
                "Leave out --backbone, --task and options of the task, or leave out the run.",
            )
        return Subject(run.backbone, run.spec, run)
    named = {"backbone": backbone, "task": task, "task_options": dict(task_options)}
    spec = resolve({name: value for name, value in named.items() if value}, "paper")
    installed().task(spec.task, spec.task_options)
    chosen = installed().backbone(spec.backbone)
    chosen.check(spec.weights)
    return Subject(chosen, spec)
