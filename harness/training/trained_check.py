"""A check that a training updates the parameters that its report counts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.optim import Optimizer

from harness.errors import HarnessError


def check_trained(optimizer: Optimizer, trained: Mapping[str, nn.Parameter]) -> None:
    """Check that an optimizer holds exactly the trained parameters, and all have a gradient.

    Call it between the backward pass and the update.

    Args:
        optimizer: updates the parameters.
        trained: qualified name -> trained parameter.

    Raises:
        HarnessError: they differ; the reported number of trained parameters would be wrong.
    """
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    untrained = [name for name, p in trained.items() if id(p) not in optimized or p.grad is None]
    if untrained or len(optimized) != len(trained):
        raise HarnessError(
            f"{len(untrained)} parameters should be trained but get no gradient or are not in "
            f"the optimizer, the first of them {untrained[:1]}.",
            "This is a mistake in a compressor of the recipe: it must set requires_grad on "
            "exactly the parameters that the loss depends on.",
        )
