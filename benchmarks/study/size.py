"""The size of the study, and the settings that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.api.plugins import Plugins
from harness.spec.run_spec import RunSpec, resolve
from harness.training.learning_rate import peak_learning_rate

BACKBONE = "nano-t5"
FACTORS = (1.0, 10.0, 100.0)
"""Multiples of a documented learning rate that are tried. Documented rates are for trainings of
thousands of steps; one of a hundred steps needs higher ones."""


@dataclass(frozen=True)
class Size:
    """The size of the study: about three hours of two cores.

    Steps are small and many: with the same number of examples, batches of 2 reached a far lower
    loss than batches of 8.

    Attributes:
        task: the task, as ``harness run --task`` takes it.
        seeds: number of seeds of each recipe.
        steps: optimizer steps of a run.
        rate_steps: optimizer steps of a run that tries a learning rate.
        test_examples: examples of the test split that the runs are compared on.
    """

    task: str = "radiology_demo"
    seeds: int = 3
    steps: int = 200
    rate_steps: int = 60
    test_examples: int = 100


def rates(recipe: str, plugins: Plugins) -> list[float]:
    """Return the learning rates to try, from the recipe's documented one upwards."""
    documented = peak_learning_rate(_resolved({}, Size()).train, plugins.recipe(recipe))
    return [float(f"{documented * factor:.6g}") for factor in FACTORS]


def trial(recipe: str, rate: float, size: Size) -> RunSpec:
    """Return the spec of a short run that tries a learning rate.

    Its training loss decides. No example is seen twice, so that it is the loss of unseen examples.
    A metric of predictions says nothing so early: it rewards a model that has not changed yet.
    """
    train = {"max_steps": size.rate_steps, "eval_examples": 2, "tuned_learning_rate": rate}
    # Every run scores both splits. Here nothing reads the scores, and they are cheap.
    few = {"max_new_tokens": 8}
    test = {"examples": 2, **few}
    return _resolved({"recipe": recipe, "train": train, "greedy": few, "test": test}, size)


def cell(recipe: str, rate: float, seed: int, size: Size) -> RunSpec:
    """Return the spec of a run that is compared with the others.

    It has one evaluation, at its end, which decides nothing.
    """
    train = {"max_steps": size.steps, "eval_examples": 8, "tuned_learning_rate": rate}
    test = {"examples": size.test_examples}
    return _resolved({"recipe": recipe, "seed": seed, "train": train, "test": test}, size)


def _resolved(values: dict[str, Any], size: Size) -> RunSpec:
    shared = {
        "batch_size": 2,
        "epochs": 1.0,
        "warmup_steps": 1 / 6,
        # The last step is always evaluated.
        "eval_every_epochs": 1.0,
    }
    test = {"beams": 1, "max_new_tokens": 64}
    return resolve(
        {
            "backbone": BACKBONE,
            "task": size.task,
            "device": "cpu",
            "metrics": ["rouge"],
            **values,
            "train": {**shared, **values.get("train", {})},
            "test": {**test, **values.get("test", {})},
            "probe": {"training": False, "inference": False},
        },
        "paper",
    )
