"""Layers compiled by torch.compile: once for all layers of a stack that are alike.

A layer is a small graph that repeats, and compiling it takes seconds where a whole model takes
minutes. Its kernels serve all layers and all lengths: weights are inputs of the compiled code, and
the numbers of tokens are left open. Layers that hold hooks are not compiled, such as the first of a
T5 stack, which makes the position bias for all.

The compiler keeps its kernels in a folder, from which the next process takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from harness.api.backbone import STACKS, Backbone
from harness.errors import first_line, is_out_of_memory
from harness.training.engines.rows import Packed

BACKEND = "inductor"


class CompiledLayers:
    """The layers of a model whose forward pass in training is compiled code.

    Nothing is compiled before ``active`` is set: a model may be traced by shapes alone.

    Args:
        obstacle: the reason why no layer is compiled; None if there is none.

    Attributes:
        active: whether layers call their compiled code.
        everywhere: whether they also do outside of training, with gradients.
        obstacle: see above; failures become one.
        seconds: seconds that were spent on compiling ahead.
    """

    def __init__(self, obstacle: str | None = None) -> None:
        self.active = False
        self.everywhere = False
        self.obstacle = obstacle
        self.seconds = 0.0

    @property
    def in_use(self) -> bool:
        """True if layers are compiled."""
        return self.active and self.obstacle is None

    def give_up(self, reason: str) -> None:
        """Compute all layers without a compiler from now on."""
        self.obstacle = reason

    def patch(self, model: nn.Module, backbone: Backbone) -> ExitStack:
        """Give layers a forward pass that is compiled when it is first taken in training.

        Args:
            model: the model, whose other patches are made.
            backbone: finds its layers.

        Returns:
            The context that undoes the changes.
        """
        undo = ExitStack()
        for stack in STACKS if self.obstacle is None else ():
            for layer in backbone.layers(model, stack):
                if "forward" not in vars(layer) and not _has_hooks(layer):
                    layer.forward = self._compiled(layer)
                    undo.callback(delattr, layer, "forward")
        return undo

    @contextmanager
    def outside_of_training(self) -> Iterator[None]:
        """Use compiled code in the context wherever there are gradients."""
        self.everywhere = True
        try:
            yield
        finally:
            self.everywhere = False

    def _compiled(self, layer: nn.Module) -> Callable[..., Any]:
        from torch._functorch import config as graph_settings
        from torch.fx.experimental import _config as shape_settings

        plain = layer.forward
        # All of a layer or nothing: parts would be compiled for each of its functions.
        fast = torch.compile(plain, dynamic=True, fullgraph=True, backend=BACKEND)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._applies(layer, kwargs):
                return plain(*args, **kwargs)
            try:
                with (
                    # Sizes that are equal by chance in the first batch differ in others.
                    shape_settings.patch(use_duck_shape=False),  # type: ignore[attr-defined]
                    # Two masks for one input would be drawn once.
                    graph_settings.patch(cse=False),
                ):
                    return fast(*args, **{**kwargs, "packed": kwargs["packed"].traced})
            except Exception as error:  # Compilers raise errors of any type.
                if is_out_of_memory(error):
                    raise
                self.give_up(f"{type(error).__name__}: {first_line(error)}")
                return plain(*args, **kwargs)

        return forward

    def _applies(self, layer: nn.Module, kwargs: Mapping[str, Any]) -> bool:
        return (
            self.in_use
            and (layer.training or self.everywhere)
            and torch.is_grad_enabled()
            and isinstance(kwargs.get("packed"), Packed)
        )


def graphs_compiled() -> int:
    """Return the number of graphs that this process has compiled so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _has_hooks(layer: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks for m in layer.modules())
