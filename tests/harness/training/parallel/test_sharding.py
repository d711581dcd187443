"""Models divided among processes: memory, predictions, precision, and states that others load."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.records.run_folder import TRAINING_STATE
from harness.training.parallel.sharding import without_data

Together = Callable[..., list[str]]

SET_UP = """
from dataclasses import replace
from pathlib import Path
from random import Random

from harness import RunSpec
from harness.api.plugins import installed
from harness.data.examples import Example
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.parallel.whole import finish, trained_state
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Schedule

rng = Random(0)
examples = [
    Example(
        [*rng.choices(range(3, 48), k=rng.randrange(1, 25)), 1],
        [*rng.choices(range(3, 48), k=rng.randrange(0, 9)), 1],
    )
    for _ in range(26)
]

def trainer_of(processes, family, recipe, **settings):
    train = TrainSettings(parallel="fsdp", learning_rate=1e-3, warmup_steps=0, **settings)
    spec = RunSpec(recipe=recipe, weights="random", device="cpu", train=train)
    backbone = getattr(tiny, family)("tiny")
    run = resolve_run(spec, backbone, installed().recipe(recipe))
    trainer = load_trainer(run, processes=processes)
    trainer.join(processes)
    trainer.model.eval()
    return trainer

def take(trainer, first, last, accumulation=2):
    losses = []
    for step in Schedule(examples, 3, accumulation, 0).steps(first, last - first):
        share = trainer.processes.share(step)
        batches = [trainer.engine.collate(batch) for batch in share.micro_batches]
        fillers = len(batches) - share.fillers
        batches = [replace(b, filler=n >= fillers) for n, b in enumerate(batches)]
        losses.append(float(trainer.step(batches, step.target_tokens)))
    return losses
"""

MEMORY = """
import gc
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

recipe, checkpointing = sys.argv[2], sys.argv[3]
with join("cpu") as processes:
    trainer = trainer_of(
        processes, "WideT5", recipe, precision="float32", checkpointing=checkpointing
    )
    model = trainer.model
    backbone = getattr(tiny, "WideT5")("tiny")
    size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)
    total = size(model.parameters())
    layers = [x for s in ("encoder", "decoder") for x in backbone.layers(model, s)]
    inside = {id(p) for layer in layers for p in layer.parameters()}
    rest = size(p for p in model.parameters() if id(p) not in inside)
    largest = max(size(layer.parameters()) for layer in layers)
    gathered = []

    def look():
        gathered.append(size(p for p in model.parameters() if not isinstance(p, DTensor)))

    class Looking(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            look()
            return func(*args, **(kwargs or {}))

    take(trainer, 0, 1)
    with Looking():
        take(trainer, 1, 3)
    look()
    gc.collect()
    optimizer = {
        v.to_local().untyped_storage().data_ptr()
        for state in trainer.optimizer.state.values()
        for v in state.values()
        if isinstance(v, DTensor)
    }
    alive = {}
    for thing in gc.get_objects():
        if isinstance(thing, torch.Tensor) and not isinstance(thing, DTensor):
            storage = thing.untyped_storage()
            if storage.data_ptr() not in optimizer:
                alive[storage.data_ptr()] = storage.nbytes()
    print(json.dumps([total, rest, largest, max(gathered), gathered[-1], sum(alive.values())]))
"""

PREDICTS = """
family, recipe, precision = sys.argv[2:5]
torch.set_grad_enabled(True)
with join("cpu") as processes:
    trainer = trainer_of(processes, family, recipe, precision=precision)
    losses = take(trainer, 0, 4)
    batch = {
        "input_ids": torch.tensor([[5, 9, 30, 1]]),
        "decoder_input_ids": torch.tensor([[0, 7, 8]]),
    }
    logits = []
    # The whole model has weights of products in low precision, as decoding does.
    low = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    with torch.no_grad(), low, trainer.unpatched() as model:
        logits.append(model.eval()(**batch).logits.flatten().float().tolist())
    losses += take(trainer, 4, 6)
    finish(trainer)
    trainer.engine.unpatch(trainer.model)
    with torch.no_grad():
        logits.append(trainer.model.eval()(**batch).logits.flatten().float().tolist())
    shapes = {n: list(p.shape) for n, p in trainer.trained.items()}
    print(json.dumps([losses, logits, shapes]))
"""

RESUMES = """
from torch.optim.lr_scheduler import LambdaLR

from harness.records.tensor_file import write_tensors
from harness.training.state import Progress, load_state, load_state_of_main, save_state

folder, recipe, first, last = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
with join("cpu") as processes:
    trainer = trainer_of(processes, "TinyT5", recipe, precision="float32")
    schedule = LambdaLR(trainer.optimizer, lambda step: 1 / (1 + step))
    if processes.rank == 0:
        now = load_state(folder, trainer, schedule)
    else:
        now = load_state_of_main(trainer, schedule)
    assert now.step == first
    losses = []
    for step in range(first, last):
        losses += take(trainer, step, step + 1)
        schedule.step()
    if processes.rank == 0:
        state = save_state(folder, trainer, schedule, Progress(step=last))
        write_tensors(folder / f"{last}.safetensors", state.weights, {})
        assert not any(p.grad is not None for p in trainer.trained.values())
        print(json.dumps(losses))
    else:
        assert not trained_state(trainer).weights
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "size", "checkpointing"),
    [("full", 2, "off"), ("lora_ff+lprun", 2, "off"), ("full", 4, "on"), ("lora_qv", 4, "on")],
)
def test_a_process_holds_its_share_and_gathers_a_layer_at_a_time(
    together: Together, recipe: str, size: int, checkpointing: str
) -> None:
    for line in together(SET_UP + MEMORY, size, recipe, checkpointing):
        total, rest, largest, most, after, alive = json.loads(line)
        assert most == rest + largest
        assert most < 0.7 * total
        assert after == 0
        assert alive <= (1 / size + 0.05) * total


@pytest.mark.slow
@pytest.mark.parametrize("family", ["TinyGatedT5", "TinyBart"])
@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
def test_predictions_are_those_of_one_process(together: Together, family: str, recipe: str) -> None:
    (alone,) = map(json.loads, together(SET_UP + PREDICTS, 1, family, recipe, "float32"))
    for line in together(SET_UP + PREDICTS, 2, family, recipe, "float32"):
        losses, logits, shapes = json.loads(line)
        assert losses == pytest.approx(alone[0], rel=1e-5)
        assert logits[0] == pytest.approx(alone[1][0], rel=1e-3, abs=1e-4)
        assert logits[1] == pytest.approx(alone[1][1], rel=1e-3, abs=1e-4)
        assert logits[0] != logits[1]
        assert shapes == alone[2]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
def test_in_bfloat16_the_losses_are_near_those_of_one_process(
    together: Together, recipe: str
) -> None:
    (alone,) = map(json.loads, together(SET_UP + PREDICTS, 1, "TinyT5", recipe, "bfloat16"))
    first, *_ = map(json.loads, together(SET_UP + PREDICTS, 2, "TinyT5", recipe, "bfloat16"))
    # A norm's weight, gathered in bfloat16, has a relative error of up to 2**-9, and
    # each step adds to the difference.
    assert first[0][0] == pytest.approx(alone[0][0], rel=2e-3)
    assert first[0] == pytest.approx(alone[0], rel=1e-2)
    assert first[0] != alone[0]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 2), (2, 4)])
def test_a_state_of_some_processes_loads_in_others(
    together: Together, tmp_path: Path, recipe: str, before: int, after: int
) -> None:
    runs: dict[str, list[float]] = {"whole": [], "parts": []}
    for name, parts in {"whole": [(1, 0, 6)], "parts": [(before, 0, 3), (after, 3, 6)]}.items():
        folder = tmp_path / name
        folder.mkdir()
        for size, first, last in parts:
            main, *_ = together(SET_UP + RESUMES, size, folder, recipe, first, last)
            runs[name] += json.loads(main)
    assert runs["parts"] == pytest.approx(runs["whole"], rel=2e-5)
    one, other = (load_file(tmp_path / name / TRAINING_STATE) for name in runs)
    assert one.keys() == other.keys()
    assert any(name.startswith("optimizer/") for name in one)
    for name in (name for name in one if not name.startswith("random/")):
        assert torch.allclose(other[name], one[name], rtol=1e-2, atol=1e-5), name


def test_a_copy_without_data_keeps_ties_and_buffers(backbone: Any) -> None:
    model = backbone.load("random")
    copied = without_data(model, torch.device("cpu"))
    assert [name for name, _ in copied.named_parameters()] == [
        n for n, _ in model.named_parameters()
    ]
    assert sum(p.numel() for p in copied.parameters()) == 0
    for (name, buffer), (other, original) in zip(
        copied.named_buffers(), model.named_buffers(), strict=True
    ):
        assert name == other
        assert torch.equal(buffer, original)
        assert buffer is not original
