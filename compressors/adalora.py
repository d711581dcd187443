"""AdaLoRA (Zhang et al. 2023): LoRA whose ranks follow the importance of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from compressors.adapter import Adapter, others
from compressors.injected import inject, merge
from compressors.targets import TargetOptions, targets_of
from harness import Cost

if TYPE_CHECKING:
    from peft import AdaLoraConfig
    from peft.tuners.adalora import RankAllocator
    from torch import Tensor
    from transformers import PreTrainedModel

    from harness import Backbone, Batch, Context, Outputs


class AdaLoraOptions(TargetOptions):
    """Options of ``adalora``."""

    r: int = Field(8, ge=1)
    """Mean rank of the layers in the end."""
    initial: int = Field(12, ge=2)
    """Rank of every layer at first; larger than r."""
    alpha: float = Field(32, gt=0)
    """Scale of the update: it is multiplied by alpha / initial."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the update's input."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the training before ranks are reduced."""
    final: float = Field(0.3, ge=0, lt=1)
    """Share of the training after the last reduction."""
    every: int = Field(10, ge=1)
    """Steps between two reductions."""
    orthogonality: float = Field(0.5, ge=0)
    """Weight of the distance of the factors from orthogonal ones, which is added to the loss."""

    @model_validator(mode="after")
    def _fit(self) -> AdaLoraOptions:
        if self.initial <= self.r:
            raise ValueError(f"initial={self.initial} must be larger than r={self.r}")
        if self.warmup + self.final >= 1:
            raise ValueError("warmup and final leave no steps to reduce ranks")
        return self


class AdaLora(Adapter):
    """Trains updates P D Q, and sets the least important entries of D to zero ever more often.

    PEFT's model does this in its own forward pass and method. Here the same allocator is called by
    the events of the training, so that its state is saved with the training's.
    """

    Options = AdaLoraOptions
    conflicts: ClassVar[frozenset[str]] = others("adalora")

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Replace layers in place; the adapter has the compressor's name."""
        targets = targets_of(model, backbone, self.options.targets, self.name)
        config = self._config(list(targets), total=10)
        inject(model, config, self.name, targets, skeleton=context.skeleton)
        return model

    def _config(self, targets: list[str], total: int) -> AdaLoraConfig:
        from peft import AdaLoraConfig

        chosen = self.options
        first, last = int(chosen.warmup * total), int(chosen.final * total)
        return AdaLoraConfig(
            task_type="SEQ_2_SEQ_LM",
            target_modules=targets,
            target_r=chosen.r,
            init_r=chosen.initial,
            lora_alpha=chosen.alpha,
            lora_dropout=chosen.dropout,
            tinit=first,
            tfinal=last,
            deltaT=chosen.every,
            orth_reg_weight=chosen.orthogonality,
            # PEFT refuses a schedule without steps between both.
            total_step=max(total, first + last + 1),
        )

    def on_train_start(self, model: PreTrainedModel, total_steps: int) -> None:
        """Begin with all ranks, and plan their reduction."""
        from peft.tuners.adalora import RankAllocator

        self._schedule = self._config([], total_steps)
        self._allocator: RankAllocator = RankAllocator(model, self._schedule, self.name)
        self._kept: dict[str, list[bool]] = {}

    def on_step(self, model: PreTrainedModel, step: int) -> None:
        """Update the importance of each direction, and mask those beyond the budget."""
        total, final = self._schedule.total_step, self._schedule.tfinal
        last = (total or 0) - final
        if step < last or (step == last and self._allocator.ipt):
            _, kept = self._allocator.update_and_allocate(model, step, force_mask=step == last)
            self._kept = kept or self._kept
            if step == last:
                self._allocator.reset_ipt()
        elif self._kept:
            self._allocator.mask_using_rank_pattern(model, self._kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the importance of each weight, and the directions that are kept."""
        return {
            "importance": dict(self._allocator.ipt),
            "mean_importance": dict(self._allocator.exp_avg_ipt),
            "uncertainty": dict(self._allocator.exp_avg_unc),
            "kept": self._kept,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._allocator.ipt = dict(state.get("importance", {}))
        self._allocator.exp_avg_ipt = dict(state.get("mean_importance", {}))
        self._allocator.exp_avg_unc = dict(state.get("uncertainty", {}))
        self._kept = dict(state.get("kept", {}))

    def loss(self, model: PreTrainedModel, batch: Batch, outputs: Outputs) -> Tensor | None:
        """Return the mean distance of the factors from orthogonal ones, for each target token."""
        import torch

        if not self.options.orthogonality:
            return None
        distances = []
        for name, factor in model.named_parameters():
            first = f".lora_A.{self.name}" in name
            if first or f".lora_B.{self.name}" in name:
                gram = factor @ factor.T if first else factor.T @ factor
                unit = torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
                distances.append(torch.linalg.matrix_norm(gram - unit))
        distance: Tensor = self.options.orthogonality * torch.stack(distances).mean()
        return distance * batch.target_tokens

    def cost(self, model: PreTrainedModel, source_tokens: int, target_tokens: int) -> Cost:
        """Return the memory of three statistics of each trained weight."""
        trained = (p for n, p in model.named_parameters() if ".lora_" in n and self.name in n)
        return Cost(bytes=3 * sum(parameter.nbytes for parameter in trained))

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Add the updates to the frozen weights and restore the plain layers."""
        return merge(model, self.name)
