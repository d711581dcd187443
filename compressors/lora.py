"""LoRA (Hu et al. 2022) by PEFT: low-rank updates of frozen weights."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness import Compressor, Options, Role, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness import Backbone, Context


class LoraOptions(Options):
    """Options of the LoRA compressors; the defaults are the paper's."""

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


class Lora(Compressor[LoraOptions]):
    """Freezes the model and trains low-rank updates of the modules with given roles."""

    stage: ClassVar[Stage] = Stage.ADAPTER
    graph_safe: ClassVar[bool] = True
    Options = LoraOptions
    roles: ClassVar[tuple[Role, ...]]

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Inject PEFT's layers in place; the adapter has the compressor's name."""
        import torch
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
        from torch import nn

        targets = {
            name: module
            for role in self.roles
            for name, module in backbone.modules(model, role).items()
        }
        if self.options.paper_compat:
            backbone.resize_to_tokenizer(model)
            for module in targets.values():
                if isinstance(module, nn.Linear) and module.bias is None:
                    weight = module.weight
                    module.bias = nn.Parameter(
                        torch.zeros(module.out_features, device=weight.device, dtype=weight.dtype)
                    )
        config = LoraConfig(
            task_type="SEQ_2_SEQ_LM",
            r=self.options.r,
            lora_alpha=self.options.alpha,
            lora_dropout=self.options.dropout,
            bias="none",  # PEFT's own option allows one adapter only.
            target_modules=list(targets),
        )
        # PEFT activates a new adapter and deactivates all others: earlier adapters are restored
        # below.
        earlier = [
            (module, module.active_adapters, [p for p in module.parameters() if p.requires_grad])
            for module in model.modules()
            if isinstance(module, LoraLayer)
        ]
        with torch.device("meta" if context.skeleton else "cpu"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            inject_adapter_in_model(config, model, adapter_name=self.name)
        for layer, active, trained in earlier:
            layer.set_adapter(active)
            for parameter in trained:
                parameter.requires_grad_(True)
        for module in targets.values():
            bias = getattr(module, "bias", None)
            if bias is not None and self.options.bias:
                bias.requires_grad_(True)
        return model

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Add the updates to the frozen weights and restore the plain layers."""
        from peft.tuners.lora import LoraLayer

        for name, module in list(model.named_modules()):
            if isinstance(module, LoraLayer) and self.name in module.lora_A:
                module.merge(adapter_names=[self.name])
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, module.get_base_layer())
        return model


class LoraQV(Lora):
    """LoRA on queries and values of all self- and cross-attentions."""

    roles = ("self_attn.q", "self_attn.v", "cross_attn.q", "cross_attn.v")


class LoraFF(Lora):
    """LoRA on both projections of all feed-forward layers (Zhu et al. 2023, section 3.2)."""

    roles = ("ffn.in", "ffn.out")
