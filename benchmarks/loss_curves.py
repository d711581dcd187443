"""Loss curves of 200 steps by the packed engine, against padded batches: --help.

All recipes of the paper train tiny models of three families: T5, gated T5 and BART. Without dropout
a packed training, and one whose steps are recorded, must have the losses of padded batches. With
dropout each training draws other masks, so that losses of several seeds are compared: the means
must differ by no more than chance.

Recording is that of a CPU, which runs the recorded function again: it sees only what is written
into the tensors that it was recorded with.

The trainings need something to show. A case fails if its loss does not fall, if a trained weight
does not change, if too few steps were replayed, or if chance alone would hide the effect of
dropout. Each finished case is kept in the working folder, and the command resumes with the rest.
The results are written when all cases are there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from demands import demand
from rounding import round_at_random
from scipy import stats
from tiny_models import FAMILIES, copying_examples

from harness import Backbone
from harness.api.plugins import installed
from harness.measurement.fingerprint import fingerprint
from harness.records.atomic import write_text
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.engines import attention
from harness.training.engines.fused_attention import fused_attention
from harness.training.learning_rate import learning_rate_schedule
from harness.training.recording import plan_shapes, record_steps
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule, prefetch, step_sizes
from harness.training.trainer import Trainer

FILE = "loss_curves.json"
RECIPES = ("full", "lprun", "lora_qv", "lora_ff", "lora_qv+lprun", "lora_ff+lprun")
ENGINES = ("padded", "packed", "recorded")
STEPS = 200
SEEDS = 3
LAST = 100
"""Steps whose losses are averaged where dropout makes each one random."""
EVERY = 10
"""Distance of the losses that are stored, in steps."""
CLOSE = 5e-3
"""Relative distance of losses that is equal in any case."""
SENSITIVE = 3.0
"""Rounding in the seventh digit grows with the steps. Losses are also equal to those of padded
batches up to this many times what the seventh digit of the weights makes of the latter."""
FALL = 0.95
"""Most of its first losses that the last losses of a training may be."""
CONFIDENCE = 0.999
"""All cases together exceed the intervals by chance in 4 %."""
SETTINGS = TrainSettings(
    precision="float32", learning_rate=1e-3, adapter_learning_rate=3e-3, warmup_steps=20
)


class Case(NamedTuple):
    """One comparison.

    Attributes:
        family: one of ``FAMILIES``.
        recipe: one of ``RECIPES``.
        dropout: whether the trainings drop activations.
    """

    family: str
    recipe: str
    dropout: bool

    @property
    def file(self) -> str:
        """Name of the file that keeps the finished case."""
        return f"{self.family}-{self.recipe}-{'dropout' if self.dropout else 'plain'}.json"

    @property
    def backbone(self) -> Backbone:
        """A backbone of the family; six layers are the least that lprun prunes."""
        return FAMILIES[self.family](6 if "lprun" in self.recipe else 2)


CASES = [Case(f, r, d) for d in (False, True) for r in RECIPES for f in FAMILIES]


class Rerun:
    """Records a function by keeping it."""

    def __init__(self, function: Callable[[], None]) -> None:
        self.replay = function


def new_trainer(case: Case, engine: str) -> Trainer:
    """Return a trainer with weights that depend on the case only.

    Args:
        case: names the model, the recipe and whether it drops.
        engine: padded or packed.
    """
    train = SETTINGS.model_copy(update={"engine": engine})
    spec = RunSpec(recipe=case.recipe, weights="random", device="cpu", train=train)
    trainer = load_trainer(resolve_run(spec, case.backbone, installed().recipe(case.recipe)))
    trainer.model.train()
    if not case.dropout:
        turn_dropout_off(trainer)
    return trainer


def turn_dropout_off(trainer: Trainer) -> None:
    """Let no module of a trainer's model drop anything."""
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def curve(trainer: Trainer, seed: int = 0, steps: int = STEPS) -> list[float]:
    """Return the losses of a training; the seed decides its dropout and nothing else."""
    before = {name: weight.detach().clone() for name, weight in trainer.trained.items()}
    torch.manual_seed(seed)
    schedule = list(Schedule(copying_examples(), 4, 1, seed=0).steps(0, steps))
    plan_shapes(trainer, step_sizes(schedule), steps)
    rates = learning_rate_schedule(trainer.optimizer, SETTINGS, steps)
    losses: list[float] = []
    for step, batches in prefetch(schedule, trainer.engine.collate):
        losses.append(float(trainer.step(batches, step.target_tokens, check=not losses)))
        rates.step()
    check_trained(before, trainer)
    check_falls(losses)
    return losses


def check_trained(before: dict[str, torch.Tensor], trainer: Trainer) -> None:
    """End the program if there is no trained weight, or one is what it was."""
    demand(bool(before), "nothing is trained")
    same = [name for name, weight in trainer.trained.items() if torch.equal(weight, before[name])]
    demand(not same, f"{len(same)} trained weights did not change, such as {''.join(same[:1])}")


def check_falls(losses: Sequence[float]) -> None:
    """End the program if losses do not fall."""
    tenth = max(1, len(losses) // 10)
    first, last = statistics.fmean(losses[:tenth]), statistics.fmean(losses[-tenth:])
    demand(last < FALL * first, f"the loss does not fall: {first:.3f} at first, {last:.3f} at last")


def recorded_curve(case: Case, steps: int = STEPS) -> list[float]:
    """Return the losses of a training whose steps are recorded.

    Its attention is that of an accelerator, which reads the offsets of sequences from a tensor.
    """
    with mock.patch.object(attention._PerSequence, "apply", fused_attention):
        trainer = new_trainer(case, "packed")
        record_steps(trainer, Rerun)
        losses = curve(trainer, steps=steps)
    replays = trainer.graphs.replays if trainer.graphs else 0
    demand(replays > steps // 2, f"only {replays} of {steps} steps were replayed")
    return losses


def compare_values(case: Case, steps: int = STEPS) -> dict[str, Any]:
    """Compare the losses of all engines, step by step, without dropout."""
    losses = {
        "padded": curve(new_trainer(case, "padded"), steps=steps),
        "packed": curve(new_trainer(case, "packed"), steps=steps),
        "recorded": recorded_curve(case, steps),
    }
    differences = {engine: difference(losses["padded"], losses[engine]) for engine in ENGINES[1:]}
    rounding = None
    if max(differences.values()) > CLOSE:
        rounded = curve(round_at_random(new_trainer(case, "padded")), steps=steps)
        rounding = difference(losses["padded"], rounded)
    return {
        "losses": {engine: _some(values) for engine, values in losses.items()},
        "plain_last": statistics.fmean(losses["padded"][-LAST:]),
        "largest_relative_difference": differences,
        "effect_of_rounding": rounding,
        "equal": max(differences.values()) <= max(CLOSE, SENSITIVE * (rounding or 0.0)),
    }


def difference(expected: Sequence[float], found: Sequence[float]) -> float:
    """Return the largest relative difference of two curves."""
    return max(abs(b - a) / a for a, b in zip(expected, found, strict=True))


def compare_distributions(case: Case, plain_last: float) -> dict[str, Any]:
    """Compare the last losses of both engines over several seeds of dropout.

    Args:
        case: a case with dropout.
        plain_last: mean of the last losses of padded batches without dropout.
    """
    curves = {
        engine: [curve(new_trainer(case, engine), seed) for seed in range(SEEDS)]
        for engine in ENGINES[:2]
    }
    last = {e: [statistics.fmean(c[-LAST:]) for c in found] for e, found in curves.items()}
    means = {engine: statistics.fmean(values) for engine, values in last.items()}
    half = half_width(last["padded"], last["packed"])
    effect = abs(means["padded"] - plain_last)
    demand(half < effect, f"chance ({half:.3f}) hides the effect of dropout ({effect:.3f})")
    return {
        "losses": {
            engine: _some([statistics.fmean(step) for step in zip(*found, strict=True)])
            for engine, found in curves.items()
        },
        "last_losses": last,
        "difference": means["packed"] - means["padded"],
        "chance": half,
        "effect_of_dropout": means["padded"] - plain_last,
        "equal": abs(means["packed"] - means["padded"]) <= half,
    }


def half_width(one: Sequence[float], other: Sequence[float]) -> float:
    """Return half the width of Student's interval for the difference of two means."""
    variance = (statistics.variance(one) + statistics.variance(other)) / 2
    freedom = len(one) + len(other) - 2
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    return quantile * math.sqrt(variance * (1 / len(one) + 1 / len(other)))


def _some(losses: Sequence[float]) -> list[float]:
    return [round(loss, 6) for loss in losses[EVERY - 1 :: EVERY]]


def compare(case: Case, folder: Path) -> dict[str, Any]:
    """Return the result of a case, from the working folder if it is there already."""
    kept = folder / case.file
    if not kept.is_file():
        if case.dropout:
            plain = compare(case._replace(dropout=False), folder)
            found = compare_distributions(case, plain["plain_last"])
        else:
            found = compare_values(case)
        write_text(kept, json.dumps({**case._asdict(), **found}) + "\n")
    result: dict[str, Any] = json.loads(kept.read_text("utf-8"))
    return result


def main() -> None:
    """Compare all cases that are left, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--work", type=Path, default=Path("build/loss_curves"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    results = []
    for case in CASES:
        results.append(compare(case, options.work))
        shown = {k: v for k, v in results[-1].items() if k not in ("losses", "last_losses")}
        print(json.dumps(shown), flush=True)
    record = {
        "steps": STEPS,
        "seeds": SEEDS,
        "every": EVERY,
        "close": CLOSE,
        "fingerprint": fingerprint(torch.device("cpu"), torch.float32, "packed").model_dump(),
        "cases": results,
    }
    write_text(options.out / FILE, json.dumps(record, indent=1) + "\n")
    different = [f"{r['family']} {r['recipe']}" for r in results if not r["equal"]]
    demand(not different, f"engines differ: {', '.join(different)}")


if __name__ == "__main__":
    main()
