"""Make the base of an adapter from the original model, with transformers alone.

    python rebuild_base.py [--original MODEL] [--out FOLDER]

``base.json`` beside this script says which layers are kept, and the hash of the weights that must
come out. MODEL is a hub id or a folder; by default the one that base.json names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of all tensors of a folder: names, types, shapes and bytes, by name."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        tensors.update({name: (path, 8 + size, entry) for name, entry in header.items()})
    digest = hashlib.sha256()
    for name, (path, start, entry) in sorted(tensors.items()):
        begin, end = entry["data_offsets"]
        digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        with path.open("rb") as file:
            file.seek(start + begin)
            digest.update(file.read(end - begin))
    return digest.hexdigest()


def rebuild(recipe: Mapping[str, Any], original: str, out: Path) -> None:
    """Write the base into a folder and check its hash; nothing is left if that is another."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    source = AutoModelForSeq2SeqLM.from_pretrained(original, dtype=torch.float32).state_dict()
    dtype = getattr(torch, recipe["dtype"])
    weights = {}
    for name, old in recipe["weights"].items():
        # A smaller vocabulary has the first rows of the embedding.
        rows = recipe["rows"].get(name, len(source[old]))
        weights[name] = source[old][:rows].to(dtype, copy=True)
    out.mkdir(parents=True)
    try:
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
        found = weights_hash(out)
        if found != recipe["sha256"]:
            raise ValueError(f"the weights have the hash {found}, not {recipe['sha256']}")
        for file in ("config", "generation_config"):
            (out / f"{file}.json").write_text(json.dumps(recipe[file], indent=2), "utf-8")
        AutoTokenizer.from_pretrained(original).save_pretrained(out)
    except BaseException:
        shutil.rmtree(out)
        raise


def main() -> None:
    """Read the arguments and write the base."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--original")
    parser.add_argument("--out", type=Path, default=here / "base")
    chosen = parser.parse_args()
    recipe = json.loads((here / "base.json").read_text("utf-8"))
    if chosen.out.exists():
        sys.exit(f"{chosen.out} exists already.")
    rebuild(recipe, chosen.original or recipe["original"], chosen.out)


if __name__ == "__main__":
    main()
