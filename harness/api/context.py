"""The context of a compressor: a device and a seed, and data and weights on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from harness.api.outputs import Need, undeclared
from harness.errors import HarnessError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import BatchEncoding, PreTrainedModel

MOST_EXAMPLES = 512
"""Largest number of examples that ``calibration`` returns."""


@dataclass
class Context:
    """The context in which compressors are applied to a model.

    Nothing is loaded or read before a compressor asks for it.

    Attributes:
        device: the device that the model will train on; for a skeleton the meta device. Weights
            that were read are on the CPU while compressors are applied.
        dtype: the precision of matrix products in training.
        skeleton: whether the model has shapes and no values, as in ``harness plan``. Its tensors
            cannot be read.
        seed: the run's seed.
        synthetic: whether ``calibration`` returns random tokens in place of the task's examples.
        read_batches: returns batches of a number of examples.
        load_original: returns the backbone's model as the run loads it.
        load_teacher: returns the teacher; None if it is the original model.
        needs: what the compressors of the recipe declare.
    """

    device: torch.device
    dtype: torch.dtype
    skeleton: bool
    seed: int
    synthetic: bool
    read_batches: Callable[[int], list[BatchEncoding]] = field(repr=False)
    load_original: Callable[[], PreTrainedModel] = field(repr=False)
    load_teacher: Callable[[], PreTrainedModel] | None = field(default=None, repr=False)
    needs: frozenset[Need] = frozenset()
    _batches: dict[int, list[BatchEncoding]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def generator(self) -> torch.Generator:
        """A random generator on the CPU, seeded with the run's seed.

        Its numbers are the same for a skeleton and for real weights.
        """
        import torch

        return torch.Generator().manual_seed(self.seed)

    def calibration(self, examples: int = 128) -> list[BatchEncoding]:
        """Return training examples as batches of token ids, a sample that the seed determines.

        They are tokenized and truncated as in training. A batch has the keys ``input_ids``,
        ``attention_mask`` and ``labels``, so that ``model(**batch)`` computes its loss. It is on
        the device that the model is on; ``batch.to(device)`` moves it.

        Args:
            examples: number of examples in all batches together; a smaller training split gives
                as many as it has.

        Raises:
            HarnessError: no compressor of the recipe needs "data", more than ``MOST_EXAMPLES``
                examples are requested, or the data cannot be read.
        """
        if "data" not in self.needs:
            raise undeclared("data")
        if not 0 < examples <= MOST_EXAMPLES:
            raise HarnessError(
                f"A compressor asked for {examples} calibration examples.",
                f"Ask for 1 to {MOST_EXAMPLES}.",
            )
        if examples not in self._batches:
            self._batches[examples] = self.read_batches(examples)
        return self._batches[examples]

    @cached_property
    def _teacher(self) -> PreTrainedModel:
        load = self.load_teacher or self.load_original
        return load().eval().requires_grad_(False)

    def teacher(self) -> PreTrainedModel:
        """Return the frozen teacher, which is in memory once.

        It is the original model, or what ``Compressor.teacher`` names.
        ``Outputs.teacher`` has what it computes for a batch.

        Raises:
            HarnessError: no compressor of the recipe needs a "teacher".
        """
        if "teacher" not in self.needs:
            raise undeclared("teacher")
        return self._teacher

    def original(self) -> dict[str, Tensor]:
        """Load the weights of the backbone before any compressor: qualified name -> tensor.

        They are loaded again at each call, so that they take memory only while you hold them.
        """
        return dict(self.load_original().state_dict())
