"""Base of all transformers encoder-decoders: loading, roles and pruning by declared paths."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from harness import STACKS, Backbone, HarnessError, Role, Stack, Weights, folder_hash
from harness.backbones import weight_files
from harness.backbones.adapter import WEIGHTS, merge_adapter
from harness.backbones.hub import fetch, quietly, read_config, snapshot
from harness.backbones.shapes import SHAPES, Shape
from harness.backbones.start_options import StartOptions, notes_on_weights, split_options, written
from harness.backbones.token_ids import complete_generation, complete_token_ids, needed_embeddings


class Pretrained(Backbone):
    """A backbone of the transformers library; a family declares the paths of its modules.

    Attributes:
        config_class: the family's configuration.
        layer_path: stack -> path of its ModuleList of layers.
        role_paths: stack -> role -> paths within a layer; paths that a variant lacks are skipped
            (a gated feed-forward has wi_0 and wi_1 instead of wi).
        depth_fields: stack -> fields of the configuration with its depth.
        default_tokens: special token -> its id if the configuration has none.
        options: options for an incomplete checkpoint; part of the reference.
    """

    config_class: ClassVar[type[PreTrainedConfig]]
    layer_path: ClassVar[Mapping[Stack, str]]
    role_paths: ClassVar[Mapping[Stack, Mapping[Role, tuple[str, ...]]]]
    depth_fields: ClassVar[Mapping[Stack, tuple[str, ...]]]
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
        return self._files_version() + adapter + written(self.options)

    def _files_version(self) -> str:
        if Path(self._source).is_dir():
            return f"sha256:{folder_hash(Path(self._source))}"
        # The folder of a snapshot is named by its commit; its files are downloaded on use.
        for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
            cached = try_to_load_from_cache(self._source, name)
            if isinstance(cached, str):
                return f"{self._source}@{Path(cached).parent.name}"
        return self._source

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
        source = self._source
        if self.adapter and any(self.adapter.glob("tokenizer*")):
            source = str(self.adapter)
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
            # Safetensors only, because a pickle could execute code.
            return AutoModelForSeq2SeqLM.from_pretrained(  # type: ignore[no-any-return]
                folder,
                config=complete_token_ids(read_config(self._source), self),
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                local_files_only=True,
                device_map=device,
            )

        with quietly():
            model, loading_info = fetch("weights", self.reference, self._source, read)
        missing, unexpected = (
            sorted(loading_info["missing_keys"]),
            sorted(loading_info["unexpected_keys"]),
        )
        return model, notes_on_weights(self.reference, self.options, missing, unexpected)

    def _weights_folder(self, local_files_only: bool) -> Path:
        """Return a folder with the weights as safetensors; for a hub id, download missing files.

        Raises:
            OSError: the hub cannot supply them.
            HarnessError: their format is not supported, or they are damaged.
        """
        folder = Path(self._source)
        if not folder.is_dir():
            folder = snapshot(self._source, local_files_only)
        weight_files.require_weights(folder)
        if files := weight_files.shards(folder, weight_files.SAFETENSORS):
            weight_files.require_headers(files)
            return folder
        self._note([f"The weights were converted from {weight_files.PICKLE}."])
        return weight_files.converted(folder)

    def _note(self, notes: Iterable[str]) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def _built(self) -> PreTrainedModel:
        """Return the model with random weights.

        Raises:
            HarnessError: no model can be built from the configuration.
        """
        config = complete_token_ids(self.config(), self)
        try:
            return AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise HarnessError(
                f"No model can be built from the configuration of {self.name!r}: {error}",
                "Correct its config.json, or copy the original there.",
            ) from error

    def skeleton(self) -> PreTrainedModel:
        """Return the model on the meta device."""
        with torch.device("meta"):
            return self._grown(self.mend(self._built(), "random")).train()

    def _grown(self, model: PreTrainedModel) -> PreTrainedModel:
        """Enlarge the embedding for added tokens, if the options request it."""
        if self.options.extra_tokens == "error":
            return model
        size, before = (
            needed_embeddings(self._tokenizer()),
            model.get_input_embeddings().num_embeddings,
        )
        if size > before:
            on_meta = next(model.parameters()).is_meta
            model.resize_token_embeddings(size, mean_resizing=not on_meta)
            self._note(
                [f"The embedding was enlarged from {before:,} to {size:,} tokens and is trained."]
            )
        return model

    def always_trained(self, model: PreTrainedModel) -> list[nn.Parameter]:
        """Return the embeddings if they were enlarged: the new rows are untrained."""
        if model.get_input_embeddings().num_embeddings <= self.config().vocab_size:
            return []
        return [model.get_input_embeddings().weight, model.get_output_embeddings().weight]

    def mend(self, model: PreTrainedModel, weights: Weights) -> PreTrainedModel:
        """Correct, in place, errors of transformers about a family."""
        return model

    def modules(self, model: PreTrainedModel, role: Role) -> dict[str, nn.Module]:
        """Return all modules of a role, encoder first, in order of depth."""
        named_modules: dict[str, nn.Module] = {}
        for stack in STACKS:
            for index, layer in enumerate(self.layers(model, stack)):
                for path in self.role_paths[stack].get(role, ()):
                    try:
                        module = layer.get_submodule(path)
                    except AttributeError:
                        continue
                    named_modules[f"{self.layer_path[stack]}.{index}.{path}"] = module
        return named_modules

    def layers(self, model: PreTrainedModel, stack: Stack) -> nn.ModuleList:
        """Return the layers of a stack."""
        layers = model.get_submodule(self.layer_path[stack])
        assert isinstance(layers, nn.ModuleList)
        return layers

    def keep_layers(self, model: PreTrainedModel, stack: Stack, kept: Sequence[int]) -> None:
        """Drop all layers except ``kept``, renumber attention caches, and store the new depth."""
        layers = self.layers(model, stack)
        if not kept or sorted(set(kept)) != list(kept) or kept[0] < 1 or kept[-1] > len(layers):
            raise HarnessError(
                f"Cannot keep the layers {list(kept)} of {self.name}'s {stack}.",
                f"Give increasing numbers from 1 to {len(layers)}.",
            )
        remaining = nn.ModuleList(layers[i - 1] for i in kept)
        # layer_idx addresses the key-value cache: a wrong index would break generation.
        for index, layer in enumerate(remaining):
            modules: Iterable[Any] = layer.modules()
            for module in modules:
                if hasattr(module, "layer_idx"):
                    module.layer_idx = index
        parent, _, name = self.layer_path[stack].rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, name, remaining)
        for config, fields in self._depth_configs(model, stack):
            for field in fields:
                setattr(config, field, len(remaining))

    def _depth_configs(
        self, model: PreTrainedModel, stack: Stack
    ) -> list[tuple[PreTrainedConfig, tuple[str, ...]]]:
        """Return each configuration that holds the depth of a stack, with the fields to set."""
        return [(model.config, self.depth_fields[stack])]

    def resize_to_tokenizer(self, model: PreTrainedModel) -> None:
        """Reduce the embedding to the tokenizer's vocabulary."""
        size = self._shape.tokenizer_size if self._shape else needed_embeddings(self.tokenizer())
        if model.get_input_embeddings().num_embeddings != size:
            model.resize_token_embeddings(size, mean_resizing=False)
