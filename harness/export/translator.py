"""An export for CTranslate2, an inference engine without Python's overhead."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import GenerationConfig

from harness.data.hashing import file_hash
from harness.errors import HarnessError
from harness.evaluation.ctranslate import (
    convert,
    require_ctranslate2,
    require_settings,
    search_arguments,
)
from harness.export.check import compare_log_probabilities, start_stock_process
from harness.export.forms import ExportForm, Written, tokenize_lines
from harness.export.stock_model import (
    generation_settings,
    merge,
    merged_skeleton,
    require_mergeable,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.export.manifest import ExportCheck, Manifest
    from harness.export.reference import Reference
    from harness.export.request import ExportRequest
    from harness.export.workspace import Workspace
    from harness.training.trained_run import TrainedRun

PROGRAM = Path(__file__).with_name("stock_translator.py")
"""Program of the process that loads the export."""


class Limits(NamedTuple):
    """Limits of the check of one quantization.

    Attributes:
        token: largest difference of the log-probability of one target token, in nats.
        mean: largest mean difference, in nats.
        least_equal: least share of greedy predictions equal to those of the run's model.
    """

    token: float
    mean: float
    least_equal: float


_EXACT = Limits(0.01, 0.001, 0.8)
_HALF = Limits(1.0, 0.05, 0.5)
_EIGHT_BITS = Limits(2.0, 0.15, 0.3)
LIMITS = {
    "float32": _EXACT,
    "int16": _HALF,
    "float16": _HALF,
    "bfloat16": _HALF,
    "int8": _EIGHT_BITS,
    "int8_float32": _EIGHT_BITS,
    "int8_float16": _EIGHT_BITS,
    "int8_bfloat16": _EIGHT_BITS,
}
"""Quantization -> limits. In float32 the numbers are the same up to rounding. The other types round
weights, which decides near ties otherwise, and one other token changes the rest of a prediction.
Greedy predictions are compared, since CTranslate2's beam search ends earlier than transformers'."""


class CTranslate2(ExportForm):
    """A folder that ``ctranslate2.Translator`` loads, with the files of the tokenizer."""

    needs_greedy = True

    def validate(self, run: TrainedRun, request: ExportRequest) -> None:
        """Check the quantization, the search and the structure of the merged model."""
        require_ctranslate2()
        if request.dtype != "float32":
            raise HarnessError(
                "The weights of a model of CTranslate2 have the type of its quantization.",
                f"--quantization {request.dtype}",
            )
        if request.quantization is not None and request.quantization not in LIMITS:
            raise HarnessError(
                f"CTranslate2 has no quantization {request.quantization!r}.",
                f"Choose one of: {', '.join(LIMITS)}",
            )
        require_settings(run.spec.test)
        require_mergeable(merged_skeleton(run), run.report.recipe)

    def write(
        self,
        run: TrainedRun,
        model: PreTrainedModel,
        workspace: Workspace,
        request: ExportRequest,
    ) -> Written:
        """Merge and convert the model; add the tokenizer and the settings of the search."""
        model = merge(run, model)
        require_mergeable(model, run.report.recipe)
        quantization = request.quantization or "float32"
        with tempfile.TemporaryDirectory(dir=workspace.folder) as place:
            converted = Path(place) / "converted"
            convert(model, run.tokenizer, converted, quantization)
            for file in converted.iterdir():
                file.rename(workspace.folder / file.name)
        run.tokenizer.save_pretrained(workspace.folder)
        search = generation_settings(model.generation_config, run.spec.test)
        search.save_pretrained(workspace.folder)
        self._forced_end = search.forced_eos_token_id is not None
        return Written(quantization, file_hash(workspace.folder / "model.bin"))

    def check(
        self, reference: Reference, workspace: Workspace, request: ExportRequest
    ) -> ExportCheck:
        """Compare the log-probabilities of target tokens, and predictions."""
        limits = LIMITS[request.quantization or "float32"]
        result = _run_translator(reference, workspace.folder)
        return compare_log_probabilities(
            reference,
            [torch.tensor(values) for values in result["log_probabilities"]],
            result["predictions"],
            result["libraries"],
            greedy=result["greedy"],
            token_limit=limits.token,
            mean_limit=limits.mean,
            least_equal=limits.least_equal,
        )

    def usage(self, manifest: Manifest, request: ExportRequest) -> str:
        """Return a few lines of Python that use CTranslate2 and the tokenizer alone."""
        arguments = ", ".join(
            f"{name}={value!r}"
            for name, value in search_arguments(manifest.decoding, self._forced_end).items()
        )
        return "\n".join(
            [
                "import ctranslate2",
                "from transformers import AutoTokenizer, GenerationConfig",
                "",
                'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
                'translator = ctranslate2.Translator("FOLDER")',
                *tokenize_lines(manifest, tensors=False),
                "tokens = [tokenizer.convert_ids_to_tokens(ids) for ids in inputs.input_ids]",
                'first = GenerationConfig.from_pretrained("FOLDER").forced_bos_token_id',
                "prefix = first and [tokenizer.convert_ids_to_tokens([first])] * len(tokens)",
                f"search = dict({arguments})",
                "results = translator.translate_batch(tokens, target_prefix=prefix, **search)",
                "for result in results:",
                "    ids = tokenizer.convert_tokens_to_ids(result.hypotheses[0])",
                "    print(tokenizer.decode(ids, skip_special_tokens=True))",
                "",
            ]
        )


def _run_translator(reference: Reference, folder: Path) -> dict[str, Any]:
    """Load the export in a process without the harness, and return what it computes."""
    run = reference.run
    search = GenerationConfig.from_pretrained(str(folder))
    with tempfile.TemporaryDirectory(prefix="export-check-") as place:
        request = {
            "folder": str(folder),
            "prefix": run.prefix,
            "max_source_length": run.max_source_length,
            "sources": reference.source_texts,
            "targets": [list(target) for target in reference.targets],
            "search": search_arguments(run.spec.test, search.forced_eos_token_id is not None),
            "batch_size": run.spec.test.batch_size,
            "threads": torch.get_num_threads(),
            "result": str(Path(place) / "result.json"),
        }
        (Path(place) / "request.json").write_text(json.dumps(request), "utf-8")
        start_stock_process(PROGRAM, str(Path(place) / "request.json"))
        result: dict[str, Any] = json.loads((Path(place) / "result.json").read_text("utf-8"))
    if result["sources"] != [*map(list, reference.sources)]:
        raise HarnessError(
            "The exported tokenizer makes other tokens than the one of the run, so that nothing "
            "was written.",
            "Restore the tokenizer that the run started from.",
        )
    return result
