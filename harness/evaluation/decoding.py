"""Decoding: the same search for every recipe, whatever a model's own generation settings are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial

import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.api.options import written
from harness.evaluation.beam_cache import ATTENTION
from harness.evaluation.beam_search import beam_search
from harness.evaluation.library_search import library_search
from harness.evaluation.recorded_search import RecordedSearches
from harness.evaluation.weights import in_float32, linear_weights_in, merged
from harness.model.attention_switch import attention_implementation
from harness.model.recorder import CudaRecorder
from harness.spec.decoding import DecodingSettings

BatchSearch = Callable[[Sequence[Sequence[int]], DecodingSettings], list[str]]
"""(token ids of the sources of a batch, settings) -> a text for each source."""

FindBest = Callable[[Tensor, Tensor, DecodingSettings], Tensor]
"""(padded sources, their lengths, settings) -> token ids of the best hypotheses."""

IdSearch = Callable[[Sequence[Sequence[int]], DecodingSettings], Tensor]
"""(token ids of the sources of a batch, settings) -> token ids of the best hypotheses."""


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Sequence[int]],
    settings: DecodingSettings,
    *,
    shared_beams: bool = False,
    dtype: torch.dtype = torch.float32,
    earlier: Mapping[int, str] | None = None,
    on_batch: Callable[[dict[int, str]], None] | None = None,
) -> list[str]:
    """Return a prediction for every source, in the order of the sources.

    Predictions are those of transformers' ``generate`` with the same settings. The model's own
    generation settings are ignored, except for the special tokens (start, end, padding, forced
    first and last).

    Args:
        model: an encoder-decoder; it decodes on its own device. Its mode, weights and attention
            implementation are the same afterwards.
        tokenizer: turns the predicted ids into text.
        sources: token ids of each source, with the end-of-sequence token at the end.
        settings: the settings of the search.
        shared_beams: whether the backbone supports a cache that beams share. If not, transformers'
            search is used, which gives the same predictions in more time.
        dtype: float32, or bfloat16 for matrix products in bfloat16 with residuals and logits in
            float32. The rounding of bfloat16 can change predictions.
        earlier: index of a source -> its prediction, from an earlier call that was interrupted.
        on_batch: is called after each batch with a mapping from index to prediction.

    Returns:
        Texts without special tokens and without surrounding white space.
    """
    predictions = dict(earlier or {})
    with searching(model, tokenizer, shared_beams=shared_beams, dtype=dtype) as search:
        for batch in batches(sources, settings.batch_size, predictions):
            texts = search([sources[i] for i in batch], settings)
            decoded = dict(zip(batch, texts, strict=True))
            predictions |= decoded
            if on_batch:
                on_batch(decoded)
    return [predictions[i] for i in range(len(sources))]


@contextmanager
def searching(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    shared_beams: bool,
    dtype: torch.dtype,
) -> Iterator[BatchSearch]:
    """Prepare a model for decoding, and yield a function that predicts the texts of one batch.

    Preparation (merging adapters, converting weights) takes longer than a short batch, so it is
    done once for many. The function may be called from any thread, one call at a time. Afterwards
    the model is as before. See ``generate`` for the arguments.
    """
    with searching_ids(model, shared_beams=shared_beams, dtype=dtype) as search_ids:

        def search(sources: Sequence[Sequence[int]], settings: DecodingSettings) -> list[str]:
            best = search_ids(sources, settings)
            texts = tokenizer.batch_decode(best, skip_special_tokens=True)
            return [text.strip() for text in texts]

        yield search


@contextmanager
def searching_ids(
    model: PreTrainedModel, *, shared_beams: bool, dtype: torch.dtype
) -> Iterator[IdSearch]:
    """Prepare a model as ``searching`` does, and yield a function that returns token ids.

    Its result has the shape (sources, at most 1 + max_new_tokens), the start token first.
    """
    training = model.training
    with ExitStack() as stack:
        stack.enter_context(merged(model))
        stack.enter_context(_weights_in(model, dtype))
        stack.callback(model.train, training)
        model.eval()
        if shared_beams:
            stack.enter_context(attention_implementation(model, ATTENTION))
        find_best = _search_of(model, shared_beams)

        def search(sources: Sequence[Sequence[int]], settings: DecodingSettings) -> Tensor:
            # Both contexts hold for the calling thread only.
            with torch.inference_mode(), _autocast(model, dtype):
                ids, lengths = pad_sources(sources, model.generation_config.pad_token_id)
                ids, lengths = ids.to(model.device), lengths.to(model.device)
                return find_best(ids, lengths, settings)

        yield search


def _search_of(model: PreTrainedModel, shared_beams: bool) -> FindBest:
    """Return the fastest search that a model and its device allow."""
    if not shared_beams:
        return partial(library_search, model)
    if model.device.type == "cuda":
        return RecordedSearches(model, CudaRecorder())
    return partial(beam_search, model)


def batches(
    sources: Sequence[Sequence[int]], size: int, earlier: Mapping[int, str]
) -> list[list[int]]:
    """Return the indices of the sources in batches, without those that were predicted earlier.

    Earlier predictions do not change how the other sources are batched, so that a resumed run
    predicts the same, bit for bit.
    """
    # Sources of similar length share a batch, which saves padding. The longest come first, so that
    # memory runs out in the first batch or never.
    longest_first = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
    all_batches = [longest_first[start : start + size] for start in range(0, len(sources), size)]
    return [batch for batch in all_batches if not all(i in earlier for i in batch)]


def signature(settings: DecodingSettings, dtype: torch.dtype = torch.float32) -> str:
    """Return the signature: search, settings, precision and version.

    Only predictions with equal signatures may be compared.
    """
    precision = str(dtype).removeprefix("torch.")
    version = f"transformers:{transformers.__version__}"
    return "|".join(["beam_search", *describe_search(settings), precision, version])


def describe_search(settings: DecodingSettings) -> list[str]:
    """Return the settings of the search as ``name:value``; the batch size is not part of them.

    Settings that were added later are left out while they have their default value, which is how
    everything was decoded before. The signatures of older reports therefore stay comparable.
    """
    always = ("beams", "max_new_tokens", "no_repeat_ngram")
    values = {
        name: getattr(settings, name)
        for name, field in DecodingSettings.model_fields.items()
        if name in always or getattr(settings, name) != field.default
    }
    return [f"{name}:{written(value)}" for name, value in values.items() if name != "batch_size"]


def pad_sources(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return token ids padded on the right, shape (rows, longest), and the length of each row."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), pad)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = torch.tensor(row)
    return ids, lengths


@contextmanager
def computing_in(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Compute matrix products in ``dtype`` and logits in float32 within the context."""
    with _weights_in(model, dtype), _autocast(model, dtype):
        yield


@contextmanager
def _weights_in(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Store the weights of linear layers in ``dtype``; the layer of logits stays in float32."""
    if dtype == torch.float32:
        with linear_weights_in(model, dtype):
            yield
        return
    head = model.get_output_embeddings()
    with linear_weights_in(model, dtype, excluded=head), in_float32(head):
        yield


@torch.no_grad()
def store_weights_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Convert the weights of linear layers for good to the precision that decoding stores them in.

    Decoding would otherwise keep the original weights beside the converted ones.
    """
    head = model.get_output_embeddings()
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer.weight.is_floating_point() and layer is not head:
            layer.weight.data = layer.weight.to(dtype)


def _autocast(model: PreTrainedModel, dtype: torch.dtype) -> AbstractContextManager[object]:
    return nullcontext() if dtype == torch.float32 else torch.autocast(model.device.type, dtype)
