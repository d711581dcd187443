"""Model card of an export: what was measured, the check's result, and how to use the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import harness
from harness.records.atomic import write_text
from harness.reporting.wording import count, heading, percent

if TYPE_CHECKING:
    from harness.evaluation.predictions import PredictionRow
    from harness.export.manifest import ExportCheck, Manifest
    from harness.records.inference import Inference, Timing
    from harness.records.report import Report
    from harness.training.trained_run import TrainedRun

FILE = "README.md"
EXAMPLES = "## Examples of the test split"
LIBRARIES = {"merged": "transformers", "adapter": "peft", "ctranslate2": "ctranslate2"}


def write_card(
    folder: Path,
    run: TrainedRun,
    manifest: Manifest,
    usage: str,
    examples: Sequence[PredictionRow],
) -> None:
    """Write the model card.

    Args:
        folder: the exported folder.
        run: the run.
        manifest: the description of the export.
        usage: a few lines of Python that use the model.
        examples: test examples to quote.
    """
    parts = [
        _head(run, manifest),
        f"# {manifest.run}",
        "\n".join(_origin(run, manifest)),
        "## Use",
        f"Replace `FOLDER` by the path of this folder. {_prefix(manifest)}",
        f"```python\n{usage}```",
        "## Measured",
        "\n".join(_measured(run.report)),
        "## Check of this export",
        _check(manifest.check),
        "## Not checked",
        "\n".join(_not_checked(run.report, manifest.check)),
    ]
    if examples:
        parts += [EXAMPLES, *map(_example, examples)]
    write_text(folder / FILE, "\n\n".join(parts) + "\n")


def _head(run: TrainedRun, manifest: Manifest) -> str:
    from huggingface_hub import ModelCardData

    published = run.backbone.published()
    is_hub_id = published is not None and not Path(published).is_dir()
    data = ModelCardData(
        base_model=published if is_hub_id else None,
        license=_license(run),
        library_name=LIBRARIES[manifest.form],
        tags=sorted({"seq2seq", *_recipe_tags(manifest.recipe)}),
    )
    return f"---\n{data.to_yaml().strip()}\n---"


def _license(run: TrainedRun) -> str | None:
    from harness.backbones.model_files import stated_license

    published = run.backbone.published()
    return run.backbone.license() or (stated_license(published) if published else None)


def _recipe_tags(recipe: str) -> set[str]:
    return {part.partition(":")[0].replace("_", "-") for part in recipe.split("+")}


def _origin(run: TrainedRun, manifest: Manifest) -> Iterator[str]:
    report = run.report
    license_name = _license(run) or "not stated; see the original"
    yield "| | |"
    yield "| --- | --- |"
    yield f"| original | {manifest.backbone} ({manifest.backbone_version or 'version not known'}) |"
    yield f"| license of the original | {license_name} |"
    yield f"| recipe | `{manifest.recipe}` |"
    if manifest.layers_kept:
        kept = manifest.layers_kept
        encoder, decoder = _numbers(kept.encoder), _numbers(kept.decoder)
        yield f"| layers kept | encoder {encoder}, decoder {decoder} |"
    if report.parameters:
        yield (
            f"| parameters | {count(report.parameters.total)}, "
            f"of which {count(report.parameters.trainable)} were trained |"
        )
    yield f"| task | {manifest.task} |"
    yield f"| data | SHA-256 of all texts: `{manifest.data_sha256 or 'not known'}` |"
    yield f"| seed | {report.seed} |"
    yield f"| stored as | {manifest.dtype} |"
    if manifest.base:
        yield f"| base | `{manifest.base}`, weights `{manifest.base_sha256}` |"
    yield f"| made by | seq2seq-harness {harness.__version__} |"


def _prefix(manifest: Manifest) -> str:
    if not manifest.prefix:
        return "Sources have no prefix."
    return f"Every source begins with the prefix `{manifest.prefix}`."


def _measured(report: Report) -> Iterator[str]:
    test = f"{report.data.test:,} test examples" if report.data else "the test split"
    yield f"On {test}, with 95 % intervals. Decoding: `{report.decoding}`."
    yield ""
    yield "| | value | 95 % interval |"
    yield "| --- | --- | --- |"
    for metric, value in report.quality.items():
        interval = "not known" if value.ci is None else f"{value.ci[0]:.2f} to {value.ci[1]:.2f}"
        yield f"| {heading(metric)} | {value.value:.2f} | {interval} |"
    if report.speed and report.speed.relative is not None:
        low, high = report.speed.relative_ci or (None, None)
        yield (
            "| training speed relative to full fine-tuning "
            f"| {percent(report.speed.relative)} | {percent(low)} to {percent(high)} |"
        )
    if report.memory and report.memory.relative is not None:
        yield (
            "| training memory relative to full fine-tuning "
            f"| {percent(report.memory.relative)} | one measurement |"
        )
    if report.inference:
        yield from _decoding_rows(report.inference)


def _decoding_rows(inference: Inference) -> Iterator[str]:
    measured: list[tuple[str, Timing]] = [("at batch 1", inference.latency)]
    if inference.throughput is not None:
        measured.append(("in a batch", inference.throughput))
    for where, timing in measured:
        if timing.relative is not None:
            low, high = timing.relative_ci or (None, None)
            yield (
                f"| decoding speed {where} relative to full fine-tuning "
                f"| {percent(timing.relative)} | {percent(low)} to {percent(high)} |"
            )


def _check(check: ExportCheck) -> str:
    loaded = " and ".join(f"{name} {version}" for name, version in check.libraries.items())
    mean = (
        ""
        if check.mean_difference is None
        else f", in the mean {check.mean_difference:.3g} (allowed: {check.mean_limit:.3g})"
    )
    return (
        f"A process with {loaded} alone loaded these files. It was compared, on {check.examples} "
        f"test examples, with {check.reference}. Largest difference of {check.compared}: "
        f"{check.largest_difference:.3g} (allowed: {check.limit:.3g}){mean}. Equal predictions: "
        f"{check.equal_predictions} of {check.examples} (required: {check.least_equal}). Equal to "
        f"the predictions that were scored: {check.equal_to_stored} of {check.examples}."
    )


def _not_checked(report: Report, check: ExportCheck) -> Iterator[str]:
    yield (
        f"- Other examples than those {check.examples}, other devices, and other versions of the "
        "libraries."
    )
    yield "- Texts of another kind than the task's; what the model says about people or facts."
    if report.speed is None or report.speed.relative is None:
        yield "- Training speed and memory relative to full fine-tuning: not measured in this run."
    for metric, reason in report.not_computed.items():
        yield f"- {heading(metric)}: {reason.partition(chr(10))[0]}"


def _example(row: PredictionRow) -> str:
    reference = row.reference if isinstance(row.reference, str) else row.reference[0]
    texts = {
        "Source": row.source or "",
        "Reference": reference,
        "Stored prediction": row.prediction,
    }
    return "\n".join(f"- {name}: {' '.join(text.split())}" for name, text in texts.items())


def _numbers(layers: Sequence[int]) -> str:
    """Return numbers as text, with runs shortened: 1, 2, 3, 5 is ``1-3, 5``."""
    spans: list[list[int]] = []
    for number in layers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return ", ".join("-".join(map(str, span)) for span in spans)
