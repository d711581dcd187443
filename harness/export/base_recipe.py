"""Recipe of a pruned base: how a script makes it from the original, instead of a copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from torch import Tensor

from harness.api.backbone import STACKS, Stack
from harness.errors import HarnessError
from harness.export.rebuild_base import weights_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.training.trained_run import TrainedRun

FILE = "base.json"
SCRIPT = "rebuild_base.py"
_HINT = "Write the base: leave out --rebuild"


def write_recipe(run: TrainedRun, base: Path, folder: Path, dtype: str) -> None:
    """Write the recipe and the script that follows it.

    Args:
        run: the run.
        base: folder of the base, in float32.
        folder: the folder of the adapter.
        dtype: data type of the base.

    Raises:
        HarnessError: transformers alone cannot load the original, or a weight of the base is not
            in it.
    """
    published = run.backbone.published()
    if published is None or run.spec.weights != "pretrained":
        raise HarnessError(
            f"The original of {run.report.id} is not one that transformers alone can load, so that "
            "no script can make the base from it.",
            _HINT,
        )
    assert run.report.layers_kept is not None
    kept: dict[Stack, list[int]] = {
        stack: getattr(run.report.layers_kept, stack) for stack in STACKS
    }
    recipe = {
        "original": str(Path(published).absolute()) if Path(published).is_dir() else published,
        "original_version": run.report.backbone_version,
        "keep_layers": kept,
        **_origins(run, base, kept),
        "dtype": dtype,
        "sha256": weights_hash(base),
        "config": json.loads((base / "config.json").read_text("utf-8")),
        "generation_config": json.loads((base / "generation_config.json").read_text("utf-8")),
    }
    recipe["vocabulary"] = recipe["config"]["vocab_size"]
    (folder / FILE).write_text(json.dumps(recipe, indent=1, sort_keys=True) + "\n", "utf-8")
    shutil.copyfile(Path(__file__).with_name(SCRIPT), folder / SCRIPT)


def _origins(run: TrainedRun, base: Path, kept: Mapping[Stack, Sequence[int]]) -> dict[str, Any]:
    """Return, for every weight of the base, its name in the original, and rows if it is cut."""
    original = run.original()
    state = original.state_dict()
    paths = {
        f"{_path(original, run.backbone.layers(original, stack))}.": kept[stack] for stack in STACKS
    }
    weights, rows = {}, {}
    (file,) = base.glob("*.safetensors")
    with safe_open(file, framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            # By the number of its layer, or else by its content: T5's position bias moves to the
            # first layer that is kept.
            likely = _name_in_original(name, paths)
            found = next(
                (old for old in [likely, *state] if _is_part(tensor, state.get(old))), None
            )
            if found is None:
                raise HarnessError(
                    f"The base's weight {name} is not one of the original's, so that no script can "
                    "make the base from it.",
                    _HINT,
                )
            weights[name] = found
            if len(tensor) < len(state[found]):
                rows[name] = len(tensor)
    return {"weights": weights, "rows": rows}


def _path(model: Any, module: object) -> str:
    names: list[str] = [name for name, other in model.named_modules() if other is module]
    return names[0]


def _name_in_original(name: str, paths: Mapping[str, Sequence[int]]) -> str:
    """Return a weight's name with its layer's number in the original."""
    for prefix, kept in paths.items():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            return f"{prefix}{kept[int(number)] - 1}.{rest}"
    return name


def _is_part(tensor: Tensor, original: Tensor | None) -> bool:
    """Return whether a weight has the first rows of another one: all, or a smaller vocabulary."""
    if original is None or tensor.ndim != original.ndim or tensor.shape[1:] != original.shape[1:]:
        return False
    return len(tensor) <= len(original) and bool(original[: len(tensor)].equal(tensor))
