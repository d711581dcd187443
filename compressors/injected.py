"""Methods of PEFT that replace layers of the model, by one compressor for all of them."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from compressors.adapter import Adapter, others
from compressors.methods import METHODS
from compressors.peft_kinds import KINDS, Kind
from compressors.targets import TargetOptions, norms_of, targets_of
from compressors.without_values import (
    move_adapters_to_meta,
    replace_updates,
    skip_checks,
    zero_weights,
)
from harness import HarnessError

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel

    from harness import Backbone, Context


class Injected(Adapter):
    """Freezes the model and replaces chosen layers by those of a method of PEFT.

    Attributes:
        kind: the method; there is a subclass for each entry of ``KINDS``.
    """

    kind: ClassVar[Kind]

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Replace layers in place; the adapter has the compressor's name."""
        targets = (
            targets_of(model, backbone, self.options.targets, self.name)
            if isinstance(self.options, TargetOptions)
            else norms_of(model)
        )
        if (option := self.kind.divides_inputs) is not None:
            _require_divisor(self.name, option, getattr(self.options, option), targets)
        config = self.config(model, targets, backbone, context)
        inject(
            model,
            config,
            self.name,
            targets,
            skeleton=context.skeleton,
            needs_values=self.kind.needs_values,
        )
        return model

    def config(
        self,
        model: PreTrainedModel,
        targets: Mapping[str, nn.Module],
        backbone: Backbone,
        context: Context,
    ) -> PeftConfig:
        """Return PEFT's configuration with the options."""
        import peft

        names = dict(self.kind.fields)
        given = self.options.model_dump(exclude={"targets"})
        fields = {names.get(option, option): value for option, value in given.items()}
        if self.kind.seed:
            fields[self.kind.seed] = context.seed
        if self.kind.config == "IA3Config":
            last = backbone.modules(model, "ffn.out")
            fields["feedforward_modules"] = [name for name in targets if name in last]
        try:
            config: PeftConfig = getattr(peft, self.kind.config)(
                task_type="SEQ_2_SEQ_LM", target_modules=list(targets), **fields
            )
        except ValueError as error:  # Options that do not fit together.
            raise _refused(self.name, targets, error) from error
        return config

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Add the updates to the frozen weights and restore the plain layers."""
        return merge(model, self.name)


def inject(
    model: PreTrainedModel,
    config: PeftConfig,
    name: str,
    targets: Mapping[str, nn.Module],
    *,
    skeleton: bool,
    needs_values: bool = False,
) -> None:
    """Replace layers of a model in place, and freeze all other weights.

    PEFT's own function refuses methods whose layers share weights, because a caller could lose
    them. Here the layers hold them, so that they are saved and trained like others.

    Args:
        model: the model or skeleton.
        config: PEFT's configuration.
        name: name of the adapter.
        targets: qualified name -> layer.
        skeleton: whether the model has no values.
        needs_values: whether PEFT reads the weights of the layers.

    Raises:
        HarnessError: PEFT refuses the layers, for example because of their sizes.
    """
    import torch
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    assert config.peft_type
    tuner: Any = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    stand_in = skeleton and needs_values
    with ExitStack() as stack:
        if stand_in:
            stack.enter_context(zero_weights(targets))
        stack.enter_context(torch.device("meta" if skeleton and not stand_in else "cpu"))
        stack.enter_context(_without_compiler())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            tuner(model, config, adapter_name=name)
        except (ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
            raise _refused(name, targets, error) from error
        if stand_in:
            move_adapters_to_meta(model)
    replace_updates(model)
    skip_checks(model)


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Keep BOFT from compiling an extension for CUDA, which one factor does not need."""
    from peft.tuners.boft import layer

    module: Any = layer
    before = module._FBD_CUDA
    module._FBD_CUDA = False
    try:
        yield
    finally:
        module._FBD_CUDA = before


def merge(model: PreTrainedModel, name: str) -> PreTrainedModel:
    """Merge an adapter into the weights of its layers, and restore the plain layers.

    Args:
        model: the model with the adapter.
        name: name of the adapter.

    Raises:
        HarnessError: PEFT cannot merge the method's layers.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    from compressors.quantized_linear import QuantizedLinear

    for path, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer) and name in module.active_adapters:
            if isinstance(base := module.get_base_layer(), QuantizedLinear):
                module.base_layer = base.plain()
            try:
                module.merge(adapter_names=[name])
            except (NotImplementedError, ValueError) as error:
                if next(model.parameters()).is_meta:
                    raise  # It may work with values.
                raise HarnessError(
                    f"{name}: PEFT cannot merge {type(module).__module__}: {_first_line(error)}",
                    "The trained weights are in the run's folder: weights.safetensors",
                ) from error
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    return model


def _require_divisor(name: str, option: str, value: int, targets: Mapping[str, nn.Module]) -> None:
    """Raise an error if a number does not divide the inputs of all layers."""
    inputs = sorted({int(module.in_features) for module in targets.values()})  # type: ignore[arg-type]
    if not any(size % value for size in inputs):
        return
    common = math.gcd(*inputs)
    sizes = [str(size) for size in range(2, common + 1) if common % size == 0]
    raise HarnessError(
        f"{name}: {option}={value} does not divide the inputs of the layers: "
        f"{', '.join(map(str, inputs))}.",
        f"Sizes that do: {', '.join(sizes)}. For example {name}:{option}={sizes[-1]}"
        if sizes
        else f"No size divides all of them; choose other layers: {name}:targets=ffn.in",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _refused(name: str, targets: Mapping[str, nn.Module], error: Exception) -> HarnessError:
    sizes = sorted({tuple(module.weight.shape)[::-1] for module in targets.values()})  # type: ignore
    shapes = ", ".join(" x ".join(map(str, size)) for size in sizes)
    return HarnessError(
        f"{name} does not fit these layers: {_first_line(error)}",
        f"Inputs x outputs of the layers are {shapes}. See: harness list compressors {name}",
    )


@functools.cache
def __getattr__(name: str) -> type[Injected]:
    """Return the compressor of an entry of ``KINDS``, so that each is registered by its name."""
    if name not in KINDS:
        raise AttributeError(name)
    kind = KINDS[name]
    attributes = {
        "__module__": __name__,
        "__qualname__": name,
        "__doc__": METHODS[name].summary,
        "Options": kind.options,
        "kind": kind,
        "graph_safe": kind.graph_safe,
        "conflicts": others(name),
    }
    return type(name, (Injected,), attributes)
