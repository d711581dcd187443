"""The groups of parameters that compressors name, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from harness.api.compressor import Compressor
from harness.api.parameter_group import ParameterGroup
from harness.errors import HarnessError


def own_groups(
    compressors: Iterable[Compressor[Any]],
    model: PreTrainedModel,
    trained: Mapping[str, nn.Parameter],
) -> list[ParameterGroup]:
    """Return the groups of all compressors that hold parameters, named ``COMPRESSOR.GROUP``.

    Args:
        compressors: the compressors of the recipe.
        model: the composed model.
        trained: qualified name -> trained parameter.

    Raises:
        HarnessError: a group holds a parameter that is not trained, or that is in another group.
    """
    names = {id(parameter): name for name, parameter in trained.items()}
    owner: dict[int, str] = {}
    groups = []
    for compressor in compressors:
        for group in compressor.parameter_groups(model):
            full = f"{compressor.name}.{group.name}"
            for parameter in group.parameters:
                if id(parameter) not in names:
                    raise HarnessError(
                        f"The parameter group {full!r} holds a parameter that is not trained.",
                        "This is a mistake in the compressor: a group may hold only parameters "
                        "with requires_grad.",
                    )
                if (other := owner.setdefault(id(parameter), full)) != full:
                    raise HarnessError(
                        f"The parameter groups {other!r} and {full!r} both hold "
                        f"{names[id(parameter)]!r}.",
                        "Leave one of the compressors out of the recipe.",
                    )
            if group.parameters:
                groups.append(replace(group, name=full))
    return groups
