"""Generation of predictions: the same search for every recipe, whatever a hub model's defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import transformers
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from harness.evaluation.settings import DecodingSettings


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Sequence[int]],
    settings: DecodingSettings,
    *,
    dtype: torch.dtype = torch.float32,
    on_batch: Callable[[int], None] | None = None,
) -> list[str]:
    """Return a prediction for every source, in the order given.

    Args:
        model: an encoder-decoder; decodes on its own device, and keeps its training mode.
        tokenizer: turns the predicted ids into text.
        sources: token ids, each ended by the end of sequence.
        settings: of the search.
        dtype: bfloat16 computes under autocast, float32 does not.
        on_batch: called after each batch with the number of examples in it.

    Returns:
        Texts without special tokens and surrounding white space.
    """
    longest_first = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    predictions = [""] * len(sources)
    with torch.inference_mode(), _evaluating(model), _autocast(model, dtype):
        for start in range(0, len(sources), settings.batch_size):
            batch = longest_first[start : start + settings.batch_size]
            ids = _search(model, [sources[i] for i in batch], settings)
            texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
            for i, text in zip(batch, texts, strict=True):
                predictions[i] = text.strip()
            if on_batch:
                on_batch(len(batch))
    return predictions


def signature(settings: DecodingSettings) -> str:
    """Name the decoder, its settings and version: scores of unlike signatures do not compare."""
    parts = [f"{name}:{value}" for name, value in settings.model_dump().items()]
    return "|".join(["beam_search", *parts, f"transformers:{transformers.__version__}"])


def _search(
    model: PreTrainedModel, sources: Sequence[Sequence[int]], settings: DecodingSettings
) -> torch.Tensor:
    lengths = torch.tensor([len(ids) for ids in sources])
    pad = model.generation_config.pad_token_id
    input_ids = torch.full((len(sources), int(lengths.max())), pad)
    for row, ids in zip(input_ids, sources, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    with _generation_config(model, settings):
        generated: torch.Tensor = model.generate(
            input_ids=input_ids.to(model.device), attention_mask=mask.to(model.device)
        )
    return generated


@contextmanager
def _generation_config(model: PreTrainedModel, settings: DecodingSettings) -> Iterator[None]:
    """Replace the model's generation defaults, of which only its special tokens are kept.

    A model of the hub may come with a length penalty, a minimum length or another number of
    beams: arguments to ``generate`` override only what they name.
    """
    own = model.generation_config
    model.generation_config = GenerationConfig(
        num_beams=settings.beams,
        max_new_tokens=settings.max_new_tokens,
        no_repeat_ngram_size=settings.no_repeat_ngram,
        early_stopping=False,
        length_penalty=1.0,
        do_sample=False,
        decoder_start_token_id=own.decoder_start_token_id,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        pad_token_id=own.pad_token_id,
        forced_bos_token_id=own.forced_bos_token_id,
        forced_eos_token_id=own.forced_eos_token_id,
    )
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _autocast(model: PreTrainedModel, dtype: torch.dtype) -> AbstractContextManager[object]:
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(model.device.type, dtype)
