"""LoRA (Hu et al. 2022) and its variants by PEFT: low-rank updates of frozen weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from compressors.adapter import Adapter, others
from compressors.injected import inject, merge
from compressors.targets import TargetOptions, modules_of, targets_of
from harness import HarnessError, Options, ParameterGroup, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peft import LoraConfig
    from torch import nn
    from transformers import PreTrainedModel

    from harness import Backbone, Context

    Layers = Mapping[str, nn.Module]


class LoraOptions(Options):
    """Options of ``lora_qv`` and ``lora_ff``; the defaults are the paper's."""

    r: int = Field(16, ge=1)
    """Rank of the update."""
    alpha: float = Field(32, gt=0)
    """Scale of the update: it is multiplied by alpha / r."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout probability of the update's input."""
    bias: bool = True
    """Also train the biases of the adapted layers (BART has biases, T5 has none)."""
    paper_compat: bool = False
    """Count parameters as the paper does: add a bias to adapted layers without one, and reduce T5's
    embedding to the tokenizer's 32,100 entries. Such an adapter cannot be merged into a published
    T5."""


class LoraAtOptions(TargetOptions):
    """Options of ``lora``."""

    r: int = Field(16, ge=1)
    """Rank of the update."""
    alpha: float = Field(32, gt=0)
    """Scale of the update: it is multiplied by alpha / r."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout probability of the update's input."""
    bias: bool = False
    """Also train the biases of the adapted layers (BART has biases, T5 has none)."""
    rslora: bool = False
    """Multiply the update by alpha / the square root of r (Kalajdzievski 2023)."""
    dora: bool = False
    """Train the length of each output's weights by itself (Liu et al. 2024)."""
    init: Literal["random", "pissa", "olora", "eva", "loftq"] = "random"
    """First factors. pissa: the largest singular vectors of the weight; olora: its QR factors;
    eva: the principal directions of the layer's inputs on training examples; loftq: those that
    correct the error of weights in 4 bits, on a GPU. All but random and eva change the frozen
    weights."""
    plus: float = Field(1.0, gt=0)
    """LoRA+ (Hayou et al. 2024): the second factor's learning rate, as a multiple; 16 is theirs."""


class Lora(Adapter):
    """Freezes the model and trains low-rank updates of the modules with given roles."""

    graph_safe: ClassVar[bool] = True
    conflicts: ClassVar[frozenset[str]] = others("lora", "lora_qv", "lora_ff")
    Options: type[Options] = LoraOptions
    roles: ClassVar[tuple[Role, ...]]

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Inject PEFT's layers in place; the adapter has the compressor's name."""
        from peft.tuners.lora import LoraLayer

        targets = self.targets(model, backbone)
        self._require_free(targets)
        config = self.config(targets, context)
        # PEFT activates a new adapter and deactivates all others: earlier adapters are restored
        # below.
        earlier = [
            (module, module.active_adapters, [p for p in module.parameters() if p.requires_grad])
            for module in model.modules()
            if isinstance(module, LoraLayer)
        ]
        inject(model, config, self.name, targets, skeleton=context.skeleton)
        for layer, active, trained in earlier:
            layer.set_adapter(active)
            for parameter in trained:
                parameter.requires_grad_(True)
        for module in targets.values():
            bias = getattr(module, "bias", None)
            if bias is not None and self.options.bias:
                bias.requires_grad_(True)
        return model

    def _require_free(self, targets: Layers) -> None:
        """Raise an error if a layer has an adapter already: merging keeps one for each layer."""
        from peft.tuners.lora import LoraLayer

        layers = [module for module in targets.values() if isinstance(module, LoraLayer)]
        for other in (name for layer in layers for name in layer.active_adapters):
            raise HarnessError(
                f"{self.name} and {other} adapt the same layers.",
                "Choose other layers for one of them, for example lora:targets=attn",
            )

    def targets(self, model: PreTrainedModel, backbone: Backbone) -> Layers:
        """Return qualified name -> layer to adapt, after what ``paper_compat`` changes."""
        import torch
        from torch import nn

        targets = modules_of(model, backbone, self.roles, self.name)
        if self.options.paper_compat:
            backbone.resize_to_tokenizer(model)
            for module in targets.values():
                if isinstance(module, nn.Linear) and module.bias is None:
                    weight = module.weight
                    dtype = weight.dtype if weight.is_floating_point() else torch.float32
                    module.bias = nn.Parameter(
                        torch.zeros(module.out_features, device=weight.device, dtype=dtype)
                    )
        return targets

    def config(self, targets: Layers, context: Context, **more: Any) -> LoraConfig:
        """Return PEFT's configuration with the options."""
        from peft import LoraConfig

        return LoraConfig(
            task_type="SEQ_2_SEQ_LM",
            r=self.options.r,
            lora_alpha=self.options.alpha,
            lora_dropout=self.options.dropout,
            bias="none",  # PEFT's own option allows one adapter only.
            target_modules=list(targets),
            **more,
        )

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Add the updates to the frozen weights and restore the plain layers."""
        return merge(model, self.name)


class LoraQV(Lora):
    """LoRA on queries and values of all self- and cross-attentions."""

    roles = ("self_attn.q", "self_attn.v", "cross_attn.q", "cross_attn.v")


class LoraFF(Lora):
    """LoRA on both projections of all feed-forward layers (Zhu et al. 2023, section 3.2)."""

    roles = ("ffn.in", "ffn.out")


class LoraAt(Lora):
    """LoRA on chosen layers, with the variants that PEFT has."""

    Options: type[Options] = LoraAtOptions

    def __init__(self, name: str, options: LoraAtOptions) -> None:
        super().__init__(name, options)
        if options.init == "eva":
            self.needs = frozenset({"data"})  # type: ignore[misc]

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Inject PEFT's layers in place, and let eva set their first factors."""
        from compressors.eva import principal_directions

        if self.options.init != "eva" or context.skeleton:
            return super().apply(model, backbone, context)
        batches = context.calibration(64)
        layers = self.targets(model, backbone)
        directions = principal_directions(model, layers, batches, self.options.r, self.name)
        model = super().apply(model, backbone, context)
        for name, rows in directions.items():
            layer: Any = model.get_submodule(name)
            layer.lora_A[self.name].weight.data.copy_(rows)
        return model

    def targets(self, model: PreTrainedModel, backbone: Backbone) -> Layers:
        """Return qualified name -> layer to adapt."""
        found = targets_of(model, backbone, self.options.targets, self.name)
        layers: Any = found.values()
        codes = any(not layer.weight.is_floating_point() for layer in layers)
        if codes and (self.options.dora or self.options.init in ("pissa", "olora", "loftq")):
            raise HarnessError(
                f"{self.name}: dora, and init=pissa, olora and loftq, read the weights of a layer, "
                "which are stored in few bits here.",
                "Leave them out, or leave out int8 and nf4.",
            )
        return found

    def config(self, targets: Layers, context: Context, **more: Any) -> LoraConfig:
        """Return PEFT's configuration; a skeleton has the same shapes whatever the first factors.

        Raises:
            HarnessError: loftq without a GPU.
        """
        import torch

        init: Any = self.options.init
        if context.skeleton or init in ("random", "eva"):
            init = True
        elif init == "loftq":
            if not torch.cuda.is_available():
                raise HarnessError(
                    "lora: init=loftq needs a CUDA device.",
                    "Choose other first factors, for example lora:init=pissa",
                )
            from peft import LoftQConfig

            more["loftq_config"] = LoftQConfig(loftq_bits=4)
        chosen = self.options
        return super().config(
            targets,
            context,
            use_rslora=chosen.rslora,
            use_dora=chosen.dora,
            init_lora_weights=init,
            **more,
        )

    def parameter_groups(self, model: PreTrainedModel) -> list[ParameterGroup]:
        """Give the second factors their own learning rate, if ``plus`` asks for one."""
        if self.options.plus == 1:
            return []
        second = [
            parameter
            for name, parameter in model.named_parameters()
            if f".lora_B.{self.name}." in name
        ]
        return [ParameterGroup("B", second, factor=self.options.plus)]
