"""The events of a training that a compressor may act on; each does nothing by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.api.backbone import Backbone


class TrainingEvents:
    """Methods that are called during training, and the state that they leave."""

    def on_train_start(self, model: PreTrainedModel, total_steps: int) -> None:
        """Prepare a schedule; called before the first step, and again when a run resumes.

        When a run resumes, ``load_state_dict`` follows. A probe of speed or memory is a training of
        its own, which takes the first steps only.

        Args:
            model: the composed model.
            total_steps: optimizer steps that are planned.
        """

    def on_step(self, model: PreTrainedModel, step: int) -> None:
        """Act after an optimizer step; the gradients of the step are still there.

        It may change the values of weights and buffers. Modules and what is trained stay: they
        change in ``make_change``.

        Operations on weights are not recorded for a gradient.

        Args:
            model: the model in training.
            step: optimizer steps done, from 1 to ``total_steps``.
        """

    def change_after(
        self, model: PreTrainedModel, backbone: Backbone, step: int
    ) -> Mapping[str, Any] | None:
        """Return a change of the structure to make after a step, or None.

        It is called after ``on_step``, when the gradients are gone, and only decides.
        ``make_change`` is then called with what it returned.

        Args:
            model: the model in training; it must not change here.
            backbone: finds the model's layers and modules by role.
            step: optimizer steps done.

        Returns:
            All that ``make_change`` needs to know, as JSON can hold it: it is saved with the run.
        """
        return None

    def make_change(
        self, model: PreTrainedModel, backbone: Backbone, change: Mapping[str, Any]
    ) -> None:
        """Change the modules of the model in place, or what is trained.

        The model is as ``apply`` made it, without anything that the engine changes for speed. The
        optimizer, the number of trained parameters and the saved weights follow: a parameter that
        stays keeps its state in the optimizer, and a new one begins without.

        The method is called again, with the same changes in the same order and without
        ``change_after``, whenever the model is built anew: when a run resumes, and when its model
        is exported. It must come to the same modules, whatever the values of the weights are.

        Args:
            model: the model.
            backbone: finds the model's layers and modules by role.
            change: what ``change_after`` returned.
        """

    def on_evaluate(self, model: PreTrainedModel, step: int, scores: Mapping[str, float]) -> None:
        """Act after the eval split was scored.

        Args:
            model: the model in training.
            step: optimizer steps done.
            scores: metric name -> value.
        """

    def state_dict(self) -> Mapping[str, Any]:
        """Return what ``on_step`` and ``on_evaluate`` have changed in this compressor.

        It is saved in the training state, so that a run that was killed goes on identically.
        Trained weights, the model's buffers and changes of the structure are saved already. Keys
        are text without a slash; values are tensors, anything that JSON can hold, or such mappings.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; tensors are on the model's device."""
