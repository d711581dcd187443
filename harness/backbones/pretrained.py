"""What all transformers encoder-decoders share: loading, roles and pruning by declared paths."""

from __future__ import annotations

import functools
import socket
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from harness.backbone import STACKS, Backbone, Role, Stack, Weights
from harness.backbones.shapes import SHAPES, Shape
from harness.errors import HarnessError
from harness.hashing import folder_hash


class Pretrained(Backbone):
    """A backbone of the transformers library; a family declares where its modules are.

    Attributes:
        config_class: the family's configuration.
        layer_path: stack -> path of its ModuleList of layers.
        role_paths: stack -> role -> paths within a layer; paths that a variant lacks are skipped
            (a gated feed-forward has wi_0 and wi_1 where a plain one has wi).
        depth_fields: stack -> the fields of the configuration that hold its depth.
    """

    config_class: ClassVar[type[PreTrainedConfig]]
    layer_path: ClassVar[Mapping[Stack, str]]
    role_paths: ClassVar[Mapping[Stack, Mapping[Role, tuple[str, ...]]]]
    depth_fields: ClassVar[Mapping[Stack, tuple[str, ...]]]

    @property
    def _shape(self) -> Shape | None:
        return SHAPES.get(self.reference)

    @property
    def _source(self) -> str:
        """Hub id or folder."""
        return self._shape.hub_id if self._shape else self.reference

    def version(self) -> str:
        """Return a folder's hash, or the hub id with the commit that is in the hub's cache."""
        if Path(self._source).is_dir():
            return f"sha256:{folder_hash(Path(self._source))}"
        # A snapshot's folder is named by its commit; which of its files are here depends on use.
        for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
            cached = try_to_load_from_cache(self._source, name)
            if isinstance(cached, str):
                return f"{self._source}@{Path(cached).parent.name}"
        return self._source

    def config(self) -> PreTrainedConfig:
        """Return the configuration, from the plugin's own shapes where it has them."""
        if self._shape:
            return self.config_class(**self._shape.config)
        return read_config(self._source)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, from disk or the hub."""
        return _fetch("tokenizer", self.reference, self._source, AutoTokenizer.from_pretrained)

    def load(self, weights: Weights) -> PreTrainedModel:
        """Return the model in float32 on the CPU, in training mode."""
        if weights == "random":
            model = AutoModelForSeq2SeqLM.from_config(self.config(), dtype=torch.float32)
            return self.mend(model, weights).train()
        # Reading from disk takes moments; a bar of it would break into the run's own.
        logging.disable_progress_bar()
        # Safetensors only: a pickle could run code.
        read = functools.partial(
            AutoModelForSeq2SeqLM.from_pretrained, dtype=torch.float32, use_safetensors=True
        )
        model = _fetch("weights", self.reference, self._source, read)
        return self.mend(model, weights).train()

    def skeleton(self) -> PreTrainedModel:
        """Return the model on the meta device."""
        with torch.device("meta"):
            model = AutoModelForSeq2SeqLM.from_config(self.config(), dtype=torch.float32)
            return self.mend(model, "random").train()

    def mend(self, model: PreTrainedModel, weights: Weights) -> PreTrainedModel:
        """Correct, in place, what transformers gets wrong about a family."""
        return model

    def modules(self, model: PreTrainedModel, role: Role) -> dict[str, nn.Module]:
        """Return all modules of a role, encoder first, in order of depth."""
        found: dict[str, nn.Module] = {}
        for stack in STACKS:
            for index, layer in enumerate(self.layers(model, stack)):
                for path in self.role_paths[stack].get(role, ()):
                    try:
                        module = layer.get_submodule(path)
                    except AttributeError:
                        continue
                    found[f"{self.layer_path[stack]}.{index}.{path}"] = module
        return found

    def layers(self, model: PreTrainedModel, stack: Stack) -> nn.ModuleList:
        """Return the layers of a stack."""
        layers = model.get_submodule(self.layer_path[stack])
        assert isinstance(layers, nn.ModuleList)
        return layers

    def keep_layers(self, model: PreTrainedModel, stack: Stack, kept: Sequence[int]) -> None:
        """Drop all layers but ``kept``; renumber the attention caches; write the new depth."""
        layers = self.layers(model, stack)
        if not kept or sorted(set(kept)) != list(kept) or kept[0] < 1 or kept[-1] > len(layers):
            raise HarnessError(
                f"Cannot keep the layers {list(kept)} of {self.name}'s {stack}.",
                f"Give increasing numbers from 1 to {len(layers)}.",
            )
        remaining = nn.ModuleList(layers[i - 1] for i in kept)
        # The key-value cache is addressed by layer_idx: a stale number would generate nonsense.
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
        """Return each configuration that says how deep a stack is, with the fields to set."""
        return [(model.config, self.depth_fields[stack])]

    def resize_to_tokenizer(self, model: PreTrainedModel) -> None:
        """Cut the embedding to the tokenizer's vocabulary."""
        size = self._shape.tokenizer_size if self._shape else len(self.tokenizer())
        if model.get_input_embeddings().num_embeddings != size:
            model.resize_token_embeddings(size, mean_resizing=False)


def read_config(reference: str) -> PreTrainedConfig:
    """Read the configuration of a folder or a hub id.

    Raises:
        HarnessError: it cannot be had.
    """
    return _fetch("configuration", reference, reference, AutoConfig.from_pretrained)


def _fetch(what: str, reference: str, source: str, read: Callable[..., Any]) -> Any:
    """Read from a folder or the hub's cache, and only if it is in neither ask the hub.

    Raises:
        HarnessError: it cannot be had.
    """
    try:
        return read(source, local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(source).is_dir():
            raise _missing(what, reference, source, error) from error
    try:
        _knock()
        return read(source)
    except (OSError, ValueError) as error:
        raise _missing(what, reference, source, error) from error


def _knock() -> None:
    """Raise OSError if the hub is out of reach; its own client asks six times for each file."""
    if not constants.HF_HUB_OFFLINE and not urllib.request.getproxies():
        url = urlsplit(constants.ENDPOINT)
        socket.create_connection((url.hostname or "", url.port or 443), timeout=5).close()


def _missing(what: str, reference: str, source: str, error: Exception) -> HarnessError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(source).is_dir():
        return HarnessError(
            f"The {what} of backbone {reference!r} cannot be read from the folder {source!r}: "
            f"{reason}",
            "The folder needs config.json, model.safetensors and the tokenizer's files, as "
            "save_pretrained writes them.",
        )
    return HarnessError(
        f"The {what} of backbone {reference!r} is not on this machine, and the model hub could "
        f"not supply it: {reason}",
        "Supply it in one of these ways:\n"
        f"  - on a machine with access to the hub, run the same command, or: hf download {source}\n"
        f"  - copy that download's folder here and name it: --backbone /path/to/{reference}\n"
        "  - point HF_HOME to a hub cache that holds it\n"
        "  - or use the embedded backbone: --backbone nano-t5",
    )
