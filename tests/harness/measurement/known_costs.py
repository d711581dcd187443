"""A third party's compressors that cost what they say, to calibrate the instruments with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from harness import Backbone, Compressor, HarnessError, Options, Register, Stage, hookimpl

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Costs(Options):
    """What every micro-batch costs beside the model itself."""

    seconds: float = 0
    """Slept."""
    mebibytes: int = Field(0, ge=0)
    """Allocated, touched and freed."""


class Costly(Compressor[Costs]):
    """Trains everything, and costs what its options say."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Costs

    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Cost it before every forward pass."""

        def cost(*_: Any) -> None:
            time.sleep(self.options.seconds)
            if self.options.mebibytes:
                torch.ones(self.options.mebibytes * 2**20, dtype=torch.uint8)

        model.register_forward_pre_hook(cost)
        return model


class Refusing(Compressor[Options]):
    """Complains of what only the user can mend."""

    stage: ClassVar[Stage] = Stage.STRUCTURE
    Options = Options

    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Refuse."""
        raise HarnessError("It has no such layers.", "Choose others.")


class Failing(Compressor[Options]):
    """Fails in a way that the first token of the first source chooses."""

    stage: ClassVar[Stage] = Stage.OBJECTIVE
    Options = Options

    def apply(self, model: PreTrainedModel, backbone: Backbone) -> PreTrainedModel:
        """Fail before the forward pass, or not."""

        def fail(module: torch.nn.Module, args: Any, kwargs: dict[str, torch.Tensor]) -> None:
            first = int(kwargs["input_ids"][0, 0])
            if first == 3:
                torch.empty(2**60)
            if first == 4:
                raise MemoryError
            if first == 5:
                raise ValueError("nothing to do with memory")

        model.register_forward_pre_hook(fail, with_kwargs=True)
        return model


@hookimpl
def register_compressors(register: Register) -> None:
    """Register them."""
    register("costly", Costly, "sleeps and allocates")
    register("refusing", Refusing, "complains")
    register("failing", Failing, "fails")
