"""T5's feed-forward without casting its hidden states to the precision of the last weight.

The module of transformers casts the input of its last product to that weight's precision. Under
autocast the product casts it back, so that a trained (float32) weight costs two copies of the
widest tensor of the layer, and two more of its gradient. The values are the same to the bit.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import MethodType

import torch
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5DenseActDense, T5DenseGatedActDense


def _forward(self: T5DenseActDense | T5DenseGatedActDense, hidden_states: Tensor) -> Tensor:
    if not torch.is_autocast_enabled(hidden_states.device.type):
        plain: Tensor = type(self).forward(self, hidden_states)
        return plain
    if isinstance(self, T5DenseGatedActDense):
        hidden_states = self.act(self.wi_0(hidden_states)) * self.wi_1(hidden_states)
    else:
        hidden_states = self.act(self.wi(hidden_states))
    result: Tensor = self.wo(self.dropout(hidden_states))
    return result


def patch_t5_feed_forwards(model: nn.Module) -> ExitStack:
    """Give T5's feed-forwards the forward pass of this module, until the context is closed."""
    undo = ExitStack()
    for module in model.modules():
        if type(module) in (T5DenseActDense, T5DenseGatedActDense):
            module.forward = MethodType(_forward, module)
            undo.callback(delattr, module, "forward")
    return undo
