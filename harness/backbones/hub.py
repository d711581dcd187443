"""Files of a published model: from a folder, the hub's cache, or the hub itself."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import cached_file, logging

from harness import HarnessError, is_out_of_memory
from harness.backbones import weight_files


def read_config(reference: str) -> PreTrainedConfig:
    """Read the configuration of a folder or a hub id.

    Raises:
        HarnessError: it is not available.
    """
    return fetch("configuration", reference, reference, AutoConfig.from_pretrained)


def fetch(what: str, reference: str, source: str, read: Callable[..., Any]) -> Any:
    """Read from a folder or the hub's cache, and from the hub only if both lack it.

    Raises:
        HarnessError: it is not available.
    """
    try:
        return read(source, local_files_only=True)
    except HarnessError:
        raise
    except Exception as error:  # The errors of readers of damaged files are not documented.
        if is_out_of_memory(error):
            raise
        if Path(source).is_dir():
            raise _missing(what, reference, source, error) from error
    try:
        _knock()
        return read(source)
    except (OSError, ValueError) as error:
        raise _missing(what, reference, source, error) from error


def snapshot(source: str, local_files_only: bool) -> Path:
    """Return the folder in the hub's cache that holds a repository's weights.

    Raises:
        OSError: there are none, or the hub cannot be reached.
    """
    kinds = (weight_files.SAFETENSORS, weight_files.PICKLE)
    for name in [file for kind in kinds for file in (kind, f"{kind}.index.json")]:
        cached = cached_file(
            source,
            name,
            local_files_only=local_files_only,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if cached is None:
            continue
        for shard in weight_files.listed(Path(cached)):
            cached_file(source, shard, local_files_only=local_files_only)
        return Path(cached).parent
    raise OSError(f"no {' or '.join(kinds)}")


def _knock() -> None:
    """Raise OSError if the hub cannot be reached; its own client retries each file six times."""
    if not constants.HF_HUB_OFFLINE and not urllib.request.getproxies():
        url = urlsplit(constants.ENDPOINT)
        socket.create_connection((url.hostname or "", url.port or 443), timeout=5).close()


def _missing(what: str, reference: str, source: str, error: Exception) -> HarnessError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Some messages name the field in the first line and the problem in the next.
    several = 2 if lines and lines[0].endswith(":") else 1
    reason = " ".join(lines[:several]) or type(error).__name__
    if Path(source).is_dir():
        return HarnessError(
            f"The {what} of backbone {reference!r} cannot be read from the folder {source!r}: "
            f"{reason}",
            "The folder needs config.json, model.safetensors or pytorch_model.bin, and the files "
            "of the tokenizer, as written by save_pretrained.",
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


@contextmanager
def quietly() -> Iterator[None]:
    """Read weights without the library's progress bar, table and conversion on the hub."""
    # Reading from disk is fast, and its progress bar would disturb the run's own.
    logging.disable_progress_bar()
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
