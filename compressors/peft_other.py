"""Any other method of PEFT that replaces layers, by its own name and options."""

from __future__ import annotations

import dataclasses
import difflib
import json
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict

from compressors.adapter import Adapter, others
from compressors.injected import inject, merge
from compressors.targets import TargetOptions, targets_of
from harness import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness import Backbone, Context


class PeftOptions(TargetOptions):
    """Options of ``peft``, and every field of the method's configuration in PEFT."""

    model_config = ConfigDict(extra="allow")

    type: str
    """Method, as PEFT calls it: lily, unilora, tinylora, psoft, ... Any field of its configuration
    is an option as well: peft:type=lily,r=8."""


class OtherPeft(Adapter):
    """Freezes the model and replaces chosen layers by those of a method that PEFT has."""

    Options = PeftOptions
    conflicts: ClassVar[frozenset[str]] = others("peft")

    def apply(
        self, model: PreTrainedModel, backbone: Backbone, context: Context
    ) -> PreTrainedModel:
        """Replace layers in place; the adapter has the compressor's name.

        Raises:
            HarnessError: PEFT has no such method or field, or the method is of another kind.
        """
        targets = targets_of(model, backbone, self.options.targets, self.name)
        config = self._config_class()
        fields = self._fields(config)
        inject(
            model,
            config(task_type="SEQ_2_SEQ_LM", target_modules=list(targets), **fields),
            self.name,
            targets,
            skeleton=context.skeleton,
            # Which of them read weights is not known.
            needs_values=True,
        )
        return model

    def _config_class(self) -> Any:
        """Return the class of the method's configuration in PEFT."""
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

        classes = {
            kind.value.lower(): PEFT_TYPE_TO_CONFIG_MAPPING[kind]
            for kind in PEFT_TYPE_TO_TUNER_MAPPING
            if kind in PEFT_TYPE_TO_CONFIG_MAPPING
        }
        fitting = {
            name: config
            for name, config in classes.items()
            if "target_modules" in {field.name for field in dataclasses.fields(config)}
        }
        name = self.options.type.lower()
        if name not in fitting:
            raise HarnessError(
                f"peft: PEFT has no method {self.options.type!r} that replaces layers.",
                f"{_near(name, fitting)}Known: {', '.join(sorted(fitting))}.",
            )
        return fitting[name]

    def _fields(self, config: Any) -> dict[str, Any]:
        """Return the given fields of the configuration with the types of their defaults."""
        known = {field.name: field for field in dataclasses.fields(config)}
        values = {}
        for name, value in (self.options.model_extra or {}).items():
            if name not in known:
                raise HarnessError(
                    f"peft: {config.__name__} has no field {name!r}.",
                    f"{_near(name, known)}Known: {', '.join(sorted(known))}.",
                )
            values[name] = _typed(value)
        return values

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Add the updates to the frozen weights and restore the plain layers."""
        return merge(model, self.name)


def _typed(value: Any) -> Any:
    """Return a number, a truth value or null that a text stands for, or the text."""
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value


def _near(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, known, n=2)
    return f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
