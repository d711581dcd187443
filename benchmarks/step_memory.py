"""Bytes at the peak of a training step on a CUDA device, by kind of tensor, counted without one.

Run ``python benchmarks/step_memory.py``. The step is that of ``launches.py`` on fake tensors.
Buffers that kernels and libraries allocate for themselves are not counted.
"""

from __future__ import annotations

from launches import RECIPES, SHAPES, fake_trainer  # First: it loads the guard before torch.

# isort: split
import argparse
import re
import warnings
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.data.examples import Example
from harness.training.trainer import Trainer


class Kind(NamedTuple):
    """A kind of tensor."""

    module: str
    """The module whose forward pass made it, without numbers of layers."""
    operator: str
    """The operator that returned it."""
    dtype: str
    """The type of its elements."""


HELD = Kind("weights and optimizer", "", "")


class PeakTracker(TorchDispatchMode):
    """Follows the storages on the fake device while it is active.

    Args:
        trainer: its weights and optimizer are there before; its modules name what they make.

    Attributes:
        peak: bytes of each kind at the moment when all together are most.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: Counter[Kind] = Counter()
        self._alive: dict[int, tuple[Kind, int]] = {}
        self._bytes = self._most = 0
        self._modules: list[str] = []
        states = trainer.optimizer.state.values()
        held = [*trainer.model.parameters(), *trainer.model.buffers()]
        held += [v for state in states for v in state.values() if isinstance(v, Tensor)]
        for tensor in held:
            self._book(tensor, HELD)
        for name, module in trainer.model.named_modules():
            kind = re.sub(r"\.\d+(?=\.|$)", "", name).removeprefix("model.")
            module.register_forward_pre_hook(lambda *_, kind=kind: self._modules.append(kind))
            module.register_forward_hook(lambda *_: self._modules.pop() and None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and book its results, and arguments that are not booked yet."""
        for tensor in tree_leaves(args):
            self._book(tensor, HELD)
        result = func(*args, **(kwargs or {}))
        module = self._modules[-1] if self._modules else ""
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                dtype = str(tensor.dtype).removeprefix("torch.")
                operator = func._schema.name.removeprefix("aten::")
                self._book(tensor, Kind(module, operator, dtype))
        return result

    def _book(self, tensor: Any, kind: Kind) -> None:
        if not isinstance(tensor, Tensor) or tensor.device.type != "cuda":
            return
        storage = tensor.untyped_storage()
        if id(storage) in self._alive:
            return
        self._alive[id(storage)] = kind, storage.nbytes()
        self._bytes += storage.nbytes()
        weakref.finalize(storage, self._free, id(storage)).atexit = False
        if self._bytes > self._most:
            self._most = self._bytes
            self.peak = Counter()
            for alive, size in self._alive.values():
                self.peak[alive] += size

    def _free(self, key: int) -> None:
        self._bytes -= self._alive.pop(key)[1]


def peak(
    shape: str, recipe: str, precision: str, lengths: Sequence[tuple[int, int]]
) -> Counter[Kind]:
    """Return the bytes of each kind of tensor at the peak of a step.

    Args:
        shape: see ``launches.count``, as ``recipe`` and ``precision``.
        recipe: a recipe.
        precision: the precision of products.
        lengths: source and target tokens of each example.
    """
    batch = [Example([5] * source, [5] * target) for source, target in lengths]
    with fake_trainer(shape, recipe, precision) as trainer:
        collated = trainer.engine.collate(batch)
        with PeakTracker(trainer) as tracker:
            trainer.step([collated], sum(target for _, target in lengths))
    kinds: Counter[Kind] = tracker.peak
    return kinds


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--lengths", nargs=2, type=int, default=[512, 128])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--kinds", type=int, default=0, help="how many kinds to show")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    source, target = options.lengths
    for shape in options.shapes:
        for recipe in options.recipes:
            kinds = peak(shape, recipe, options.precision, [(source, target)] * options.batch)
            print(f"{shape:12} {recipe:14} {kinds.total() / 2**30:8.2f} GiB", flush=True)
            for kind, size in kinds.most_common(options.kinds):
                print(f"    {size / 2**20:9.1f} MiB  {' '.join(kind)}")


if __name__ == "__main__":
    main()
