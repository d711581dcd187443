"""Forms of an export, and what each of them implements."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from harness.errors import HarnessError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.export.manifest import ExportCheck, Manifest
    from harness.export.reference import Reference
    from harness.export.request import ExportRequest
    from harness.export.workspace import Workspace
    from harness.training.trained_run import TrainedRun


class Written(NamedTuple):
    """Description of what a form wrote, for the manifest.

    Attributes:
        dtype: data type of the weights, or their quantization.
        weights_sha256: hash of the weights.
        base: base of an adapter, relative to the adapter, or the original's name; else None.
        base_sha256: hash of the weights of that base; None if that is the original.
    """

    dtype: str
    weights_sha256: str
    base: str | None = None
    base_sha256: str | None = None


class ExportForm(ABC):
    """A form of an export. An object serves one export; its methods are called in this order.

    Attributes:
        needs_greedy: whether ``check`` needs the greedy predictions of the reference.
    """

    needs_greedy: ClassVar[bool] = False

    @abstractmethod
    def validate(self, run: TrainedRun, request: ExportRequest) -> None:
        """Check, before any weights are loaded, that this form can hold the model.

        Raises:
            HarnessError: it cannot, or an option does not belong to this form.
        """

    @abstractmethod
    def write(
        self,
        run: TrainedRun,
        model: PreTrainedModel,
        workspace: Workspace,
        request: ExportRequest,
    ) -> Written:
        """Write the model into ``workspace.folder``.

        Args:
            run: the run.
            model: its trained model in float32, with its adapters; it is not used afterwards.
            workspace: the folders to write.
            request: the options.
        """

    @abstractmethod
    def check(
        self, reference: Reference, workspace: Workspace, request: ExportRequest
    ) -> ExportCheck:
        """Load the written model in a process of stock libraries, and compare.

        Raises:
            HarnessError: it differs from the model of the run by more than is allowed.
        """

    @abstractmethod
    def usage(self, manifest: Manifest, request: ExportRequest) -> str:
        """Return a few lines of Python that use the model without the harness."""


FORMS = {
    "merged": "harness.export.merged:Merged",
    "adapter": "harness.export.adapter:Adapter",
    "ctranslate2": "harness.export.translator:CTranslate2",
}
"""Name of a form -> module and class; a module is imported when its form is used."""


FORM_OF_OPTION = {"base": "adapter", "rebuild": "adapter", "quantization": "ctranslate2"}
"""Option of an export -> the only form that has it."""


def find_form(name: str) -> ExportForm:
    """Return a form by its name.

    Raises:
        HarnessError: there is no such form.
    """
    if name not in FORMS:
        raise HarnessError(f"There is no form of export {name!r}.", did_you_mean(name, FORMS))
    module, _, attribute = FORMS[name].partition(":")
    form: ExportForm = getattr(importlib.import_module(module), attribute)()
    return form


def tokenize_lines(manifest: Manifest, *, tensors: bool = True) -> list[str]:
    """Return lines of Python that turn a text into ``inputs``, with the prefix and the limit.

    Args:
        manifest: names the prefix and the limit.
        tensors: whether the inputs are padded tensors, or else lists of ids.
    """
    prefix = json.dumps(manifest.prefix, ensure_ascii=False)
    return [
        'texts = ["Your text."]',
        *([f"texts = [{prefix} + text for text in texts]"] if manifest.prefix else []),
        f"cut = dict(truncation=True, max_length={manifest.max_source_length})",
        'inputs = tokenizer(texts, padding=True, return_tensors="pt", **cut)'
        if tensors
        else "inputs = tokenizer(texts, **cut)",
    ]
