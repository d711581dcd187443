"""The context of a run's compressors: its examples, its weights, and no side effects."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from harness import Backbone, Compressor, Context, HarnessError, Options, Stage
from harness.api.recipe import Recipe
from harness.data.calibration import CalibrationData
from harness.data.examples import Example
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.spec.run_spec import RunSpec
from harness.training.build import load_trainer
from harness.training.resolved_run import ResolvedRun, resolve_run
from harness.training.run_context import load_original, run_context

rng = random.Random(0)
EXAMPLES = [
    Example([*rng.choices(range(3, 48), k=n % 7 + 1), 1], [n % 40 + 3, 1]) for n in range(30)
]


class Curious(Compressor[Any]):
    """Asks for everything and changes nothing; remembers the last context."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    Options = Options
    needs = frozenset({"data"})
    seen: Context

    def apply(self, model: Any, backbone: Backbone, context: Context) -> Any:
        self.seen = context
        self.original = context.original()
        for batch in context.calibration(20):
            if not context.skeleton:
                model.eval()(**batch)  # In training mode dropout would draw.
        torch.rand(3, generator=context.generator)
        return model.train()


def make_run(backbone: Backbone, seed: int = 3) -> tuple[ResolvedRun, Curious]:
    curious = Curious("curious", Options())
    spec = RunSpec(recipe="curious", weights="random", device="cpu", seed=seed)
    run = resolve_run(spec, backbone, Recipe((curious,)))
    return replace(run, calibration=CalibrationData.sample(EXAMPLES, seed)), curious


def tokens(batches: list[Any]) -> list[tuple[list[int], list[int]]]:
    """Return the tokens without padding."""
    return [
        (source[mask.bool()].tolist(), target[target != -100].tolist())
        for batch in batches
        for source, mask, target in zip(
            batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
        )
    ]


def test_calibration_gives_training_examples_that_the_seed_determines(backbone: Backbone) -> None:
    run, _ = make_run(backbone)
    context = run_context(run)
    given = tokens(context.calibration(20))
    everything = [(e.source, e.target) for e in EXAMPLES]
    assert len(given) == 20
    assert all(pair in everything for pair in given)
    assert given != everything[:20]
    assert not context.synthetic
    assert context.calibration(20) is context.calibration(20)
    assert tokens(run_context(run).calibration(8)) == given[:8]
    other, _ = make_run(backbone, seed=4)
    assert tokens(run_context(other).calibration(20)) != given
    # No more than there are, and no more than can be asked for.
    assert len(tokens(context.calibration(500))) == 30
    with pytest.raises(HarnessError, match="asked for 513"):
        context.calibration(513)


def test_asking_changes_no_random_number_of_the_run(backbone: Backbone) -> None:
    run, curious = make_run(backbone)
    load_original(run)
    expected = float(torch.rand(())), random.random(), np.random.rand()
    trainer = load_trainer(run)
    assert (float(torch.rand(())), random.random(), np.random.rand()) == pytest.approx(expected)
    plain = load_original(run).state_dict()
    assert plain.keys() == curious.original.keys()
    assert all(torch.equal(plain[name], curious.original[name]) for name in plain)
    weights = trainer.model.state_dict()
    assert all(torch.equal(plain[name], weights[name]) for name in plain)


def test_a_skeletons_context_has_shapes_and_says_that_tokens_are_synthetic(
    backbone: Backbone,
) -> None:
    run, curious = make_run(backbone)
    compose(backbone.skeleton(), backbone, run.recipe, skeleton_context(backbone, seed=3))
    context = curious.seen
    assert context.skeleton
    assert context.synthetic
    assert context.device.type == "meta"
    assert {tensor.device.type for b in context.calibration(9) for tensor in b.values()} == {"meta"}
    assert [len(batch["input_ids"]) for batch in context.calibration(9)] == [8, 1]
    assert all(tensor.is_meta for tensor in curious.original.values())
    # A random choice is the same for the skeleton and for the weights.
    drawn = torch.rand(5, generator=context.generator)
    load_trainer(run)
    assert torch.equal(torch.rand(5, generator=curious.seen.generator), drawn)


def test_without_data_a_run_gives_random_tokens_and_says_so(backbone: Backbone) -> None:
    run, curious = make_run(backbone)
    load_trainer(replace(run, calibration=None))
    assert curious.seen.synthetic
    load_trainer(run)
    assert not curious.seen.synthetic


def test_examples_are_given_only_if_the_need_is_declared(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = make_run(backbone)
    monkeypatch.setattr(Curious, "needs", frozenset())
    with pytest.raises(HarnessError, match="uses 'data' without declaring it"):
        load_trainer(run)
