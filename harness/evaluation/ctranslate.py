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
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from harness.errors import HarnessError, first_line
from harness.evaluation.decoding import batches, describe_search
from harness.evaluation.weights import merged
from harness.spec.decoding import DecodingSettings


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
    earlier: Mapping[int, str] | None = None,
    on_batch: Callable[[dict[int, str]], None] | None = None,
) -> list[str]:
    """Return a prediction for every source; see ``decoding.generate`` for the arguments.

    Adapters are merged in the copy that is converted; the model itself does not change.

    Raises:
        HarnessError: CTranslate2 is not installed, or cannot convert this model.
    """
    predictions = dict(earlier or {})
    with tempfile.TemporaryDirectory() as folder:
        convert(model, tokenizer, Path(folder) / "converted")
        search = ConvertedModel(
            Path(folder) / "converted",
            tokenizer,
            search=model.generation_config,
            device=model.device.type,
            compute_type=_compute_type(model, dtype),
        )
        for batch in batches(sources, settings.batch_size, predictions):
            found = search.predict([sources[i] for i in batch], settings)
            texts = dict(zip(batch, found, strict=True))
            predictions |= texts
            if on_batch:
                on_batch(texts)
    return [predictions[i] for i in range(len(sources))]


class ConvertedModel:
    """A converted model that predicts batches of token ids.

    Args:
        folder: the converted model.
        tokenizer: turns ids into the tokens that CTranslate2 knows, and back.
        search: the model's generation settings, whose forced first and last tokens are used.
        device: ``cpu`` or ``cuda``.
        compute_type: a type of ctranslate2; ``default`` is that of the stored weights.

    Raises:
        HarnessError: CTranslate2 is not installed, or cannot read the model.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        *,
        search: GenerationConfig,
        device: str = "cpu",
        compute_type: str = "default",
    ) -> None:
        require_ctranslate2()
        import ctranslate2

        self._tokenizer = tokenizer
        first = search.forced_bos_token_id
        self._first = None if first is None else [tokenizer.convert_ids_to_tokens([first])]
        self._ends = search.forced_eos_token_id is not None
        try:
            self._translator = ctranslate2.Translator(
                str(folder),
                device=device,
                compute_type=compute_type,
                intra_threads=torch.get_num_threads(),
            )
        except (RuntimeError, ValueError) as error:
            raise HarnessError(
                f"CTranslate2 cannot load the model in {str(folder)!r}: {first_line(error)}.",
                "Export the run again: harness export RUN --ctranslate2 --out FOLDER",
            ) from error

    def predict(self, sources: Sequence[Sequence[int]], settings: DecodingSettings) -> list[str]:
        """Return a prediction for every source of one batch.

        Raises:
            HarnessError: CTranslate2 does not have one of the settings.
        """
        require_settings(settings)
        tokenizer = self._tokenizer
        results = self._translator.translate_batch(
            [tokenizer.convert_ids_to_tokens(list(source)) for source in sources],
            target_prefix=self._first and self._first * len(sources),
            **search_arguments(settings, self._ends),
        )
        texts = []
        for result in results:
            ids = tokenizer.convert_tokens_to_ids(result.hypotheses[0])
            texts.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
        return texts


def search_arguments(settings: DecodingSettings, forced_end: bool) -> dict[str, Any]:
    """Return the arguments of ``translate_batch`` for the settings of the search.

    Args:
        settings: the settings.
        forced_end: whether the last token of the longest prediction must be the end token, as it
            is for most BARTs. CTranslate2 does not know this; one token less gives the same text.
    """
    return {
        "beam_size": settings.beams,
        "max_decoding_length": max(1, settings.max_new_tokens - forced_end),
        "max_input_length": 0,
        "no_repeat_ngram_size": settings.no_repeat_ngram,
        "length_penalty": settings.length_penalty,
        "repetition_penalty": settings.repetition_penalty,
        # CTranslate2's default of 1 excludes empty predictions.
        "min_decoding_length": max(1, settings.min_new_tokens),
    }


def require_settings(settings: DecodingSettings) -> None:
    """Check that CTranslate2 has the settings of a search.

    Raises:
        HarnessError: it does not end an example as late as they say.
    """
    if settings.early_stopping == "never":
        raise HarnessError(
            "CTranslate2 does not support early_stopping=never: it ends an example as soon as the "
            "number of finished hypotheses equals the number of beams.",
            "Choose early_stopping=false, or the decoder harness.",
        )


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


def convert(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    quantization: str | None = None,
) -> None:
    """Convert a model, its adapters merged, into a folder that does not exist yet.

    Args:
        model: an encoder-decoder; it does not change.
        tokenizer: its tokenizer.
        folder: the folder to write.
        quantization: type of the stored weights; None keeps their own.

    Raises:
        HarnessError: CTranslate2 is not installed, or cannot convert this model.
    """
    require_ctranslate2()
    from ctranslate2.converters import TransformersConverter
    from ctranslate2.specs.model_spec import OPTIONAL

    unscaled = getattr(model.config, "scale_decoder_outputs", True) is False

    class Converter(TransformersConverter):  # type: ignore[misc]
        def _load(self) -> Any:
            spec = super()._load()
            if unscaled:
                # T5 v1.1 and Flan-T5. The converter asks tie_word_embeddings, which is true for
                # every T5 since transformers 5.
                spec.decoder.scale_outputs = OPTIONAL
            if spec.config.bos_token is None:
                # The format needs one; generation starts with decoder_start_token.
                spec.config.bos_token = tokenizer.pad_token
            return spec

    # A progress bar of file writing would interrupt the run's own progress bar.
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        with merged(model):
            # The names of a model without adapters: PEFT's layers wrap the plain ones.
            state: dict[str, Any] = {
                name.replace(".base_layer.", "."): tensor
                for name, tensor in model.state_dict().items()
                if ".lora_" not in name
            }
            model.save_pretrained(place, state_dict=state)
        _complete(Path(place) / "config.json")
        tokenizer.save_pretrained(place)
        try:
            Converter(place).convert(str(folder), quantization=quantization)
        # The errors of the converter for an unsupported model are not documented.
        except Exception as error:
            raise HarnessError(
                f"CTranslate2 cannot convert this model: {first_line(error)}",
                "Use the model without it: leave out --set test.decoder=ctranslate2 in a run, and "
                "export with --merged.",
            ) from error


def _complete(path: Path) -> None:
    """Add the settings of BART that the converter reads and transformers 5 no longer writes."""
    config = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({"normalize_before": False, "normalize_embedding": True} | config))
