"""What the contenders of the training benchmark train: shapes, recipes and samples."""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from harness import Backbone
from harness.plugins import installed
from harness.recipe import Recipe, parse
from harness.training.examples import Example, tokenize

MEGA_BATCH = 50  # batches that the trainer sorts by length at a time, or a quarter of the pool
POOL = 4 * MEGA_BATCH
LEAST_SHARE = 0.7


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

    def batches(self, grouped: bool) -> list[list[Example]]:
        """Return the batches of a window, the warm-up's first; all contenders see equal examples.

        They stand for one whole mega-batch: batches at even distances in what the trainer's own
        sampler makes of a pool of four mega-batches. Who does not group has them in random order.
        """
        vocabulary = self.backbone.config().vocab_size
        examples = make_examples(POOL * self.batch, vocabulary, self.full_length)
        order = LengthGroupedSampler(
            self.batch,
            lengths=[len(e.source) for e in examples],
            generator=torch.Generator().manual_seed(0),
        )
        pool = _in_batches([examples[i] for i in order], self.batch)
        # The sampler puts the longest example of all into the first mega-batch.
        _, warm, timed, _ = (pool[i : i + MEGA_BATCH] for i in range(0, POOL, MEGA_BATCH))
        parts = _spread(warm, self.warmup), _spread(timed, self.steps)
        if not grouped:
            parts = _shuffled(parts[0], self.batch), _shuffled(parts[1], self.batch)
        return [*parts[0], *parts[1]]

    def record(self) -> dict[str, Any]:
        """Return what a reader must know of it, with how much of a padded batch is real."""
        examples = [e for batch in self.batches(True) for e in batch]
        return {
            **asdict(self),
            "pool": POOL,
            "mean_source_tokens": statistics.mean(len(e.source) for e in examples),
            "mean_target_tokens": statistics.mean(len(e.target) for e in examples),
            "real_share_of_padded": real_share(self.batches(False)),
            "real_share_of_grouped": real_share(self.batches(True)),
        }

    def check(self) -> None:
        """Fail where the peer is handicapped, or there is nothing to gain by grouping."""
        share, plain = real_share(self.batches(True)), real_share(self.batches(False))
        if not self.full_length and not plain < share >= LEAST_SHARE:
            raise SystemExit(
                f"degenerate: {share:.0%} of the grouped peer's tokens are real, {plain:.0%} of "
                f"those in random order; at least {LEAST_SHARE:.0%}, and more, must be"
            )


def real_share(batches: list[list[Example]]) -> float:
    """Return the share of the tokens of padded batches that is no padding."""
    real = sum(len(e.source) + len(e.target) for batch in batches for e in batch)
    padded = sum(
        len(b) * (max(len(e.source) for e in b) + max(len(e.target) for e in b)) for b in batches
    )
    return real / padded


def _spread(batches: list[list[Example]], count: int) -> list[list[Example]]:
    """Return batches at even distances."""
    if count > len(batches):
        raise SystemExit(f"{count} steps: a window has at most {len(batches)}, a mega-batch")
    return [batches[int((k + 0.5) * len(batches) / count)] for k in range(count)]


def _shuffled(batches: list[list[Example]], size: int) -> list[list[Example]]:
    examples = [e for batch in batches for e in batch]
    random.Random(0).shuffle(examples)
    return _in_batches(examples, size)


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
