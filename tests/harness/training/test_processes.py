"""Several processes take the steps of one training: shares, equal results, failing together."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from harness.data.examples import Example
from harness.errors import HarnessError, OutOfMemoryError
from harness.training.exchange import bytes_from_main, merged
from harness.training.processes import SINGLE_PROCESS, Processes, process_timeout
from harness.training.schedule import Schedule, Step

EXAMPLES = [Example([number] * (1 + number % 7), [number, 1]) for number in range(40)]


def tokens(step: Step) -> int:
    real = step.micro_batches[: len(step.micro_batches) - step.fillers]
    return sum(len(e.source) + len(e.target) for e in chain(*real))


@given(
    examples=st.integers(1, 40),
    batch_size=st.integers(1, 8),
    accumulation=st.integers(1, 4),
    size=st.integers(1, 5),
)
def test_shares_hold_each_example_once_and_are_even_in_tokens(
    examples: int, batch_size: int, accumulation: int, size: int
) -> None:
    schedule = Schedule(EXAMPLES[:examples], batch_size, accumulation, seed=0)
    for step in schedule.steps(0, schedule.steps_per_epoch):
        shares = [Processes(rank, size).share(step) for rank in range(size)]
        real = [s.micro_batches[: len(s.micro_batches) - s.fillers] for s in shares]
        together = Counter(e.source[0] for e in chain(*chain(*real)))
        assert together == Counter(e.source[0] for e in chain(*step.micro_batches))
        batches = list(chain(*(share.micro_batches for share in shares)))
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        assert len({len(share.micro_batches) for share in shares}) == 1
        longest = max(len(e.source) + len(e.target) for e in chain(*step.micro_batches))
        loads = [tokens(share) for share in shares]
        assert max(loads) - min(loads) <= longest


def test_a_process_alone_changes_nothing() -> None:
    (step,) = Schedule(EXAMPLES, 4, 2, seed=0).steps(0, 1)
    assert SINGLE_PROCESS.share(step) is step
    module = nn.Linear(2, 2)
    assert SINGLE_PROCESS.wrap(module) is module
    assert SINGLE_PROCESS.sum(torch.tensor(3.0)) == 3
    assert merged(SINGLE_PROCESS, {1: "a"}) == {1: "a"}
    assert bytes_from_main(SINGLE_PROCESS, b"x") == b"x"
    error = RuntimeError("mine")
    assert SINGLE_PROCESS.cause(error) is error


def test_the_timeout_is_seconds_above_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    assert process_timeout() == timedelta(minutes=30)
    monkeypatch.setenv("HARNESS_PROCESS_TIMEOUT", "90")
    assert process_timeout() == timedelta(seconds=90)
    monkeypatch.setenv("HARNESS_PROCESS_TIMEOUT", "soon")
    with pytest.raises(HarnessError, match="HARNESS_PROCESS_TIMEOUT"):
        process_timeout()


STEPS = """
import itertools

from harness import Options, RunSpec
from harness.api.plugins import installed
from harness.api.recipe import Recipe
from harness.data.examples import Example
from harness.records.tensor_file import write_tensors
from harness.spec.setting_groups import TrainSettings
from harness.training.parallel.whole import trained_state
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule, prefetch
from harness.training.build import load_trainer
from pathlib import Path
from random import Random

out = Path(sys.argv[2])
families, recipes, engines = (words.split(",") for words in sys.argv[3:6])
batch_size, accumulation, checkpointing = int(sys.argv[6]), int(sys.argv[7]), sys.argv[8]
rng = Random(0)
examples = [
    Example(
        [*rng.choices(range(3, 48), k=rng.randrange(1, 25)), 1],
        [*rng.choices(range(3, 48), k=rng.randrange(0, 9)), 1],
    )
    for _ in range(26)
]
with join("cpu") as processes:
    if processes.size == 1:
        engines = ["alone"]
    for family, recipe, engine in itertools.product(families, recipes, engines):
        # As if another version had drawn other weights.
        seed = processes.rank if recipe == "full" else 0
        train = TrainSettings(
            precision="float32",
            checkpointing=checkpointing,
            learning_rate=1e-3,
            adapter_learning_rate=1e-3,
            parallel={"alone": "auto", "offload": "fsdp"}.get(engine, engine),
            cpu_offload=engine == "offload",
        )
        settings = RunSpec(recipe=recipe, weights="random", device="cpu", train=train, seed=seed)
        backbone = getattr(tiny, family)("tiny")
        if recipe == "scheduled":  # Acts after each step.
            chosen = Recipe((load(sys.argv[9]).Scheduled("scheduled", Options()),))
        else:
            chosen = installed().recipe(recipe)
        run = resolve_run(settings, backbone, chosen)
        trainer = load_trainer(run, processes=processes)
        trainer.join(processes)
        trainer.model.eval()
        trainer.events.begin(trainer.model, 20)
        steps = Schedule(examples, batch_size, accumulation, 0).steps(0, 20)
        name = f"{family} {recipe} {engine}"
        if engine == "alone":
            before = {name: p.detach().clone() for name, p in trainer.trained.items()}
            write_tensors(out / f"{name} before.safetensors", before, {})
        losses = []
        for step, batches in prefetch(steps, trainer.engine.collate, processes.share):
            losses.append(float(trainer.step(batches, step.target_tokens, check=not losses)))
        state = trained_state(trainer)
        if processes.rank == 0:
            write_tensors(out / f"{name}.safetensors", state.weights, {})
            print(json.dumps([name, losses]))
"""

FAILS = """
from harness.errors import OutOfMemoryError

fails, kind = int(sys.argv[2]), sys.argv[3]
with join("cpu") as processes:
    try:
        if processes.rank:
            assert processes.await_stage() == PREDICT
            processes.ready()
        else:
            processes.start(PREDICT)
        if processes.rank == fails:
            raise MemoryError("no room") if kind == "memory" else ValueError("no sense")
        merged(processes, {processes.rank: "text"})
    except Exception as error:
        if processes.rank:
            processes.fail(error)
        else:
            cause = processes.cause(error)
            print(type(cause).__name__, cause)
"""

EXCHANGES = """
with join("cpu") as processes:
    texts = {processes.rank: "é" * processes.rank, processes.rank + 10: ""}
    union = merged(processes, texts)
    message = bytes_from_main(processes, b"state" if processes.rank == 0 else b"")
    empty = bytes_from_main(processes, b"")
    if processes.rank == 2:
        print(json.dumps([{str(k): union[k] for k in sorted(union)}, message.decode(), len(empty)]))
"""

EVENTS = Path(__file__).with_name("test_events.py")


def test_texts_and_bytes_are_exchanged(together: Callable[..., list[str]]) -> None:
    *_, printed = together(EXCHANGES, 3)
    union = {"0": "", "1": "é", "2": "éé", "10": "", "11": "", "12": ""}
    assert json.loads(printed) == [union, "state", 0]


@pytest.mark.parametrize(
    ("rank", "kind", "said"),
    [
        (2, "memory", "OutOfMemoryError Process 2: no room"),
        (1, "other", "RuntimeError Process 1: no sense"),
        (0, "other", "ValueError no sense"),
    ],
)
def test_an_error_in_one_process_ends_all(
    together: Callable[..., list[str]], rank: int, kind: str, said: str
) -> None:
    first, *others = together(FAILS, 3, rank, kind)
    assert first.splitlines() == [said]
    assert others == ["", ""]


WITHOUT_GRADIENT = "k_proj.bias"
"""BART's biases of keys, which softmax ignores. Their gradients are rounding errors, which an
optimizer that divides by their size turns into steps of any direction."""


@dataclass(frozen=True)
class Difference:
    """The largest differences of a training in several processes from one in a single process.

    Attributes:
        parallel: ``ddp``, ``fsdp``, or ``offload`` for fsdp with ``train.cpu_offload``.
        loss: of the loss of a step, relative to it.
        weight: of a trained weight.
        moved: of a trained weight before and after the training in a single process.
    """

    recipe: str
    family: str
    parallel: str
    processes: int
    loss: float
    weight: float
    moved: float


@pytest.fixture(scope="module")
def differences() -> Iterator[list[Difference]]:
    """Differences that the tests measure, which are written to the file of PROCESS_DIFFERENCES."""
    measured: list[Difference] = []
    yield measured
    if file := os.environ.get("PROCESS_DIFFERENCES"):
        text = json.dumps([asdict(difference) for difference in measured], indent=1)
        Path(file).write_text(f"{text}\n")


def compare(
    together: Callable[..., list[str]],
    out: Path,
    size: int,
    families: Sequence[str],
    recipes: Sequence[str],
    engines: Sequence[str],
    *batches: int,
    checkpointing: str = "off",
) -> list[Difference]:
    """Train in one and in several processes, and return how much the results differ."""
    words = [out, *map(",".join, (families, recipes, engines)), *batches]
    losses: dict[str, list[float]] = {}
    for processes, recomputed in ((1, "off"), (size, checkpointing)):
        first, *_ = together(STEPS, processes, *words, recomputed, EVENTS)
        losses |= dict(map(json.loads, first.splitlines()))
    measured = []
    for family, recipe, engine in itertools.product(families, recipes, engines):
        alone, shared = f"{family} {recipe} alone", f"{family} {recipe} {engine}"
        assert len(set(losses[alone])) == len(losses[shared]) == 20
        before, after, other = (
            load_file(out / f"{name}.safetensors") for name in (f"{alone} before", alone, shared)
        )
        assert before.keys() == after.keys() == other.keys()
        names = [name for name in after if not name.endswith(WITHOUT_GRADIENT)]
        measured.append(
            Difference(
                recipe=recipe,
                family=family,
                parallel=engine,
                processes=size,
                loss=max(
                    abs(b - a) / a for a, b in zip(losses[alone], losses[shared], strict=True)
                ),
                weight=largest(other[name] - after[name] for name in names),
                moved=largest(after[name] - before[name] for name in names),
            )
        )
    return measured


def largest(tensors: Iterable[torch.Tensor]) -> float:
    return max(float(tensor.abs().max()) for tensor in tensors)


def check(measured: Sequence[Difference]) -> None:
    for difference in measured:
        assert difference.loss < 1e-6, difference
        assert difference.weight < 1e-4, difference
        assert difference.moved > 5e-3, difference


@pytest.mark.parametrize(
    ("engine", "recipes"), [("ddp", ["lora_ff+lprun", "scheduled"]), ("fsdp", ["lora_ff+lprun"])]
)
def test_two_processes_train_the_weights_of_one(
    together: Callable[..., list[str]], tmp_path: Path, engine: str, recipes: list[str]
) -> None:
    check(compare(together, tmp_path, 2, ["TinyBart"], recipes, [engine], 3, 2))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_every_recipe_trains_the_weights_of_one_process(
    together: Callable[..., list[str]], tmp_path: Path, differences: list[Difference], size: int
) -> None:
    families = ["TinyT5", "TinyGatedT5", "TinyBart"]
    recipes = ["full", "lprun", "lora_qv", "lora_ff", "lora_ff+lprun", "lora_qv+lprun"]
    # A step has four examples: two processes add up two micro-batches each. The last step of an
    # epoch has two examples, and two of four processes have a filler.
    measured = compare(
        together,
        tmp_path,
        size,
        families,
        recipes,
        ["ddp", "fsdp"],
        1,
        4,
        checkpointing="off" if size == 2 else "on",
    )
    differences += measured
    check(measured)


@pytest.mark.slow
def test_shards_in_the_memory_of_the_cpu_train_the_same_weights(
    together: Callable[..., list[str]], tmp_path: Path
) -> None:
    recipes, engines = ["full", "lora_ff+lprun"], ["fsdp", "offload"]
    measured = compare(together, tmp_path, 2, ["TinyT5"], recipes, engines, 1, 4)
    check(measured)
    for device, offloaded in zip(measured[::2], measured[1::2], strict=True):
        assert (device.loss, device.weight) == (offloaded.loss, offloaded.weight)


def test_the_cause_of_an_error_of_memory_is_itself() -> None:
    error = OutOfMemoryError("here")
    assert Processes(0, 2, None).cause(error) is error
