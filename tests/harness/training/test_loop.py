"""The training loop: the weights that it leaves, its end, and its dependence on the seed."""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedConfig, T5Config, get_scheduler

from harness import HarnessError
from harness.api.events import Evaluated, StepDone
from harness.api.metric import Score
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.backbones.t5 import T5
from harness.clock import ManualClock
from harness.data.examples import Example
from harness.records.report import Training
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import Scheduler, TrainSettings
from harness.training.build import load_trainer
from harness.training.log import NonFiniteLossError
from harness.training.loop import Observers, train
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule
from harness.training.trainer import Trainer

rng = random.Random(0)
SOURCES = [[*rng.choices(range(3, 48), k=6), 1] for _ in range(39)]
EXAMPLES = [Example(source, [source[0], 1]) for source in SOURCES]
PER_EPOCH = 10
"""Steps of four examples."""


class Tiny(T5):
    def config(self) -> PreTrainedConfig:
        return T5Config(
            vocab_size=48,
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_heads=2,
            num_layers=2,
            decoder_start_token_id=0,
        )


class Seen:
    """Records the events that observers of a training run receive."""

    def __init__(self) -> None:
        self.steps: list[StepDone] = []
        self.evaluations: list[Evaluated] = []


def settings(**values: Any) -> TrainSettings:
    short = {"batch_size": 4, "warmup_steps": 0, "max_steps": 12, "precision": "float32"}
    return TrainSettings(**{**short, **values})


def make_trainer(chosen: TrainSettings, recipe: str = "full", seed: int = 0) -> Trainer:
    spec = RunSpec(recipe=recipe, weights="random", device="cpu", seed=seed, train=chosen)
    return load_trainer(resolve_run(spec, Tiny("tiny"), parse(recipe, installed().compressors)))


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in trainer.trained.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def score(value: float, higher_is_better: bool = True) -> Score:
    return Score.mean([value], "scripted", higher_is_better)


def run(
    trainer: Trainer,
    chosen: TrainSettings,
    folder: Path,
    evaluate: Callable[[], float] = lambda: 0.0,
    seed: int = 0,
    seen: Seen | None = None,
    higher_is_better: bool = True,
) -> Training:
    seen = seen or Seen()
    return train(
        trainer,
        Schedule(EXAMPLES, chosen.batch_size, chosen.accumulation, seed),
        chosen,
        evaluate=lambda: {"other": score(9), "main": score(evaluate(), higher_is_better)},
        best_metric="main",
        folder=folder,
        observers=Observers(seen.steps.append, seen.evaluations.append),
    )


def history(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def scripted(scores: Sequence[float], trainer: Trainer, kept: list[Any]) -> Callable[[], float]:
    """Return an evaluation that gives these scores and records the weights at each call."""
    left: Iterator[float] = iter(scores)

    def evaluate() -> float:
        kept.append(weights(trainer))
        return next(left)

    return evaluate


@pytest.mark.parametrize("recipe", ["full", "lora_ff"])
def test_the_best_weights_are_left(tmp_path: Path, recipe: str) -> None:
    chosen = settings(eval_every_epochs=0.3, learning_rate=1e-2)
    trainer = make_trainer(chosen, recipe)
    kept: list[Any] = []
    result = run(trainer, chosen, tmp_path, scripted([1, 3, 2, 3], trainer, kept))
    # Of equal scores the earlier one stays.
    assert (result.best_step, result.best_value, result.steps) == (6, 3, 12)
    assert equal(weights(trainer), kept[1])
    assert not equal(kept[1], kept[3])
    assert (tmp_path / "weights.safetensors").is_file()


NAN = math.nan


@pytest.mark.parametrize(
    ("higher_is_better", "scores", "best"),
    [
        (False, [95.9, 94.2, 95.1, 84.3], 3),
        (False, [1, 3, 2, 1], 0),
        (True, [NAN, 3, 2, NAN], 1),
        (False, [NAN, 3, 2, NAN], 2),
        (True, [2, NAN, 1, 3], 3),
        (True, [NAN, NAN, NAN, -1], 3),
    ],
)
def test_the_direction_is_the_metrics_and_no_number_never_wins(
    tmp_path: Path, higher_is_better: bool, scores: list[float], best: int
) -> None:
    chosen = settings(eval_every_epochs=0.3, learning_rate=1e-2)
    trainer, seen = make_trainer(chosen), Seen()
    kept: list[Any] = []
    evaluate = scripted(scores, trainer, kept)
    result = run(trainer, chosen, tmp_path, evaluate, seen=seen, higher_is_better=higher_is_better)
    assert (result.best_step, result.best_value) == ([3, 6, 9, 12][best], scores[best])
    assert result.best_metric == "main"
    assert equal(weights(trainer), kept[best])
    assert [e.step for e in seen.evaluations if e.best][-1] == result.best_step
    # Lines that any reader of JSON understands.
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert "NaN" not in "".join(lines)


def test_where_no_value_is_a_number_the_last_weights_are_left(tmp_path: Path) -> None:
    chosen = settings(eval_every_epochs=0.2, learning_rate=1e-2, patience=3)
    trainer = make_trainer(chosen)
    kept: list[Any] = []
    result = run(trainer, chosen, tmp_path, scripted([NAN] * 6, trainer, kept))
    assert (result.best_step, result.best_value, result.stopped) == (6, None, "patience")
    assert equal(weights(trainer), kept[-1])
    assert Training.model_validate_json(result.model_dump_json()) == result


def test_history_and_observers_see_every_step_and_evaluation(tmp_path: Path) -> None:
    chosen = settings(eval_every_epochs=0.5, warmup_steps=4, learning_rate=0.01)
    trainer, seen = make_trainer(chosen), Seen()
    run(trainer, chosen, tmp_path, scripted([5, 4, 6], trainer, []), seen=seen)
    rates = [0.01 * min(k / 4, (12 - k) / 8) for k in range(12)]
    assert [s.step for s in seen.steps] == list(range(1, 13))
    assert [s.values["learning_rate"] for s in seen.steps] == pytest.approx(rates)
    assert [(e.step, e.epoch, e.values["main"], e.best) for e in seen.evaluations] == [
        (5, 0.5, 5, True),
        (10, 1.0, 4, False),
        (12, 1.2, 6, True),
    ]
    rows = history(tmp_path)
    assert [row for row in rows if "loss" in row] == [
        {"step": s.step, **s.values} for s in seen.steps
    ]
    assert [row for row in rows if "eval" in row] == [
        {"step": e.step, "epoch": e.epoch, "eval": e.values} for e in seen.evaluations
    ]


def test_a_warm_up_longer_than_the_training_never_reaches_the_peak_and_says_so(
    tmp_path: Path,
) -> None:
    chosen, seen = settings(warmup_steps=1000, learning_rate=0.01, max_steps=4), Seen()
    result = run(make_trainer(chosen), chosen, tmp_path, seen=seen)
    rates = [s.values["learning_rate"] for s in seen.steps]
    assert rates == pytest.approx([0, 1e-5, 2e-5, 3e-5])
    assert result.learning_rate == pytest.approx(3e-5)
    (note,) = result.notes
    assert "1,000 steps is not over when the training of 4 ends" in note
    assert "0.3 % of its peak" in note


def test_a_warm_up_can_be_a_share_of_the_training(tmp_path: Path) -> None:
    chosen, seen = settings(warmup_steps=0.3, learning_rate=0.01), Seen()
    result = run(make_trainer(chosen), chosen, tmp_path, seen=seen)
    # ceil(0.3 x 12) = 4
    rates = [0.01 * min(k / 4, (12 - k) / 8) for k in range(12)]
    assert [s.values["learning_rate"] for s in seen.steps] == pytest.approx(rates)
    assert (result.learning_rate, result.notes) == (0.01, [])
    with pytest.raises(ValueError, match="neither a whole number of steps nor a share"):
        settings(warmup_steps=1.5)


def test_the_report_says_which_engines_failed(tmp_path: Path) -> None:
    chosen = settings(max_steps=1)
    trainer = make_trainer(chosen)
    trainer.fallbacks.append("Batches were padded, because packing failed a check: it failed.")
    assert trainer.fallbacks[0] in run(trainer, chosen, tmp_path).notes


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_the_learning_rate_follows_the_schedule_of_its_name(tmp_path: Path, name: str) -> None:
    chosen, seen = settings(scheduler=name, warmup_steps=4, learning_rate=0.01), Seen()
    run(make_trainer(chosen), chosen, tmp_path, seen=seen)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.01)
    peer = get_scheduler(name, optimizer, num_warmup_steps=4, num_training_steps=12)
    rates = []
    for _ in range(12):
        rates.append(peer.get_last_lr()[0])
        optimizer.step()
        peer.step()
    assert [s.values["learning_rate"] for s in seen.steps] == pytest.approx(rates)


def test_patience_stops(tmp_path: Path) -> None:
    chosen = settings(eval_every_epochs=0.2, patience=2)
    trainer = make_trainer(chosen)
    kept: list[Any] = []
    result = run(trainer, chosen, tmp_path, scripted([1, 3, 2, 3, 9, 9], trainer, kept))
    assert (result.stopped, result.steps, result.planned_steps) == ("patience", 8, 12)
    assert result.best_step == 4
    assert equal(weights(trainer), kept[1])


def test_a_better_score_renews_patience(tmp_path: Path) -> None:
    chosen = settings(eval_every_epochs=0.2, patience=2)
    trainer = make_trainer(chosen)
    result = run(trainer, chosen, tmp_path, scripted([2, 1, 3, 1, 4, 1], trainer, []))
    assert (result.stopped, result.steps, result.best_step) == ("finished", 12, 10)


def test_diverging_is_an_error_of_its_own(tmp_path: Path) -> None:
    chosen, seen = settings(learning_rate=1e38), Seen()
    with pytest.raises(NonFiniteLossError, match=r"The loss of step 2 is (nan|inf)"):
        run(make_trainer(chosen), chosen, tmp_path, seen=seen)
    assert [s.step for s in seen.steps] == [1]
    assert not (tmp_path / "weights.safetensors").exists()


def test_it_learns(tmp_path: Path) -> None:
    chosen, seen = settings(learning_rate=1e-2, max_steps=60, eval_every_epochs=6), Seen()
    run(make_trainer(chosen), chosen, tmp_path, seen=seen)
    losses = [s.values["loss"] for s in seen.steps]
    # Nats per target token. Every second token is the closing one: knowing it halves the loss.
    assert losses[0] > math.log(48) - 0.5
    assert sum(losses[-10:]) / 10 < 0.5 * math.log(48) + 1


def test_training_mode_is_restored_after_an_evaluation(tmp_path: Path) -> None:
    chosen = settings(eval_every_epochs=0.2, max_steps=6)
    trainer = make_trainer(chosen)
    modes: list[bool] = []

    def evaluate() -> float:
        modes.append(trainer.model.training)
        trainer.model.eval()
        return 0.0

    run(trainer, chosen, tmp_path, evaluate)
    assert modes == [True, True, True]


@pytest.mark.parametrize("engine", ["padded", "auto"])
def test_a_seed_decides_every_bit(tmp_path: Path, engine: str) -> None:
    chosen = settings(adapter_learning_rate=1e-2, engine=engine)
    results = []
    for name, seed in [("one", 0), ("same", 0), ("other", 1)]:
        (tmp_path / name).mkdir()
        trainer = make_trainer(chosen, "lora_ff", seed)
        run(trainer, chosen, tmp_path / name, seed=seed)
        results.append((weights(trainer), history(tmp_path / name)))
    (one, losses), (same, same_losses), (other, other_losses) = results
    assert equal(one, same)
    assert losses == same_losses
    assert not equal(one, other)
    assert losses != other_losses


def test_the_first_step_checks_what_is_trained(tmp_path: Path) -> None:
    chosen = settings()
    trainer = make_trainer(chosen)
    stray = nn.Parameter(torch.ones(2))
    trainer.trained["stray"] = stray
    trainer.optimizer.add_param_group({"params": [stray]})
    before = weights(trainer)
    with pytest.raises(HarnessError, match="'stray'"):
        run(trainer, chosen, tmp_path)
    assert equal(weights(trainer), before)


class Killed(BaseException):
    """Ends a training as suddenly as a test within one process can."""


@pytest.mark.parametrize(
    ("recipe", "optimizer"),
    [
        ("full", "adamw"),
        pytest.param("lora_ff", "adamw", marks=pytest.mark.slow),
        pytest.param("full", "adafactor", marks=pytest.mark.slow),
        pytest.param("full", "adamw_8bit", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("eight_bits")
def test_a_training_killed_again_and_again_ends_in_the_same_bits(
    tmp_path: Path, recipe: str, optimizer: str
) -> None:
    chosen = settings(
        eval_every_epochs=0.3,
        max_steps=8,
        learning_rate=1e-2,
        adapter_learning_rate=1e-2,
        optimizer=optimizer,
        decay="matrices",
        scheduler="cosine",
    )
    # By the step, so that the scores do not depend on how often somebody asked.
    scores = {3: 1.0, 6: 2.0, 8: 0.5}

    def attempt(folder: Path, last: int | None, every: float) -> tuple[Training, Trainer]:
        trainer, seen = make_trainer(chosen, recipe), Seen()

        def stop(event: StepDone) -> None:
            seen.steps.append(event)
            if event.step == last:
                raise Killed

        result = train(
            trainer,
            Schedule(EXAMPLES, chosen.batch_size, chosen.accumulation, 0),
            chosen,
            evaluate=lambda: {"main": score(scores[seen.steps[-1].step])},
            best_metric="main",
            folder=folder,
            observers=Observers(stop, lambda event: None),
            save_state_seconds=every,
        )
        return result, trainer

    (tmp_path / "whole").mkdir()
    whole, one = attempt(tmp_path / "whole", None, 300)
    for every, kills in [(300, (2, 5, 7)), (0, (1, 2, 4, 7, 8))]:
        folder = tmp_path / f"killed-{every}"
        folder.mkdir()
        for last in kills:
            torch.rand(7)
            random.random()
            with pytest.raises(Killed):
                attempt(folder, last, every)
        resumed, other = attempt(folder, None, every)
        assert equal(weights(one), weights(other))
        for name in ("history.jsonl", "weights.safetensors"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert resumed.model_dump(exclude={"seconds"}) == whole.model_dump(exclude={"seconds"})


def test_patience_that_ran_out_before_the_kill_stays_run_out(
    tmp_path: Path, manual_clock: ManualClock
) -> None:
    chosen = settings(eval_every_epochs=0.2, patience=1)
    left = iter([2.0, 1.0])

    def evaluate() -> float:
        manual_clock.sleep(7)
        return next(left)

    first = run(make_trainer(chosen), chosen, tmp_path, evaluate)
    seen = Seen()
    again = run(make_trainer(chosen), chosen, tmp_path, seen=seen)
    assert (first.steps, again.steps, again.stopped, seen.steps) == (4, 4, "patience", [])
    # Nothing is measured twice.
    assert (first.seconds, again.seconds) == (14, 14)


def test_the_state_on_a_cpu_holds_nothing_of_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: Any) -> Tensor:
        raise AssertionError("asked a GPU")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("get_rng_state", "get_rng_state_all", "set_rng_state"):
        monkeypatch.setattr(torch.cuda, name, asked)
    chosen = settings(eval_every_epochs=0.2, max_steps=4)
    run(make_trainer(chosen), chosen, tmp_path)
    run(make_trainer(chosen), chosen, tmp_path)
    with safe_open(tmp_path / "snapshot.safetensors", framework="pt") as file:
        assert [name for name in file.keys() if name.startswith("random/")] == ["random/torch"]  # noqa: SIM118
