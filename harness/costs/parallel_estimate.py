"""Estimate of the memory and the exchanges of several processes that train together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from harness.api.backbone import STACKS
from harness.costs.fit import HEADROOM
from harness.costs.memory_estimate import track_step_of_shapes
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.records.measurements import MemoryParts
from harness.records.profile import HeldBytes, ParallelEstimate
from harness.training.parallel.obstacle import sharding_obstacle
from harness.training.parallel.sharding import keeps_whole_gradients
from harness.training.processes import Processes
from harness.training.resolved_run import ResolvedRun
from harness.training.schedule import Step

_MOST = 1024
"""Largest number of devices that is tried."""
_MOMENTS = 2
"""Tensors of AdamW's state for each trained weight."""
_FLOAT32 = 4


@dataclass(frozen=True)
class _Weight:
    """A weight as it is stored and gathered.

    Attributes:
        shape: its shape.
        stored: bytes of an element in the shards.
        gathered: bytes of an element when it is gathered.
        trained: whether it is trained.
    """

    shape: torch.Size
    stored: int
    gathered: int
    trained: bool

    def shard(self, processes: int) -> int:
        """Number of elements that a process holds, with those that fill the last shard up."""
        return -(-self.shape[0] // processes) * prod(self.shape[1:])


class _Unit:
    """Weights that are gathered at once."""

    def __init__(self, weights: Sequence[_Weight]) -> None:
        self.weights = weights
        self.gathered = sum(w.shape.numel() * w.gathered for w in weights)
        self.trained = sum(w.shape.numel() for w in weights if w.trained)

    def stored(self, processes: int) -> int:
        """Bytes of the weights in a process."""
        return sum(w.shard(processes) * w.stored for w in self.weights)

    def trained_shard(self, processes: int) -> int:
        """Trained elements in a process."""
        return sum(w.shard(processes) for w in self.weights if w.trained)


@dataclass(frozen=True)
class _Division:
    """A model that can be divided among processes.

    Attributes:
        layers: the units of the layers.
        rest: the unit of all other weights.
        keeps: whether whole gradients are kept over the micro-batches of a step.
    """

    layers: list[_Unit]
    rest: _Unit
    keeps: bool

    @classmethod
    def of(cls, model: PreTrainedModel, run: ResolvedRun) -> _Division:
        layers = [x for stack in STACKS for x in run.backbone.layers(model, stack)]
        inside = {id(p) for layer in layers for p in layer.parameters()}
        embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        rounded = {
            id(p)
            for m in model.modules()
            if type(m) is nn.Linear
            for p in m.parameters()
            if not p.requires_grad and id(p) not in embeddings
        }
        low = run.dtype.itemsize

        def weight(parameter: nn.Parameter) -> _Weight:
            stored = low if id(parameter) in rounded else parameter.element_size()
            gathered = low if id(parameter) in inside else stored
            return _Weight(parameter.shape, stored, gathered, parameter.requires_grad)

        rest = [p for p in model.parameters() if id(p) not in inside]
        return cls(
            [_Unit([weight(p) for p in layer.parameters()]) for layer in layers],
            _Unit([weight(p) for p in rest]),
            keeps_whole_gradients(model),
        )

    @property
    def units(self) -> list[_Unit]:
        return [*self.layers, self.rest]

    @property
    def trained(self) -> int:
        """Number of trained elements."""
        return sum(unit.trained for unit in self.units)

    @property
    def gathered(self) -> int:
        """Bytes that are gathered at once, at most.

        The rest is there, and a layer arrives while another one, or at first the rest, is still
        there as it arrived.
        """
        layer = max(layer.gathered for layer in self.layers)
        return self.rest.gathered + max(self.rest.gathered, layer) + layer

    def sent(self, processes: int, micro_batches: int) -> int:
        """Bytes that a process sends in a step, if exchanges go around a ring."""
        weights = self.rest.gathered + 2 * sum(layer.gathered for layer in self.layers)
        reductions = 1 if self.keeps else micro_batches
        total = micro_batches * weights + reductions * self.trained * _FLOAT32
        return total * (processes - 1) // processes

    def held(self, processes: int) -> HeldBytes:
        """Bytes of the weights in a process, of their gradients and of the optimizer's state."""
        trained = sum(unit.trained_shard(processes) for unit in self.units)
        return HeldBytes(
            weights=sum(unit.stored(processes) for unit in self.units),
            gradients=_FLOAT32 * trained,
            optimizer=_MOMENTS * _FLOAT32 * trained,
        )

    def parts(self, processes: int, micro_batches: int, held: dict[str, int]) -> MemoryParts:
        """Bytes of a process at its peak.

        Two moments compete: the first layers of the backward pass, when most activations are held,
        and its end, when all gradients are.

        Args:
            processes: number of processes.
            micro_batches: number of micro-batches in a step.
            held: bytes of activations, logits and the like at their peak, in a process.
        """
        shards = sum(unit.stored(processes) for unit in self.units)
        moments = _MOMENTS * _FLOAT32 * sum(u.trained_shard(processes) for u in self.units)
        shares = _FLOAT32 * sum(u.trained_shard(processes) for u in self.units)
        head, layer = self.rest.trained, max(unit.trained for unit in self.layers)
        whole = _FLOAT32 * self.trained if self.keeps and micro_batches > 1 else 0
        begin = {
            **held,
            "weights": shards + self.gathered,
            "gradients": whole + _FLOAT32 * (head + 2 * layer),
            "optimizer": moments,
        }
        end = {
            **dict.fromkeys(held, 0),
            "weights": shards,
            "gradients": shares + whole + _FLOAT32 * 2 * head,
            "optimizer": moments,
        }
        return MemoryParts(**max(begin, end, key=lambda parts: sum(parts.values())))


def estimate_parallel(
    run: ResolvedRun, longest: Step, processes: int, device_bytes: int
) -> ParallelEstimate:
    """Compute the memory of each of several processes, and how many devices training needs.

    Args:
        run: the settings, the backbone and the recipe.
        longest: the step with the longest batch.
        processes: number of processes.
        device_bytes: memory of a device. ``HEADROOM`` of it stays free.
    """
    model = _skeleton(run)
    obstacle = sharding_obstacle(model, run.backbone, run.recipe, run.spec.train)
    division, room = _Division.of(model, run), device_bytes - HEADROOM
    share = Processes(0, processes).share(longest)
    _, tracker = track_step_of_shapes(run, model, share)
    # The buckets of DDP hold all gradients, at any time.
    gradients = _FLOAT32 * division.trained
    whole = MemoryParts(**{**tracker.peak(("gradients",)), "gradients": gradients})
    held = tracker.peak(leaving_out=("weights", "gradients", "optimizer"))
    if run.dtype != torch.float32:
        # One process keeps rounded copies of its trained weights; gathered ones are rounded.
        copies = run.dtype.itemsize * sum(layer.trained for layer in division.layers)
        held["activations"] = max(held["activations"] - copies, 0)
    rounds = len(share.micro_batches)
    divided = division.parts(processes, rounds, held)
    parallel, why = _choice(run, obstacle, whole.total, room)
    exchanged = 2 * _FLOAT32 * division.trained * (processes - 1) // processes
    parts = divided if parallel == "fsdp" else whole
    return ParallelEstimate(
        processes=processes,
        parallel=parallel,
        why=why,
        tensor_bytes=parts.total,
        parts=parts,
        held=division.held(processes if parallel == "fsdp" else 1),
        gathered_bytes=division.gathered if parallel == "fsdp" else 0,
        sent_bytes=division.sent(processes, rounds) if parallel == "fsdp" else exchanged,
        device_bytes=device_bytes,
        devices_needed=_needed(division, longest, share, whole, held, room, obstacle),
    )


def _choice(
    run: ResolvedRun, obstacle: str | None, needed: int, room: int
) -> tuple[Literal["ddp", "fsdp"], str]:
    """Return how processes share the model, and why.

    Args:
        run: its settings may ask for one of both.
        obstacle: the reason why the model cannot be divided, or None.
        needed: bytes of a process with the whole model.
        room: bytes of a device.
    """
    asked = run.spec.train.parallel
    fits = needed <= room
    if obstacle is not None and (asked == "fsdp" or not fits):
        return "ddp", f"the model cannot be divided: {obstacle}"
    if asked != "auto":
        return asked, f"the settings say {asked}"
    if fits:
        return "ddp", "a device can hold the model and its training"
    return "fsdp", f"a process with the whole model needs {needed / 1e9:.0f} GB"


def _skeleton(run: ResolvedRun) -> PreTrainedModel:
    context = skeleton_context(run.backbone, run.spec.seed)
    return compose(run.backbone.skeleton(), run.backbone, run.recipe, context)


def _needed(
    division: _Division,
    longest: Step,
    share: Step,
    whole: MemoryParts,
    held: dict[str, int],
    room: int,
    obstacle: str | None,
) -> int | None:
    """Return the smallest number of devices; activations count in proportion to the tokens."""

    def part_of(step: Step) -> float:
        longest_batch = max(
            sum(len(e.source) + len(e.target) for e in batch) for batch in step.micro_batches
        )
        counted = max(
            sum(len(e.source) + len(e.target) for e in batch) for batch in share.micro_batches
        )
        return longest_batch / counted

    alone = whole.total + int(sum(held.values()) * (part_of(longest) - 1))
    if alone <= room:
        return 1
    for devices in range(2, _MOST + 1):
        own = Processes(0, devices).share(longest)
        scaled = {part: int(count * part_of(own)) for part, count in held.items()}
        if obstacle is None:
            peak = division.parts(devices, len(own.micro_batches), scaled).total
        else:
            peak = whole.total + sum(scaled.values()) - sum(held.values())
        if peak <= room:
            return devices
    return None
