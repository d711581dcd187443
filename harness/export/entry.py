"""An export from Python: ``harness.export_run``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import HarnessError
from harness.export.forms import FORM_OF_OPTION, ExportForm, Written, find_form
from harness.export.manifest import FILE, ExportCheck, Form, Manifest
from harness.export.request import Dtype, ExportRequest
from harness.export.workspace import Workspace
from harness.records.atomic import write_text
from harness.records.run_choice import choose_run
from harness.training.trained_run import TrainedRun, open_run


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    form: Form = "merged",
    dtype: Dtype = "float32",
    base: str | Path | None = None,
    rebuild: bool = False,
    quantization: str | None = None,
    seed: int | str | None = None,
    overwrite: bool = False,
    examples_in_card: bool = False,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the trained model of a run for other programs, and prove that it is that model.

    A fresh process, which cannot import the harness, loads the result with stock libraries. Its
    logits and its predictions are compared with those of the run. Nothing is written if they
    differ.

    Args:
        run: the folder of a run, or a folder with runs of one recipe and several seeds.
        out: the folder to write.
        form: ``merged`` (a plain model of transformers), ``adapter`` (for PEFT) or ``ctranslate2``.
        dtype: data type of the stored weights: ``float32``, ``bfloat16`` or ``float16``.
        base: folder for the base of an adapter, which several adapters of that structure share; by
            default the folder ``base`` in ``out``.
        rebuild: write a script that makes the base of an adapter from the original, instead of the
            base itself.
        quantization: type of the weights of a model of CTranslate2, for example ``int8``.
        seed: the seed of the run; ``best`` is the one with the best value on the eval split.
        overwrite: replace an earlier export in ``out``.
        examples_in_card: quote examples of the test split in the model card.
        on_progress: is called with a few words at the beginning of each phase.

    Returns:
        The folder. Its file ``harness.json`` holds the result of the check.

    Raises:
        HarnessError: there is no such run, its model does not fit the form, the folder exists, or
            the check failed.

    Example:
        >>> harness.export_run("results", "my-model", seed="best")
    """
    request = ExportRequest(
        out=Path(out).expanduser().absolute(),
        form=form,
        dtype=dtype,
        base=None if base is None else Path(base).expanduser().absolute(),
        rebuild=rebuild,
        quantization=quantization,
        overwrite=overwrite,
        examples_in_card=examples_in_card,
    )
    writer = find_form(form)
    _require_own_options(request)
    trained = open_run(choose_run(Path(run).expanduser(), seed))
    _require_safe(trained, dtype)
    writer.validate(trained, request)
    with Workspace(request.out, overwrite=overwrite) as workspace:
        _fill(trained, writer, workspace, request, on_progress)
        workspace.commit()
    return request.out


def _fill(
    run: TrainedRun,
    writer: ExportForm,
    workspace: Workspace,
    request: ExportRequest,
    on_progress: Callable[[str], None],
) -> None:
    from harness.export.card import write_card
    from harness.export.reference import compute_reference

    on_progress("Loading the trained model")
    model = run.load()
    on_progress("Predicting with the model of the run")
    reference = compute_reference(run, model, greedy=writer.needs_greedy)
    on_progress("Writing")
    written = writer.write(run, model, workspace, request)
    del model
    on_progress("Checking in a process of stock libraries")
    check = writer.check(reference, workspace, request)
    manifest = _describe(run, request.form, written, check)
    usage = writer.usage(manifest, request)
    examples = reference.rows[:3] if request.examples_in_card else ()
    write_card(workspace.folder, run, manifest, usage, examples)
    write_text(workspace.folder / FILE, manifest.model_dump_json(indent=2) + "\n")


def _require_own_options(request: ExportRequest) -> None:
    """Raise an error if an option belongs to another form."""
    for option, form in FORM_OF_OPTION.items():
        if getattr(request, option) and form != request.form:
            raise HarnessError(
                f"--{option} belongs to --{form}.", f"Leave it out, or export with --{form}"
            )


def _require_safe(run: TrainedRun, dtype: str) -> None:
    if dtype != "float32" and dtype not in run.backbone.safe_dtypes:
        safe = ", ".join(sorted(run.backbone.safe_dtypes))
        raise HarnessError(
            f"{run.report.backbone} is not known to be free of overflow in {dtype}.",
            f"Choose another --dtype: {safe}",
        )


def _describe(run: TrainedRun, form: Form, written: Written, check: ExportCheck) -> Manifest:
    report = run.report
    return Manifest(
        form=form,
        run=report.id,
        backbone=report.backbone,
        backbone_version=report.backbone_version,
        recipe=report.recipe,
        task=report.task,
        data_sha256=report.data.sha256 if report.data else None,
        prefix=run.prefix,
        max_source_length=run.max_source_length,
        decoding=run.spec.test.of_search(),
        dtype=written.dtype,
        layers_kept=report.layers_kept,
        base=written.base,
        base_sha256=written.base_sha256,
        weights_sha256=written.weights_sha256,
        check=check,
    )


def size_of(folder: Path) -> dict[str, int]:
    """Return the files of an export, relative to its folder, with their sizes in bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
