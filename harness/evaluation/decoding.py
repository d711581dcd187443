"""Generation of predictions: the same search for every recipe, whatever a hub model's defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.api.options import written
from harness.evaluation.beam_cache import ATTENTION
from harness.evaluation.beam_search import beam_search
from harness.evaluation.library_search import library_search
from harness.evaluation.weights import in_float32, linear_weights_in, merged
from harness.model.attention_switch import attention_implementation
from harness.spec.decoding import DecodingSettings


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Sequence[int]],
    settings: DecodingSettings,
    *,
    shared_beams: bool = False,
    dtype: torch.dtype = torch.float32,
    known: Mapping[int, str] | None = None,
    on_batch: Callable[[dict[int, str]], None] | None = None,
) -> list[str]:
    """Return a prediction for every source, in the order given.

    Predictions are those of transformers' ``generate`` with the same settings. Of the model's own
    generation settings only the special tokens count (start, end, padding, forced first and last).

    Args:
        model: an encoder-decoder; decodes on its own device. Its mode, weights and attention
            implementation are the same afterwards.
        tokenizer: turns the predicted ids into text.
        sources: token ids, each ended by the end of sequence.
        settings: of the search.
        shared_beams: the backbone's own word on whether its beams can share a cache; if not,
            transformers' search is used, which gives the same predictions in more time.
        dtype: float32, or bfloat16 for matrix products in bfloat16, with residuals and logits in
            float32; its rounding can change predictions.
        known: predictions that were made before, by the place of their source.
        on_batch: called after each batch with its predictions, likewise.

    Returns:
        Texts without special tokens and surrounding white space.
    """
    predictions = dict(known or {})
    with merged(model), computing_in(model, dtype), _predicting(model, shared_beams) as search:
        for batch in batches(sources, settings.batch_size, predictions):
            ids, lengths = _pad([sources[i] for i in batch], model.generation_config.pad_token_id)
            best = search(model, ids.to(model.device), lengths.to(model.device), settings)
            texts = tokenizer.batch_decode(best, skip_special_tokens=True)
            made = {i: text.strip() for i, text in zip(batch, texts, strict=True)}
            predictions |= made
            if on_batch:
                on_batch(made)
    return [predictions[i] for i in range(len(sources))]


def batches(
    sources: Sequence[Sequence[int]], size: int, known: Mapping[int, str]
) -> list[list[int]]:
    """Return the places of the sources in batches, without those batches that are known whole.

    They are cut as if nothing were known, so that what is left predicts to the same bits.
    """
    # Like lengths together: less padding. The longest first: memory runs out at once or never.
    longest_first = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    cut = [longest_first[start : start + size] for start in range(0, len(sources), size)]
    return [batch for batch in cut if not all(i in known for i in batch)]


def signature(settings: DecodingSettings, dtype: torch.dtype = torch.float32) -> str:
    """Name the search, its settings, precision and version; only equal ones may be compared."""
    precision = str(dtype).removeprefix("torch.")
    version = f"transformers:{transformers.__version__}"
    return "|".join(["beam_search", *describe_search(settings), precision, version])


def describe_search(settings: DecodingSettings) -> list[str]:
    """Name the settings of the search; how many examples go at a time is not part of it.

    Settings that came later are named where they are not at their default, which stands for how all
    was decoded before: signatures of older reports stay comparable.
    """
    always = ("beams", "max_new_tokens", "no_repeat_ngram")
    values = {
        name: getattr(settings, name)
        for name, field in DecodingSettings.model_fields.items()
        if name in always or getattr(settings, name) != field.default
    }
    return [f"{name}:{written(value)}" for name, value in values.items() if name != "batch_size"]


def _pad(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), pad)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = torch.tensor(row)
    return ids, lengths


Search = Callable[[PreTrainedModel, Tensor, Tensor, DecodingSettings], Tensor]


@contextmanager
def _predicting(model: PreTrainedModel, shared_beams: bool) -> Iterator[Search]:
    """Prepare the model, and give the fastest search that it allows."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            if shared_beams:
                with attention_implementation(model, ATTENTION):
                    yield beam_search
            else:
                yield library_search
    finally:
        model.train(training)


@contextmanager
def computing_in(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Compute matrix products in ``dtype`` for a while, and logits in float32."""
    if dtype == torch.float32:
        with linear_weights_in(model, dtype):
            yield
        return
    head = model.get_output_embeddings()
    autocast = torch.autocast(model.device.type, dtype)
    with linear_weights_in(model, dtype, but=head), in_float32(head), autocast:
        yield
