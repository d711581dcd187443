"""Healing: what dropped layers did is folded into the weights of the layers that stay."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from compressors.calibrated import (
    Place,
    decode,
    encode,
    evaluating,
    left_out,
    reading,
    real_tokens,
)
from compressors.least_squares import Fit
from compressors.targets import norms_of
from harness import STACKS, Role, Stack

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedModel

    from harness import Backbone

Healing = Literal["scale", "linear"]
_OUTPUTS: tuple[Role, ...] = ("self_attn.out", "cross_attn.out", "ffn.out")


@dataclass(frozen=True)
class Gap:
    """Consecutive layers of a stack that are dropped, counted from 0.

    Attributes:
        first: the first of them.
        last: the last of them.
    """

    first: int
    last: int


def gaps(depth: int, kept: Sequence[int]) -> list[Gap]:
    """Return the gaps that a list of kept layers (1-indexed) leaves, from the input on."""
    edges = [0, *kept, depth + 1]
    return [Gap(a, b - 2) for a, b in itertools.pairwise(edges) if b - a > 1]


def heal(
    how: Healing,
    model: PreTrainedModel,
    backbone: Backbone,
    batches: Sequence[BatchEncoding],
    kept: Mapping[Stack, Sequence[int]],
) -> None:
    """Change the weights of the layers that stay, before the others are dropped.

    Gaps are healed from the input on. The targets are states of the original model, the inputs
    those of the model as it is healed so far, so that a later fit also mends what earlier ones
    left.

    Args:
        how: ``scale`` multiplies the states at a gap by one number; ``linear`` adds a linear map
            of the hidden neurons of the feed-forward layer before the gap. Both are fitted by
            least squares.
        model: the model with all of its layers.
        backbone: finds the layers.
        batches: calibration examples.
        kept: the layers that stay, 1-indexed.
    """
    original = copy.deepcopy(model)
    with evaluating(model), evaluating(original), ExitStack() as without:
        for stack in STACKS:
            for number, layer in enumerate(backbone.layers(model, stack), start=1):
                if number not in kept[stack]:
                    without.enter_context(left_out(layer))
        for stack in STACKS:
            pair = _Pair(original, model, backbone, stack, batches)
            scale, found = 1.0, gaps(len(pair.healed), kept[stack])
            if found:
                pair.read_targets(how, found)
            for gap in found:
                if how == "linear":
                    _add_linear_map(pair, gap)
                else:
                    scale = _scale(pair, gap, scale)


class _Pair:
    """A stack of the original model, and of the model that is healed."""

    def __init__(
        self,
        original: PreTrainedModel,
        healed: PreTrainedModel,
        backbone: Backbone,
        stack: Stack,
        batches: Sequence[BatchEncoding],
    ) -> None:
        self.models, self.stack, self.batches = (original, healed), stack, batches
        self.original = list(backbone.layers(original, stack))
        self.healed = list(backbone.layers(healed, stack))
        self._outputs = {id(m) for r in _OUTPUTS for m in backbone.modules(healed, r).values()}
        self._ffn = {id(m) for m in backbone.modules(healed, "ffn.out").values()}
        # The encoder is healed before the decoder, and does not change any more.
        decoder = stack == "decoder"
        self._encoded = [encode(m, batches) if decoder else None for m in self.models]
        self.norms_last = self._norms_last()
        self.targets: dict[Gap, list[Tensor]] = {}

    def outputs(self, layer: Any) -> list[Any]:
        """Return the linear modules of a healed layer whose results are added to its states."""
        return [module for module in layer.modules() if id(module) in self._outputs]

    def feed_forward(self, layer: Any) -> Any:
        """Return the last linear module of a healed layer's feed-forward layer."""
        return next(module for module in layer.modules() if id(module) in self._ffn)

    def read_targets(self, how: Healing, found: Sequence[Gap]) -> None:
        """Compute the original states after each gap, in one pass."""
        lost = [self.original[gap.last] for gap in found]
        linear = how == "linear"
        places: list[Place] = [self.before_norm(m) if linear else (m, "output") for m in lost]
        batches = list(self.states(places, healed=False))
        self.targets = {gap: [batch[i] for batch in batches] for i, gap in enumerate(found)}

    def states(
        self, places: Sequence[Place], *, healed: bool = True
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield, for each batch, what enters or leaves modules, without padding."""
        for number, batch in enumerate(self.batches):
            real = real_tokens(batch)[self.stack]
            yield tuple(states[real] for states in self._read(number, places, healed=healed))

    def _read(self, number: int, places: Sequence[Place], *, healed: bool) -> list[Tensor]:
        """Return what enters or leaves modules in a batch of the examples."""
        model, encoded = self.models[healed], self._encoded[healed]
        batch = self.batches[number]
        with reading(places) as found:
            if encoded is None:
                encode(model, [batch])
            else:
                decode(model, batch, encoded[number])
        return [found[place] for place in range(len(places))]

    def before_norm(self, layer: Any) -> Place:
        """Return the place of a layer's last sum: its output, or what enters its last norm."""
        return (last_norm(layer), "input") if self.norms_last else (layer, "output")

    def _norms_last(self) -> bool:
        """Return whether a layer returns what its last norm computes, as in BART."""
        import torch

        layer = self.original[-1]
        places: list[Place] = [(last_norm(layer), "output"), (layer, "output")]
        a, b = self._read(0, places, healed=False)
        return torch.equal(a, b)


def last_norm(layer: Any) -> Any:
    """Return the last norm of a layer."""
    return list(norms_of(layer).values())[-1]


def _add_linear_map(pair: _Pair, gap: Gap) -> None:
    """Fit the feed-forward layer before a gap to the states after it; add the map to its weight."""
    if gap.first == 0:
        return  # There is no layer before it.
    layer, lost = pair.healed[gap.first - 1], pair.original[gap.last]
    linear = pair.feed_forward(layer)
    fit = Fit(intercept=linear.bias is not None)
    places: list[Place] = [(linear, "input"), pair.before_norm(layer)]
    for target, (neurons, states) in zip(pair.targets[gap], pair.states(places), strict=True):
        fit.add(neurons.double(), (target - states).double())
    solution = fit.solve()
    if solution is None:
        return
    linear.weight.add_(solution[: linear.in_features].T.to(linear.weight.dtype))
    if linear.bias is not None:
        linear.bias.add_(solution[-1].to(linear.bias.dtype))
    if pair.norms_last:
        # The fit was to what enters the norm of the last layer that is dropped.
        last_norm(layer).load_state_dict(last_norm(lost).state_dict())


def _scale(pair: _Pair, gap: Gap, scale: float) -> float:
    """Multiply the states at a gap by the number that fits best, and return it.

    Where layers begin with a norm, the states themselves need not change: the norms take out a
    common factor, so that what later layers add is divided by it.

    Args:
        pair: the stack.
        gap: the layers that are dropped.
        scale: the factor of the states so far.
    """
    products, squares = 0.0, 0.0
    places: list[Place] = [(pair.healed[gap.first], "input")]
    for target, (states,) in zip(pair.targets[gap], pair.states(places), strict=True):
        products += float((target.double() * states).sum())
        squares += float(states.double().square().sum())
    factor = products / squares
    if factor <= 0:
        return scale
    if not pair.norms_last:
        for layer in pair.healed[gap.last + 1 :]:
            for linear in pair.outputs(layer):
                for parameter in linear.parameters():
                    parameter.mul_(scale / factor)
        return factor
    if gap.first > 0:
        for parameter in last_norm(pair.healed[gap.first - 1]).parameters():
            parameter.mul_(factor)
    return scale
