"""Shards of a model: each process holds a part of every weight, and gathers a layer to compute it.

torch's FSDP2 does the work. A unit is what is gathered at once: one for each Transformer layer, and
one for the rest (embeddings, LM head, last norms). A layer's unit is gathered before its forward
pass and freed after it, and again for its backward pass, where its gradients are summed over the
processes and divided among them. The unit of the rest stays gathered from the beginning of the
forward pass to the end of the backward pass, since embeddings and head may be one matrix.

In bfloat16 a layer is gathered in bfloat16, which halves what is sent and needs no rounded copies
of weights; its norms and biases are then rounded too. The rest is gathered in float32, and with it
the residual stream begins in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.api.backbone import STACKS
from harness.training.objective import LossSum
from harness.training.processes import Processes
from harness.training.resolved_run import ResolvedRun

GRAPH_OBSTACLE = "each layer's weights are gathered from the other processes"
"""Reason why the steps of a sharded training are not CUDA graphs."""

NOTES = (
    "Each of the {size} processes held a share of every weight, of its gradient and of the "
    "optimizer's state (FSDP2), and gathered one layer at a time.",
    "Steps were not CUDA graphs, since gathering a layer waits for the other processes; weights "
    "were rounded layer by layer, and query, key and value were products of their own, since "
    "weights of other layers are not there. The engine was not compared with padded batches.",
)
"""Notes of a report on a sharded training; ``size`` is the number of processes."""

_SMALL = 0.1
"""Share of the weights up to which whole gradients are kept over the micro-batches of a step."""


@dataclass
class Shards:
    """The shards that this process holds of a model.

    Attributes:
        root: the module that computes the loss; FSDP gathers and frees weights around its passes.
        model: the model within it, whose parameters are shards.
        whole: the same modules with parameters of no elements, see ``without_data``.
        device: the device that computes.
        adds_up: whether gradients stay whole until the last micro-batch of a step, which saves
            exchanges and costs memory. They are small beside the weights then.
    """

    root: Any
    model: PreTrainedModel
    whole: PreTrainedModel
    device: torch.device
    adds_up: bool

    @contextmanager
    def without_exchange(self, _: nn.Module) -> Iterator[None]:
        """Add up whole gradients in the context instead of exchanging them, if they are small."""
        if not self.adds_up:
            yield
            return
        self.root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.root.set_requires_gradient_sync(True)

    @contextmanager
    def gathered(self, dtype: torch.dtype) -> Iterator[PreTrainedModel]:
        """Yield the whole model for predictions; every process must do so.

        Weights of products are in ``dtype``, so that the whole model takes as little memory as
        decoding can do with. The shards do not change.
        """
        low = _product_weights(self.whole)
        try:
            yield self.gather(dict.fromkeys(low, dtype))
        finally:
            for parameter in self.whole.parameters():
                parameter.data = torch.empty(0, device=self.device)

    @torch.no_grad()
    def gather(self, dtypes: dict[str, torch.dtype]) -> PreTrainedModel:
        """Return the whole model; every process must call this.

        Args:
            dtypes: name of a parameter -> its dtype; the others are in float32.
        """
        shards = dict(self.model.named_parameters())
        for name, parameter in self.whole.named_parameters():
            dtype = dtypes.get(name, torch.float32)
            parameter.data = full_tensor(shards[name]).to(self.device, dtype)
        return self.whole


def full_tensor(value: Tensor) -> Tensor:
    """Return a tensor of which each process may hold a shard; every process must call this."""
    from torch.distributed.tensor import DTensor

    if not isinstance(value, DTensor):
        return value
    full: Tensor = value.full_tensor()
    return full


def without_data(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Return a copy of a model, on a device, whose parameters have no elements.

    Tied weights stay tied.
    """
    empty: dict[int, Any] = {
        id(parameter): nn.Parameter(torch.empty(0, device=device), parameter.requires_grad)
        for parameter in model.parameters()
    }
    copied: PreTrainedModel = copy.deepcopy(model, empty)
    return copied.to(device)


def round_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Store the frozen weights of linear modules in ``dtype``, except embeddings, for good.

    It is what ``frozen_weights_in`` does for one process, before the weights are divided.
    """
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for module in model.modules():
        if type(module) is not nn.Linear:
            continue
        for weight in module.parameters():
            if not weight.requires_grad and id(weight) not in embeddings:
                weight.data = weight.data.to(dtype)


def prepare_shards(
    model: PreTrainedModel, run: ResolvedRun, processes: Processes
) -> PreTrainedModel:
    """Make a composed model on the CPU ready to be divided, and return its whole form without data.

    Every process must call this, before an engine changes the model.
    """
    processes.copy_from_main(p for p in model.parameters() if p.requires_grad)
    whole = without_data(model, run.device)
    round_frozen(model, run.dtype)
    return whole


def shard(root: LossSum, whole: PreTrainedModel, run: ResolvedRun, processes: Processes) -> Shards:
    """Divide the parameters of a model among the processes; every process must call this.

    Args:
        root: computes the loss of the model, which is on the CPU and equal in all processes;
            changed in place. Layers go to the device one by one, so that it never holds all.
        whole: see ``prepare_shards``.
        run: the settings, the device and the precision.
        processes: the processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

    model, adds_up = root.model, keeps_whole_gradients(root.model)
    common: dict[str, Any] = {"mesh": init_device_mesh(run.device.type, (processes.size,))}
    if run.spec.train.cpu_offload:
        common["offload_policy"] = CPUOffloadPolicy(pin_memory=run.device.type == "cuda")
    plain = MixedPrecisionPolicy(cast_forward_inputs=False)
    low = replace(plain, param_dtype=run.dtype, reduce_dtype=torch.float32)
    policy = plain if run.dtype == torch.float32 else low
    for layer in [x for stack in STACKS for x in run.backbone.layers(model, stack)]:
        fully_shard(layer, mp_policy=policy, reshard_after_forward=True, **common)
    fully_shard(root, mp_policy=plain, reshard_after_forward=False, **common)
    device = next(whole.parameters()).device
    return Shards(root, model, whole, device, adds_up)


def keeps_whole_gradients(model: nn.Module) -> bool:
    """Return whether a step's gradients stay whole until its last micro-batch; see ``Shards``."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained <= _SMALL * total


def _product_weights(model: PreTrainedModel) -> list[str]:
    """Return the names of the weights that decoding stores in low precision.

    Adapters are merged in float32 first, and the layer of logits stays in float32.
    """
    head = model.get_output_embeddings()
    adapters = {
        id(module)
        for layer in model.modules()
        if isinstance(layer, BaseTunerLayer)
        for module in layer.modules()
    }
    plain = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head and id(module) not in adapters
    }
    return [name for name, parameter in model.named_parameters() if id(parameter) in plain]
