"""The plan of several processes beside what four processes hold and allocate."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

Together = Callable[..., list[str]]

MEASURES = """
from torch.distributed.tensor import DTensor

from harness import RunSpec
from harness.api.plugins import installed
from harness.costs.plan import plan_recipes
from harness.data.examples import Example
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.resolved_run import resolve_run
from harness.training.schedule import Step

recipe, parallel = sys.argv[2:4]
SOURCE, TARGET = 24, 8

def size(tensors):
    local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in local)}
    return sum(storages.values())

def most_allocated(action):
    # The allocator's own record, also of what FSDP and autograd allocate.
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as profile:
        action()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most

with join("cpu") as processes:
    train = TrainSettings(
        parallel=parallel,
        precision="float32",
        checkpointing="off",
        warmup_steps=0,
        batch_size=4,
        accumulation=2,
    )
    spec = RunSpec(recipe=recipe, weights="random", device="cpu", train=train)
    backbone = tiny.WideT5("tiny")
    chosen = installed().recipe(recipe)
    trainer = load_trainer(resolve_run(spec, backbone, chosen), processes=processes)
    trainer.join(processes)
    model = trainer.model.train()
    whole = Step(((Example([1] * SOURCE, [1] * TARGET),) * 4,) * 2)

    def batches():
        share = processes.share(whole).micro_batches
        return [trainer.engine.collate(batch) for batch in share]

    def gather():
        # So few tokens that nearly all that is allocated are gathered weights.
        with torch.no_grad():
            trainer._loss(trainer.engine.collate((Example([1], [1]),)))

    for _ in range(2):
        trainer.step(batches(), whole.target_tokens)
    states = trainer.optimizer.state.values()
    measured = {
        "weights": size(model.parameters()),
        "optimizer": size(v for s in states for v in s.values() if torch.is_tensor(v)),
    }
    own = batches()
    trainer.backward(own, whole.target_tokens)
    measured["gradients"] = size(p.grad for p in model.parameters() if p.grad is not None)
    trainer.update()
    layers = [x for s in ("encoder", "decoder") for x in backbone.layers(model, s)]
    # gloo has a copy of its own of what it gathers.
    copy = max(sum(p.numel() * p.element_size() for p in x.parameters()) for x in layers)
    measured["gathered"] = most_allocated(gather) - copy if parallel == "fsdp" else 0
    own = batches()
    between = measured["weights"] + measured["optimizer"] + size(model.buffers())
    if parallel == "ddp":  # Its buckets, which the gradients are in, stay.
        between += measured["gradients"]
    measured["peak"] = between + most_allocated(
        lambda: (trainer.backward(own, whole.target_tokens), trainer.update())
    )
    print(json.dumps(measured))
    if processes.rank == 0:
        (plan,) = plan_recipes(backbone, [chosen], SOURCE, TARGET, spec=spec, processes=4)
        print(plan.parallel.model_dump_json())
"""


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
def test_four_processes_take_the_memory_that_was_planned(
    together: Together, recipe: str, parallel: str
) -> None:
    first, *others = together(MEASURES, 4, recipe, parallel)
    mine, printed = first.splitlines()
    plan: dict[str, Any] = json.loads(printed)
    assert plan["parallel"] == parallel
    planned = {
        **plan["held"],
        "gathered": plan["gathered_bytes"],
        "peak": plan["tensor_bytes"],
    }
    for line in (mine, *others):
        measured = json.loads(line)
        assert planned == pytest.approx(measured, rel=0.1)
