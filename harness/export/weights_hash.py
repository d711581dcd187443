"""Hash of weights in safetensors files, whatever their order and their number of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of all tensors of a folder: names, types, shapes and bytes, by name.

    The script that rebuilds a base computes the same without this package.
    """
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        tensors |= {name: (path, 8 + size, entry) for name, entry in header.items()}
    digest = hashlib.sha256()
    for name, (path, start, entry) in sorted(tensors.items()):
        begin, end = entry["data_offsets"]
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        with path.open("rb") as file:
            file.seek(start + begin)
            digest.update(file.read(end - begin))
    return digest.hexdigest()
