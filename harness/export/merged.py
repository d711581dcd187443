"""A merged export: a plain model of transformers, with its tokenizer and its search."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.export.check import check_torch
from harness.export.forms import ExportForm, Written, tokenize_lines
from harness.export.rebuild_base import weights_hash
from harness.export.stock_model import (
    generation_settings,
    merge,
    merged_skeleton,
    require_mergeable,
    save_model,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.export.manifest import ExportCheck, Manifest
    from harness.export.reference import Reference
    from harness.export.request import ExportRequest
    from harness.export.workspace import Workspace
    from harness.training.trained_run import TrainedRun


class Merged(ExportForm):
    """A folder that ``from_pretrained`` loads."""

    def validate(self, run: TrainedRun, request: ExportRequest) -> None:
        """Merge a model without weights, and compare its structure with transformers' own."""
        require_mergeable(merged_skeleton(run), run.report.recipe)

    def write(
        self,
        run: TrainedRun,
        model: PreTrainedModel,
        workspace: Workspace,
        request: ExportRequest,
    ) -> Written:
        """Write configuration, weights, tokenizer and settings of the search."""
        model = merge(run, model)
        require_mergeable(model, run.report.recipe)
        model.generation_config = generation_settings(model.generation_config, run.spec.test)
        save_model(model, str(workspace.folder), request.dtype)
        run.tokenizer.save_pretrained(workspace.folder)
        return Written(request.dtype, weights_hash(workspace.folder))

    def check(
        self, reference: Reference, workspace: Workspace, request: ExportRequest
    ) -> ExportCheck:
        """Compare logits and predictions."""
        return check_torch(reference, workspace.folder, None, request.dtype)

    def usage(self, manifest: Manifest, request: ExportRequest) -> str:
        """Return a few lines of Python that use transformers alone."""
        return "\n".join(
            [
                "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer",
                "",
                'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
                'model = AutoModelForSeq2SeqLM.from_pretrained("FOLDER").eval()',
                *tokenize_lines(manifest),
                "outputs = model.generate(**inputs)",
                "print(tokenizer.batch_decode(outputs, skip_special_tokens=True))",
                "",
            ]
        )
