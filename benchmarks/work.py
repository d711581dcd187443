"""What the contenders of the training benchmark train: shapes, recipes and samples."""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict, dataclass
from typing import Any

from harness import Backbone
from harness.plugins import installed
from harness.recipe import Recipe, parse
from harness.training.examples import Example, tokenize


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        shape: a registered backbone; its weights are random.
        recipe: as ``harness run --compressor`` reads it.
        batch: examples to a step.
        warmup: steps before the clock starts.
        steps: timed steps.
        threads: of every contender.
        full_length: all samples as long as the limits: nothing to gain from packing.
        device: ``cpu`` or ``cuda``.
    """

    shape: str
    recipe: str
    batch: int
    warmup: int
    steps: int
    threads: int
    full_length: bool = False
    device: str = "cpu"

    @property
    def backbone(self) -> Backbone:
        """The model, by its shape."""
        backbone: Backbone = installed().backbones.find(self.shape).load()(self.shape)
        return backbone

    @property
    def parsed(self) -> Recipe:
        """The recipe's compressors."""
        return parse(self.recipe, installed().compressors)

    @property
    def batches(self) -> list[list[Example]]:
        """The same ones each time."""
        count = self.batch * (self.warmup + self.steps)
        vocabulary = self.backbone.config().vocab_size
        return _in_batches(make_examples(count, vocabulary, self.full_length), self.batch)

    def record(self) -> dict[str, Any]:
        """Return what a reader must know of it, with how much of a padded batch is real."""
        lengths = [len(e.source) for batch in self.batches for e in batch]
        padded = sum(len(b) * max(len(e.source) for e in b) for b in self.batches)
        return {
            **asdict(self),
            "mean_source_tokens": statistics.mean(lengths),
            "mean_target_tokens": statistics.mean(len(e.target) for b in self.batches for e in b),
            "real_share_of_padded": sum(lengths) / padded,
        }


def make_examples(count: int, vocabulary: int, full_length: bool) -> list[Example]:
    """Sources of about 130 tokens on average and at most 512, targets of 60 and at most 128."""
    rng = random.Random(0)

    def text(median: int, limit: int) -> list[int]:
        drawn = min(limit, max(8, round(rng.lognormvariate(0, 0.75) * median)))
        length = limit if full_length else drawn
        return [*rng.choices(range(3, vocabulary), k=length - 1), 1]

    return [Example(text(98, 512), text(50, 128)) for _ in range(count)]


def demo_batches(backbone: Backbone, batch: int, steps: int) -> list[list[Example]]:
    """Batches of the embedded task, from which there is something to learn."""
    name = "radiology_demo"
    task_class = installed().tasks.find(name).load()
    task = task_class(name, task_class.Options(train=batch * steps, eval=1, test=1))
    examples = tokenize(task.splits(0).train, backbone.tokenizer(), task).examples
    return _in_batches(examples, batch)


def _in_batches(examples: list[Example], size: int) -> list[list[Example]]:
    return [examples[i : i + size] for i in range(0, len(examples), size)]
