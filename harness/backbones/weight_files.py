"""The files with a checkpoint's weights: finds, checks and converts them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness import HarnessError, file_hash, write_tensors

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
CACHE = "HARNESS_CACHE"
_FOREIGN = {"*.h5": "TensorFlow", "*.msgpack": "Flax", "*.ckpt*": "TensorFlow", "*.onnx": "ONNX"}
_SETTINGS = ("config.json", "generation_config.json")


def shards(folder: Path, name: str) -> list[Path]:
    """Return the files of one format, in order; empty if the folder has none.

    Args:
        folder: folder of the checkpoint.
        name: name of a single file; an index ``<name>.index.json`` lists several files.

    Raises:
        HarnessError: the index cannot be read, or a file that it lists is missing.
    """
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    if not index.is_file():
        return []
    names = listed(index)
    paths = [folder / shard for shard in names]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise HarnessError(
            f"{len(missing)} of the {len(paths)} weight files of {str(folder)!r} are missing: "
            f"{', '.join(missing[:3])}.",
            "Download them again into the same folder.",
        )
    return paths


def listed(index: Path) -> list[str]:
    """Return the names of the files that an index lists; none if it is a file of weights.

    Raises:
        HarnessError: it cannot be read.
    """
    if not index.name.endswith(".index.json"):
        return []
    try:
        names = json.loads(index.read_text("utf-8"))["weight_map"].values()
        # The files are beside the index, whatever path it contains.
        return sorted({Path(name).name for name in names})
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise HarnessError(
            f"{str(index)!r} is not an index of weight files: {error!r}.", "Download it again."
        ) from error


def require_weights(folder: Path) -> None:
    """Raise an error with a remedy if a folder has no readable weights.

    Raises:
        HarnessError: the folder has weights of another library, or none.
    """
    if shards(folder, SAFETENSORS) or shards(folder, PICKLE):
        return
    where = f"There are no PyTorch weights in the folder {str(folder)!r}"
    for pattern, program in _FOREIGN.items():
        if other := next(folder.glob(pattern), None):
            raise HarnessError(
                f"{where}; {other.name} holds those of {program}.",
                f"Take the publisher's {SAFETENSORS}, or convert: load the model with a version of "
                "transformers that still reads that format (4.57: from_pretrained(FOLDER, "
                "from_tf=True or from_flax=True)) and save it with save_pretrained.",
            )
    raise HarnessError(
        f"{where}: it needs {SAFETENSORS} or {PICKLE}, or their shards with an index.",
        "Copy the missing files there, or start without them: --set weights=random",
    )


def require_headers(files: list[Path]) -> None:
    """Read only the headers of safetensors files.

    Raises:
        HarnessError: a file is truncated.
    """
    for path in files:
        with _Reading(path), safe_open(path, framework="pt"):
            pass


def require_sound(files: list[Path]) -> None:
    """Read safetensors files tensor by tensor.

    Raises:
        HarnessError: a file is truncated, or a weight is not finite.
    """
    for path in files:
        with _Reading(path):
            require_finite(_tensors(path), str(path))


def require_finite(tensors: Iterator[tuple[str, Tensor]], where: str) -> None:
    """Raise an error if a weight is infinite or NaN.

    Raises:
        HarnessError: a weight is infinite or NaN.
    """
    for name, tensor in tensors:
        # A finite sum has finite terms; a sum of finite terms may overflow.
        if not tensor.is_floating_point() or tensor.sum(dtype=torch.float32).isfinite():
            continue
        bad = int((~tensor.isfinite()).sum())
        if bad:
            raise HarnessError(
                f"{bad:,} of the {tensor.numel():,} weights in {name!r} of {where!r} are infinite "
                "or not numbers.",
                "The training that wrote it diverged, or the file is damaged: use an earlier "
                "checkpoint, or download it again.",
            )


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            yield name, file.get_tensor(name)


class _Reading:
    """Convert errors of file readers into a message and a hint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, UnpicklingError) and "eights only load failed" in str(error):
            raise HarnessError(
                f"{str(self.path)!r} holds more than weights; nothing in it was executed.",
                f"Do not load it elsewhere either. Ask its publisher for {SAFETENSORS}.",
            ) from error
        damaged = (SafetensorError, RuntimeError, EOFError, UnpicklingError, OSError, ValueError)
        if isinstance(error, damaged) and "can't allocate memory" not in str(error):
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise HarnessError(
                f"The weights in {str(self.path)!r} are truncated or damaged: {reason}",
                "Download or copy the file again, and compare its size with the original's.",
            ) from error


def converted(folder: Path) -> Path:
    """Convert a checkpoint's pickled weights to safetensors once, and return the folder.

    Only tensors are read from the pickles, and nothing in them is executed. The copy is stored in
    ``$HARNESS_CACHE``, or else in the user's cache folder.

    Raises:
        HarnessError: a file is damaged or holds more than tensors, or the cache cannot be written.
    """
    files = shards(folder, PICKLE)
    settings = [folder / name for name in _SETTINGS if (folder / name).is_file()]
    content = [f"{path.name} {file_hash(path)}" for path in [*files, *settings]]
    place = _cache() / "weights" / sha256("\n".join(content).encode()).hexdigest()[:24]
    if place.is_dir():
        return place
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        work = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    except OSError as error:
        raise _no_cache(place, error) from error
    try:
        _convert(files, work)
        for path in settings:
            shutil.copyfile(path, work / path.name)
        work.rename(place)
    except OSError as error:
        if not place.is_dir():  # Another process may have written it meanwhile.
            raise _no_cache(place, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place


def _cache() -> Path:
    named = os.environ.get(CACHE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "seq2seq-harness"


def _no_cache(place: Path, error: OSError) -> HarnessError:
    return HarnessError(
        f"The weights cannot be converted into the cache {str(place)!r}: {error}.",
        f"Set another folder: export {CACHE}=FOLDER",
    )


def _convert(files: list[Path], folder: Path) -> None:
    weight_map: dict[str, str] = {}
    size = 0
    for number, path in enumerate(files, start=1):
        with _Reading(path):
            tensors = _apart(_unpickle(path))
        several = f"model-{number:05}-of-{len(files):05}.safetensors"
        name = SAFETENSORS if len(files) == 1 else several
        write_tensors(folder / name, tensors, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if len(files) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / f"{SAFETENSORS}.index.json").write_text(json.dumps(index))


def _unpickle(path: Path) -> Mapping[str, Tensor]:
    """Read tensors, memory-mapped if the file's format supports it."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError("it is not a mapping of names to tensors")
    return state


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory, such as tied weights: safetensors needs separate ones."""
    storages: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        shared = storage in storages
        storages.add(storage)
        separate[name] = tensor.clone() if shared else tensor
    return separate
