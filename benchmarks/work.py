"""Work of the training benchmark's contenders: shapes, recipes and samples."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from harness import Backbone
from harness.api.plugins import installed
from harness.api.recipe import Recipe
from harness.data.examples import Example
from harness.data.tokenizing import tokenize
from harness.training.engines.shapes import BatchSize, size_of

MEGA_BATCH = 50  # batches that the trainer sorts by length at a time, or a quarter of the pool
POOL = 4 * MEGA_BATCH
BATCHINGS = ("random", "grouped", "budget")
LEAST_SHARE = {"grouped": 0.7, "budget": 0.85}
"""Least share of a peer's padded tokens that must not be padding, so that it is not handicapped."""
SAME_TOKENS = 0.1
"""Largest relative difference in tokens per step between peers."""


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        shape: name of a registered backbone; its weights are random.
        recipe: a recipe as in ``harness run --compressor``.
        batch: examples per step.
        warmup: steps before the clock starts.
        steps: timed steps.
        threads: threads of every contender.
        full_length: whether all examples have the maximum length, where packing gains nothing.
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
        """Backbone with the case's shape."""
        return installed().backbone(self.shape)

    @property
    def parsed(self) -> Recipe:
        """Recipe as compressors."""
        return installed().recipe(self.recipe)

    def batches(self, batching: str) -> list[list[Example]]:
        """Return the batches of a window, the warm-up's first.

        A window stands for a whole pass over one pool of examples: its batches are taken at even
        distances from what a sampler makes of the pool.

        Args:
            batching: ``random``, or ``grouped`` by the trainer's own sampler: both are given equal
                examples, a mega-batch's. Or a ``budget`` of tokens, over the whole pool.
        """
        if batching == "budget":
            whole = self.whole_pass(batching)
            return [*_spread(whole, self.warmup), *_spread(whole, self.steps)]
        pool = self.whole_pass("grouped")
        # The sampler puts the longest example of all into the first mega-batch.
        _, warm, timed, _ = (pool[i : i + MEGA_BATCH] for i in range(0, POOL, MEGA_BATCH))
        parts = _spread(warm, self.warmup), _spread(timed, self.steps)
        if batching == "random":
            parts = _shuffled(parts[0], self.batch), _shuffled(parts[1], self.batch)
        return [*parts[0], *parts[1]]

    def whole_pass(self, batching: str) -> list[list[Example]]:
        """Return all batches of the pool, by a sampler that knows lengths."""
        vocabulary = self.backbone.config().vocab_size
        examples = make_examples(POOL * self.batch, vocabulary, self.full_length)
        if batching == "budget":
            return within_budget(examples, self.batch)
        order = LengthGroupedSampler(
            self.batch,
            lengths=[len(e.source) for e in examples],
            generator=torch.Generator().manual_seed(0),
        )
        return _in_batches([examples[i] for i in order], self.batch)

    def sizes(self) -> list[BatchSize]:
        """Return the sizes of the batches of a pass in random order."""
        return [size_of(b) for b in _shuffled(self.whole_pass("grouped"), self.batch)]

    def record(self) -> dict[str, Any]:
        """Return the case for the results file, with lengths and the share that is not padding."""
        examples = [e for batch in self.batches("grouped") for e in batch]
        return {
            **asdict(self),
            "pool": POOL,
            "mean_source_tokens": statistics.mean(len(e.source) for e in examples),
            "mean_target_tokens": statistics.mean(len(e.target) for e in examples),
            "real_share": {name: real_share(self.batches(name)) for name in BATCHINGS},
        }

    def check(self) -> None:
        """End the program if a peer is handicapped, or grouping by length gains nothing."""
        if self.full_length:
            return
        share = {name: real_share(self.batches(name)) for name in BATCHINGS}
        for name in ("grouped", "budget"):
            if not share["random"] < share[name] >= LEAST_SHARE[name]:
                raise SystemExit(
                    f"degenerate: {share[name]:.0%} of the tokens are real where batches are made "
                    f"by {name}, {share['random']:.0%} in random order; at least "
                    f"{LEAST_SHARE[name]:.0%}, and more, must be"
                )
        grouped, budget = (
            statistics.mean(map(tokens_of, self.batches(name)[self.warmup :]))
            for name in ("grouped", "budget")
        )
        if not abs(budget / grouped - 1) < SAME_TOKENS:
            raise SystemExit(
                f"degenerate: a step has {grouped:.0f} tokens grouped, {budget:.0f} by a budget"
            )


def within_budget(examples: list[Example], batch: int) -> list[list[Example]]:
    """Cut sorted examples where a padded batch would exceed a budget of tokens.

    The budget is the largest that makes as many batches as batches of equal counts are, so that
    a pass has as many steps.
    """
    order = sorted(examples, key=lambda e: (len(e.source) // 16, len(e.target)), reverse=True)
    count = math.ceil(len(examples) / batch)
    least, most = 1, sum(map(len, (e.source for e in order))) + sum(len(e.target) for e in order)
    while least < most:
        middle = (least + most) // 2
        least, most = (middle + 1, most) if len(_cut(order, middle)) > count else (least, middle)
    return _cut(order, least)


def _cut(order: list[Example], budget: int) -> list[list[Example]]:
    batches: list[list[Example]] = []
    source = target = 0
    for e in order:
        source, target = max(source, len(e.source)), max(target, len(e.target))
        if not batches or (source + target) * (len(batches[-1]) + 1) > budget:
            batches.append([])
            source, target = len(e.source), len(e.target)
        batches[-1].append(e)
    return batches


def tokens_of(batch: list[Example]) -> int:
    """Count tokens without padding."""
    return sum(len(e.source) + len(e.target) for e in batch)


def real_share(batches: list[list[Example]]) -> float:
    """Return the share of the tokens of padded batches that is no padding."""
    real = sum(map(tokens_of, batches))
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
    """Return examples: sources of about 130 tokens and at most 512, targets of 60 and at most 128.

    With ``full_length`` all have the maximum length.
    """
    rng = random.Random(0)

    def text(median: int, limit: int) -> list[int]:
        drawn = min(limit, max(8, round(rng.lognormvariate(0, 0.75) * median)))
        length = limit if full_length else drawn
        return [*rng.choices(range(3, vocabulary), k=length - 1), 1]

    return [Example(text(98, 512), text(50, 128)) for _ in range(count)]


def demo_batches(backbone: Backbone, batch: int, steps: int) -> list[list[Example]]:
    """Return batches of the embedded task, on which a model can learn."""
    name = "radiology_demo"
    task = installed().task(name, {"train": batch * steps, "eval": 1, "test": 1})
    examples = tokenize(task.splits(0).train, backbone.tokenizer(), task).examples
    return _in_batches(list(examples), batch)


def _in_batches(examples: list[Example], size: int) -> list[list[Example]]:
    return [examples[i : i + size] for i in range(0, len(examples), size)]
