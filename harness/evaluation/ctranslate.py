"""Decoding with CTranslate2, an optional inference engine.

CTranslate2 has a different beam search: an example ends when as many hypotheses have ended as there
are beams, so that some predictions differ from those of the harness's own search. The signature
names the decoder.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from harness.errors import HarnessError
from harness.evaluation.decoding import batches, describe_search
from harness.evaluation.weights import merged
from harness.spec.decoding import DecodingSettings

if TYPE_CHECKING:
    from ctranslate2 import Translator


def require_ctranslate2() -> None:
    """Check that CTranslate2 is installed.

    Raises:
        HarnessError: it is not installed.
    """
    if importlib.util.find_spec("ctranslate2") is None:
        raise HarnessError(
            "The decoder ctranslate2 is not installed.",
            "pip install 'seq2seq-harness[ctranslate2]', or leave out --set "
            "test.decoder=ctranslate2",
        )


def translate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Sequence[int]],
    settings: DecodingSettings,
    *,
    dtype: torch.dtype,
    known: Mapping[int, str] | None = None,
    on_batch: Callable[[dict[int, str]], None] | None = None,
) -> list[str]:
    """Return a prediction for every source; see ``decoding.generate`` for the arguments.

    Adapters are merged in the copy that is converted; the model itself does not change.

    Raises:
        HarnessError: CTranslate2 is not installed, or cannot convert this model.
    """
    first = model.generation_config.forced_bos_token_id
    predictions = dict(known or {})
    with tempfile.TemporaryDirectory() as folder:
        translator = _convert(model, tokenizer, Path(folder), _compute_type(model, dtype))
        for batch in batches(sources, settings.batch_size, predictions):
            prefix = None if first is None else [tokenizer.convert_ids_to_tokens([first])]
            results = translator.translate_batch(
                [tokenizer.convert_ids_to_tokens(list(sources[i])) for i in batch],
                target_prefix=prefix and prefix * len(batch),
                beam_size=settings.beams,
                max_decoding_length=settings.max_new_tokens,
                max_input_length=0,
                no_repeat_ngram_size=settings.no_repeat_ngram,
                length_penalty=settings.length_penalty,
                repetition_penalty=settings.repetition_penalty,
                # CTranslate2's default of 1 excludes empty predictions.
                min_decoding_length=max(1, settings.min_new_tokens),
            )
            texts = {}
            for i, result in zip(batch, results, strict=True):
                ids = tokenizer.convert_tokens_to_ids(result.hypotheses[0])
                texts[i] = tokenizer.decode(ids, skip_special_tokens=True).strip()
            predictions |= texts
            if on_batch:
                on_batch(texts)
    return [predictions[i] for i in range(len(sources))]


def translate_signature(
    model: PreTrainedModel, settings: DecodingSettings, dtype: torch.dtype
) -> str:
    """Return the signature: the decoder, its settings, precision and version."""
    version = importlib.metadata.version("ctranslate2")
    search = describe_search(settings)
    return "|".join(["ctranslate2", *search, _compute_type(model, dtype), f"ctranslate2:{version}"])


def _compute_type(model: PreTrainedModel, dtype: torch.dtype) -> str:
    import ctranslate2

    name = str(dtype).removeprefix("torch.")
    supported = ctranslate2.get_supported_compute_types(model.device.type)
    return name if name in supported else "float32"


def _convert(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, compute_type: str
) -> Translator:
    require_ctranslate2()
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    # A progress bar of file writing would interrupt the run's own progress bar.
    logging.disable_progress_bar()
    with merged(model):
        # The names of a model without adapters: PEFT's layers wrap the plain ones.
        state: dict[str, Any] = {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in model.state_dict().items()
            if ".lora_" not in name
        }
        model.save_pretrained(folder / "model", state_dict=state)
    _complete(folder / "model" / "config.json")
    tokenizer.save_pretrained(folder / "model")
    try:
        TransformersConverter(str(folder / "model")).convert(str(folder / "converted"))
    # The errors of the converter for an unsupported model are not documented.
    except Exception as error:
        raise HarnessError(
            f"CTranslate2 cannot convert this model: {error}",
            "Leave out --set test.decoder=ctranslate2",
        ) from error
    return ctranslate2.Translator(
        str(folder / "converted"),
        device=model.device.type,
        compute_type=compute_type,
        intra_threads=torch.get_num_threads(),
    )


def _complete(path: Path) -> None:
    """Add the settings of BART that the converter reads and transformers 5 no longer writes."""
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({"normalize_before": False, "normalize_embedding": True} | config))
