"""Base of all transformers encoder-decoders: configuration, tokenizer and weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from harness import HarnessError, Weights, folder_hash
from harness.backbones import weight_files
from harness.backbones.adapter import WEIGHTS, merge_adapter
from harness.backbones.declared_paths import DeclaredPaths
from harness.backbones.hub import fetch, quietly, read_config
from harness.backbones.model_files import (
    build_model,
    enlarge_embedding,
    files_version,
    read_model,
    weights_folder,
)
from harness.backbones.shapes import SHAPES, Shape
from harness.backbones.start_options import StartOptions, notes_on_weights, split_options, written
from harness.backbones.token_ids import complete_generation, complete_token_ids, needed_embeddings


class Pretrained(DeclaredPaths):
    """A backbone of the transformers library, from its hub id, a folder or a built-in shape.

    Attributes:
        config_class: the family's configuration.
        default_tokens: special token -> its id if the configuration has none.
        options: options for an incomplete checkpoint; part of the reference.
    """

    config_class: ClassVar[type[PreTrainedConfig]]
    default_tokens: ClassVar[Mapping[str, int]] = {}

    def __init__(self, reference: str, options: StartOptions | None = None) -> None:
        plain, written_options = split_options(reference)
        super().__init__(plain if options is None else reference)
        self.options = options or written_options
        self.adapter: Path | None = None

    @property
    def name(self) -> str:
        """A short name, with options that differ from the default."""
        own = self.adapter.resolve().name if self.adapter else super().name
        return own + written(self.options)

    @property
    def _shape(self) -> Shape | None:
        return SHAPES.get(self.reference)

    @property
    def _source(self) -> str:
        """Hub id or folder."""
        return self._shape.hub_id if self._shape else self.reference

    def version(self) -> str:
        """Return a folder's hash, or the hub id with its commit in the hub's cache."""
        adapter = f"+sha256:{folder_hash(self.adapter)}" if self.adapter else ""
        return files_version(self._source) + adapter + written(self.options)

    def published(self) -> str | None:
        """Return the hub id or the folder, unless an adapter or options change the model."""
        return None if self.adapter or written(self.options) else self._source

    def config(self) -> PreTrainedConfig:
        """Return the configuration, from the built-in shapes if the model has one."""
        if self._shape:
            return self.config_class(**self._shape.config)
        return read_config(self._source)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, from disk or the hub.

        Raises:
            HarnessError: it is not available, or it has tokens without an embedding in the model.
        """
        tokenizer = self._tokenizer()
        tokens, rows = needed_embeddings(tokenizer), self.config().vocab_size
        if tokens > rows and self.options.extra_tokens == "error":
            raise HarnessError(
                f"The tokenizer of {self.name!r} has {tokens:,} tokens, but the model has "
                f"embeddings for {rows:,}: {tokens - rows:,} were added.",
                "Enlarge the embedding, which every recipe then trains: "
                f"--backbone {self.reference}{written(self.options)}:extra_tokens=resize",
            )
        return tokenizer

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        own = self.adapter and any(self.adapter.glob("tokenizer*"))
        source = str(self.adapter) if own else self._source
        return fetch("tokenizer", self.reference, source, AutoTokenizer.from_pretrained)

    def load(self, weights: Weights) -> PreTrainedModel:
        """Return the model in float32 on the CPU, in training mode."""
        if weights == "random":
            return self._grown(self.mend(self._built(), weights)).train()
        model, unusual = self._read()
        tensors = itertools.chain(model.named_parameters(), model.named_buffers())
        weight_files.require_finite(tensors, self._source)
        self._note(unusual)
        complete_generation(model)
        model = self.mend(model, weights)
        if self.adapter:
            model = self._merged(model, self.adapter)
        return self._grown(model).train()

    def _merged(self, model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
        weight_files.require_sound([adapter / WEIGHTS])
        self._note([f"The adapter {adapter.name!r} was merged into {super().name!r}."])
        return merge_adapter(model, adapter)

    def check(self, weights: Weights) -> None:
        """Read all weights one by one, without building the model."""
        if weights == "random":
            return
        _, unusual = self._read(device="meta")
        folder = self._weights_folder(local_files_only=True)
        weight_files.require_sound(weight_files.shards(folder, weight_files.SAFETENSORS))
        self._note(unusual)
        if self.adapter:
            self._merged(self.mend(self._built(), "random"), self.adapter)

    def _read(self, device: str | None = None) -> tuple[PreTrainedModel, list[str]]:
        """Load the pre-trained model, and note what is unusual about its weights."""

        def read(_: str, local_files_only: bool = False) -> tuple[PreTrainedModel, Any]:
            folder = self._weights_folder(local_files_only)
            return read_model(folder, complete_token_ids(read_config(self._source), self), device)

        with quietly():
            model, loading_info = fetch("weights", self.reference, self._source, read)
        missing = sorted(loading_info["missing_keys"])
        unexpected = sorted(loading_info["unexpected_keys"])
        return model, notes_on_weights(self.reference, self.options, missing, unexpected)

    def _weights_folder(self, local_files_only: bool) -> Path:
        folder, notes = weights_folder(self._source, local_files_only)
        self._note(notes)
        return folder

    def _note(self, notes: Iterable[str]) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def _built(self) -> PreTrainedModel:
        return build_model(complete_token_ids(self.config(), self), self.name)

    def skeleton(self) -> PreTrainedModel:
        """Return the model on the meta device."""
        with torch.device("meta"):
            return self._grown(self.mend(self._built(), "random")).train()

    def _grown(self, model: PreTrainedModel) -> PreTrainedModel:
        """Enlarge the embedding for added tokens, if the options request it."""
        if self.options.extra_tokens == "resize":
            self._note(enlarge_embedding(model, needed_embeddings(self._tokenizer())))
        return model

    def always_trained(self, model: PreTrainedModel) -> list[nn.Parameter]:
        """Return the embeddings if they were enlarged: the new rows are untrained."""
        if model.get_input_embeddings().num_embeddings <= self.config().vocab_size:
            return []
        return [model.get_input_embeddings().weight, model.get_output_embeddings().weight]

    def mend(self, model: PreTrainedModel, weights: Weights) -> PreTrainedModel:
        """Correct, in place, errors of transformers about a family."""
        return model

    def resize_to_tokenizer(self, model: PreTrainedModel) -> None:
        """Reduce the embedding to the tokenizer's vocabulary."""
        size = self._shape.tokenizer_size if self._shape else needed_embeddings(self.tokenizer())
        if model.get_input_embeddings().num_embeddings != size:
            model.resize_token_embeddings(size, mean_resizing=False)
