"""Loading of text models: from a run, an export, a hub id or a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from peft.tuners.tuners_utils import BaseTunerLayer

from harness.api.plugins import installed
from harness.errors import HarnessError
from harness.export.manifest import Manifest, read_manifest
from harness.export.stock_model import generation_settings
from harness.generation.adapters import add_adapter
from harness.generation.converted_model import convert_text_model, open_converted
from harness.generation.text_model import TextModel, TorchTextModel, Usage
from harness.records.run_choice import choose_run
from harness.records.run_folder import REPORT
from harness.spec.decoding import DecodingSettings
from harness.training.resolved_run import choose_device, choose_dtype
from harness.training.trained_run import open_run

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

    from harness.api.backbone import Backbone
    from harness.api.compressor import Compressor


Decoder = Literal["harness", "ctranslate2"]
"""Implementations of the search."""


class LoadedModel(NamedTuple):
    """A model and its tokenizer, ready for ``model.generate``.

    Attributes:
        model: the model, without adapters, in evaluation mode; its generation settings are those
            that were measured.
        tokenizer: its tokenizer.
        prefix: text that belongs before every source.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prefix: str


class _Parts(NamedTuple):
    """Parts of a text model."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    usage: Usage
    backbone: Backbone
    precision: str
    compressors: tuple[Compressor[Any], ...] = ()


def load_text_model(
    reference: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    adapters: Mapping[str, Path] | None = None,
    settings: Mapping[str, Any] | None = None,
    prefix: str | None = None,
    max_source_length: int | None = None,
    decoder: Decoder = "harness",
) -> TextModel:
    """Load a model that predicts texts.

    Args:
        reference: the folder of a run or of an export, a folder written by ``save_pretrained``, a
            hub id or a registered backbone.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: precision of matrix products: ``auto``, ``float32`` or ``bfloat16``. auto is that
            of the run's predictions; for other models see ``choose_dtype``.
        adapters: name -> folder of an adapter for PEFT, to switch between.
        settings: settings of the search that replace those of the model.
        prefix: text before every source; by default the model's own.
        max_source_length: longest source in tokens; by default the model's own.
        decoder: ``harness``, or ``ctranslate2``, which converts the model first. An export for
            CTranslate2 has no other decoder.

    Raises:
        HarnessError: there is no such model, it lacks files, or CTranslate2 cannot convert it.
    """

    def adjusted(usage: Usage) -> Usage:
        return usage._replace(
            settings=DecodingSettings.model_validate(
                {**usage.settings.model_dump(), **(settings or {})}
            ),
            prefix=usage.prefix if prefix is None else prefix,
            max_source_length=max_source_length or usage.max_source_length,
        )

    chosen_device = choose_device(device)
    manifest = read_manifest(Path(reference).expanduser())
    converted = manifest is not None and manifest.form == "ctranslate2"
    if adapters and (converted or decoder == "ctranslate2"):
        raise HarnessError(
            "CTranslate2 has no adapters to switch between.",
            "Leave out --adapter, or use --decoder harness and a model of transformers.",
        )
    if manifest is not None and converted:
        folder = Path(reference).expanduser()
        return open_converted(folder, adjusted(usage_of(manifest)), chosen_device.type)
    parts = _read(reference)
    usage = adjusted(parts.usage)
    if decoder == "ctranslate2":
        return convert_text_model(_merged(parts, reference), parts.tokenizer, usage, chosen_device)
    requested = parts.precision if precision == "auto" else precision
    dtype = choose_dtype(requested, chosen_device, parts.backbone)
    model = parts.model
    for name, folder in (adapters or {}).items():
        add_adapter(model, name, folder)
    return TorchTextModel(
        model.eval().to(chosen_device),
        parts.tokenizer,
        usage,
        dtype=dtype,
        shared_beams=parts.backbone.shared_beams and all(c.shares_beams for c in parts.compressors),
        adapters=tuple(adapters or ()),
    )


def load_merged(reference: str) -> LoadedModel:
    """Load a model without adapters, ready for transformers' ``generate``.

    Args:
        reference: as in ``load_text_model``.

    Raises:
        HarnessError: there is no such model, it lacks files, or its adapters cannot be merged.
    """
    parts = _read(reference)
    model, usage = _merged(parts, reference), parts.usage
    model.generation_config = generation_settings(model.generation_config, usage.settings)
    parts.tokenizer.model_max_length = usage.max_source_length
    return LoadedModel(model.eval(), parts.tokenizer, usage.prefix)


def _merged(parts: _Parts, reference: str) -> PreTrainedModel:
    """Return the model with its adapters merged."""
    model = parts.model
    for compressor in reversed(parts.compressors):
        model = compressor.merge(model)
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise HarnessError(
            f"The adapters of {reference!r} cannot be merged into its weights.",
            "Predict with them: harness.generate(MODEL, TEXTS)",
        )
    return model


def usage_of(manifest: Manifest) -> Usage:
    """Return the use of an exported model."""
    return Usage(manifest.run, manifest.prefix, manifest.max_source_length, manifest.decoding)


def _read(reference: str) -> _Parts:
    folder = Path(reference).expanduser()
    if (folder / REPORT).is_file() or _holds_runs(folder):
        return _read_run(folder)
    manifest = read_manifest(folder)
    if manifest is not None and manifest.form == "ctranslate2":
        raise HarnessError(
            f"{reference!r} is a model of CTranslate2, which has no model of transformers.",
            "Export the run merged: harness export RUN --out FOLDER",
        )
    return _read_published(reference, manifest)


def _holds_runs(folder: Path) -> bool:
    """Return whether a folder holds runs directly below it and no model."""
    if not folder.is_dir() or (folder / "config.json").exists():
        return False
    return any((child / REPORT).is_file() for child in folder.iterdir() if child.is_dir())


def _read_run(place: Path) -> _Parts:
    run = open_run(choose_run(place))
    usage = Usage(run.report.id, run.prefix, run.max_source_length, run.spec.test.of_search())
    decoding = run.report.decoding or ""
    precision = next((p for p in ("float32", "bfloat16") if f"|{p}|" in decoding), "auto")
    compressors = tuple(run.recipe.compressors)
    return _Parts(run.load(), run.tokenizer, usage, run.backbone, precision, compressors)


def _read_published(reference: str, manifest: Manifest | None) -> _Parts:
    """Read a model that other programs can read too."""
    backbone = installed().backbone(reference)
    model = backbone.load("pretrained")
    tokenizer = backbone.tokenizer()
    if manifest is not None:
        usage = usage_of(manifest)
    else:
        settings = settings_of(model.generation_config)
        longest = backbone.longest_sequence() or min(tokenizer.model_max_length, 512)
        usage = Usage(backbone.name, "", longest, settings)
    return _Parts(model, tokenizer, usage, backbone, "auto")


def settings_of(config: GenerationConfig) -> DecodingSettings:
    """Return the settings of a model's own generation configuration.

    What it leaves open has the default of transformers, apart from the longest prediction, which is
    128 tokens.
    """
    values = {
        "beams": config.num_beams,
        "max_new_tokens": config.max_new_tokens or config.max_length,
        "no_repeat_ngram": config.no_repeat_ngram_size,
        "length_penalty": config.length_penalty,
        "min_new_tokens": config.min_new_tokens or config.min_length,
        "repetition_penalty": config.repetition_penalty,
        "early_stopping": config.early_stopping,
    }
    defaults = {"beams": 1, "no_repeat_ngram": 0}
    given = {name: value for name, value in values.items() if value is not None}
    return DecodingSettings.model_validate({**defaults, **given})
