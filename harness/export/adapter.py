"""An adapter export: files of PEFT, and the base that they belong to."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.export.base_recipe import SCRIPT, write_recipe
from harness.export.check import check_torch, start_stock_process
from harness.export.forms import ExportForm, Written, tokenize_lines
from harness.export.peft_adapter import MERGED, PeftAdapter, find_adapter, strip
from harness.export.rebuild_base import weights_hash
from harness.export.stock_model import (
    generation_settings,
    merged_skeleton,
    require_stock,
    save_model,
    stock_skeleton,
)
from harness.model.composition import compose

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.export.manifest import ExportCheck, Manifest
    from harness.export.reference import Reference
    from harness.export.request import ExportRequest
    from harness.export.workspace import Workspace
    from harness.training.trained_run import TrainedRun

BASE = "base"


class Adapter(ExportForm):
    """A folder that ``PeftModel.from_pretrained`` loads on its base."""

    def __init__(self) -> None:
        self._base: Path | str = BASE

    def validate(self, run: TrainedRun, request: ExportRequest) -> None:
        """Look at a model without weights: what it trains, and its structure without that."""
        if request.base is not None and request.rebuild:
            raise HarnessError("--rebuild writes no base.", "Leave out --base or --rebuild")
        if request.base is not None and request.base.is_relative_to(request.out):
            raise HarnessError(
                f"The base {str(request.base)!r} lies in the folder of the adapter.",
                "Leave out --base, or name a folder that adapters can share.",
            )
        try:
            adapter = find_adapter(_skeleton(run), run.recipe)
        except HarnessError as error:
            raise HarnessError(error.message, _instead(run)) from error
        _plain(_skeleton(_of_base(run, adapter)), run.report.recipe)

    def write(
        self,
        run: TrainedRun,
        model: PreTrainedModel,
        workspace: Workspace,
        request: ExportRequest,
    ) -> Written:
        """Write the adapter, and its base or a reference to it."""
        adapter = find_adapter(model, run.recipe)
        search = generation_settings(model.generation_config, run.spec.test)
        base = _plain(_of_base(run, adapter).untrained(), run.report.recipe)
        name, sha256 = self._place_base(run, base, workspace, request)
        # Its weights may have been written in another type.
        adapter.save(base.float(), workspace.folder, name)
        search.save_pretrained(workspace.folder)
        return Written("float32", weights_hash(workspace.folder), name, sha256)

    def check(
        self, reference: Reference, workspace: Workspace, request: ExportRequest
    ) -> ExportCheck:
        """Load the adapter on its base, by PEFT and by transformers, and compare."""
        with self._present_base(workspace, request) as base:
            return check_torch(reference, workspace.folder, base, request.dtype)

    def usage(self, manifest: Manifest, request: ExportRequest) -> str:
        """Return a few lines of Python that use PEFT and transformers alone."""
        original = manifest.base_sha256 is None
        base = manifest.base if original else f"FOLDER/{manifest.base}"
        return "\n".join(
            [
                *([f"# Once: python FOLDER/{SCRIPT}"] if request.rebuild and not original else []),
                "from peft import PeftModel",
                "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig",
                "",
                f"base = {json.dumps(base)}",
                "tokenizer = AutoTokenizer.from_pretrained(base)",
                "model = AutoModelForSeq2SeqLM.from_pretrained(base)",
                'model = PeftModel.from_pretrained(model, "FOLDER").eval()',
                'search = GenerationConfig.from_pretrained("FOLDER")',
                *tokenize_lines(manifest),
                "outputs = model.generate(**inputs, generation_config=search)",
                "print(tokenizer.batch_decode(outputs, skip_special_tokens=True))",
                "",
            ]
        )

    def _place_base(
        self,
        run: TrainedRun,
        base: PreTrainedModel,
        workspace: Workspace,
        request: ExportRequest,
    ) -> tuple[str, str | None]:
        """Write the base, or find it; return its name for PEFT, and the hash of its weights."""
        if request.base is None and request.dtype == "float32" and _is_original(run, base):
            published = str(run.backbone.published())
            is_folder = Path(published).is_dir()
            self._base = str(Path(published).absolute()) if is_folder else published
            return self._base, None
        folder = workspace.folder / BASE if request.base is None else workspace.add(request.base)
        save_model(base, str(folder), request.dtype)
        run.tokenizer.save_pretrained(folder)
        self._base, sha256 = folder, weights_hash(folder)
        if request.base is None:
            if request.rebuild:
                write_recipe(run, folder, workspace.folder, request.dtype)
                _remove(folder)
            return BASE, sha256
        if request.base.exists() and any(request.base.iterdir()):
            _require_same(folder, request.base)
            workspace.discard(folder)
            self._base = request.base
        return os.path.relpath(request.base, request.out), sha256

    @contextlib.contextmanager
    def _present_base(self, workspace: Workspace, request: ExportRequest) -> Iterator[Path | str]:
        """Yield the base; one that is only described is made by the script for a while."""
        script = workspace.folder / SCRIPT
        if not script.is_file():
            yield self._base
            return
        with tempfile.TemporaryDirectory(dir=workspace.out.parent, prefix=".base.") as place:
            start_stock_process(script, "--out", f"{place}/{BASE}")
            yield Path(place) / BASE


def _skeleton(run: TrainedRun) -> PreTrainedModel:
    return compose(run.backbone.skeleton(), run.backbone, run.recipe)


def _of_base(run: TrainedRun, adapter: PeftAdapter) -> TrainedRun:
    """Return the run with the recipe of the adapter's base."""
    return replace(run, recipe=adapter.base_recipe(run.recipe))


def _instead(run: TrainedRun) -> str | None:
    """Return what works for a recipe that has no adapter for PEFT."""
    try:
        merged_skeleton(run)
    except HarnessError as error:
        return error.hint
    return MERGED


def _plain(model: PreTrainedModel, recipe: str) -> PreTrainedModel:
    """Return a composed model without its adapters, which is one of transformers."""
    plain = strip(model, set(stock_skeleton(model).state_dict()))
    require_stock(plain, f"The base of the recipe {recipe}", MERGED)
    return plain


def _is_original(run: TrainedRun, base: PreTrainedModel) -> bool:
    """Return whether the base is the published model, weight by weight."""
    if run.backbone.published() is None or run.spec.weights != "pretrained":
        return False
    weights, shapes = base.state_dict(), run.backbone.skeleton().state_dict()
    if {n: t.shape for n, t in weights.items()} != {n: t.shape for n, t in shapes.items()}:
        return False
    original = run.original().state_dict()
    return all(tensor.equal(original[name]) for name, tensor in weights.items())


def _require_same(new: Path, existing: Path) -> None:
    """Check that a folder holds the base that would be written there."""

    def config(folder: Path) -> dict[str, object]:
        values = json.loads((folder / "config.json").read_text("utf-8"))
        return {name: value for name, value in values.items() if name != "transformers_version"}

    try:
        same = weights_hash(new) == weights_hash(existing) and config(new) == config(existing)
    except (OSError, ValueError, KeyError):  # Not a folder of a model, or a damaged one.
        same = False
    if not same:
        raise HarnessError(
            f"{str(existing)!r} holds something else than the base of this run.",
            "Name a folder of its own for each structure: --base FOLDER",
        )


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
