"""Text models of CTranslate2, which need no model of torch in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from harness.errors import HarnessError, first_line
from harness.evaluation.ctranslate import ConvertedModel, convert, require_settings
from harness.generation.text_model import TextModel, Usage
from harness.spec.decoding import DecodingSettings

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


class ConvertedTextModel(TextModel):
    """A model that was converted for CTranslate2. It has no adapters.

    Args:
        folder: the converted model.
        tokenizer: its tokenizer.
        usage: prefix, limits and settings.
        search: generation settings of the model, whose forced first and last tokens are used.
        device: ``cpu`` or ``cuda``.
        compute_type: a type of ctranslate2; ``default`` is that of the stored weights.
        temporary: a folder to delete with the model, if it was converted for this use.

    Raises:
        HarnessError: CTranslate2 is not installed, or lacks one of the settings.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        usage: Usage,
        *,
        search: GenerationConfig,
        device: str = "cpu",
        compute_type: str = "default",
        temporary: TemporaryDirectory[str] | None = None,
    ) -> None:
        super().__init__(tokenizer, usage)
        require_settings(usage.settings)
        self._temporary = temporary
        self._converted = ConvertedModel(
            folder,
            tokenizer,
            search=search,
            device=device,
            compute_type=compute_type,
        )

    def predict(
        self,
        sources: Sequence[Sequence[int]],
        settings: DecodingSettings | None = None,
        adapter: str | None = None,
    ) -> list[str]:
        """Return a prediction for every source of one batch."""
        if adapter is not None:
            raise HarnessError(
                "CTranslate2 has no adapters to switch between.", "Leave out --adapter."
            )
        return self._converted.predict(sources, settings or self.usage.settings)

    def close(self) -> None:
        """Delete the temporary folder, if there is one."""
        if self._temporary is not None:
            self._temporary.cleanup()


def open_converted(folder: Path, usage: Usage, device: str) -> ConvertedTextModel:
    """Load an export for CTranslate2.

    Args:
        folder: the exported folder, which holds the tokenizer too.
        usage: prefix, limits and settings.
        device: ``cpu`` or ``cuda``.

    Raises:
        HarnessError: CTranslate2 is not installed, or a file is missing or damaged.
    """
    from transformers import AutoTokenizer, GenerationConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        search = GenerationConfig.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise HarnessError(
            f"The export {str(folder)!r} cannot be read: {first_line(error)}.",
            "Export the run again: harness export RUN --ctranslate2 --out FOLDER",
        ) from error
    return ConvertedTextModel(folder, tokenizer, usage, search=search, device=device)


def convert_text_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    usage: Usage,
    device: torch.device,
) -> ConvertedTextModel:
    """Convert a model in float32 into a temporary folder, and load it with CTranslate2.

    Args:
        model: an encoder-decoder without adapters.
        tokenizer: its tokenizer.
        usage: prefix, limits and settings.
        device: the device to decode on.

    Raises:
        HarnessError: CTranslate2 is not installed, cannot convert the model or lacks a setting.
    """
    require_settings(usage.settings)
    place = TemporaryDirectory()
    folder = Path(place.name) / "converted"
    convert(model, tokenizer, folder)
    return ConvertedTextModel(
        folder,
        tokenizer,
        usage,
        search=model.generation_config,
        device=device.type,
        temporary=place,
    )
