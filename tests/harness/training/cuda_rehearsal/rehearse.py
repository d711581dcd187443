"""Child process of the rehearsal: what it finds on fake CUDA tensors, as lines of JSON.

Arguments: ``waits``, or cases as SHAPE/RECIPE/PRECISION: of the trainer after ``trainer:``, and
for the bytes at the peak after ``memory:``.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks"))

from launches import count, count_trainer  # noqa: I001 - it loads the guard, before torch.
import torch
from fake_cuda import pretend
from launch_counter import LaunchCounter
from step_memory import peak

TRAINER = "trainer:"
MEMORY = "memory:"


def waits() -> dict[str, str]:
    """Return what becomes of operators: the error, or how many kernels they launch."""
    results = {}
    with pretend():
        x, host = torch.ones(3, 4, device="cuda"), torch.ones(3, 4)
        cases: dict[str, Callable[[], object]] = {
            "item": lambda: x.sum().item(),
            "bool": lambda: bool((x > 0).any()),
            "nonzero": x.nonzero,
            "masked": lambda: x[x > 0],
            "masked put": lambda: x.index_put_((x > 0,), x.new_zeros(())),
            "down": x.cpu,
            "up": lambda: host.to("cuda"),
            "copied down": lambda: torch.empty(3, 4).copy_(x),
            "mismatch": lambda: x @ host.T,
            "up without waiting": lambda: host.to("cuda", non_blocking=True),
            "views": lambda: x.view(4, 3).transpose(0, 1)[1:].unsqueeze(0),
            "product": lambda: x @ x.T,
            "many": lambda: torch._foreach_mul_([torch.empty(2, device="cuda")] * 150, 2.0),
            "large": lambda: torch._foreach_mul_([torch.empty(50_000_000, device="cuda")], 2.0),
        }
        for name, call in cases.items():
            with LaunchCounter() as counter:
                try:
                    call()
                except Exception as error:
                    results[name] = str(error)
                    continue
            prepared = counter.launches["empty"] + counter.launches["full"]
            results[name] = str(counter.launches.total() - prepared)
    return results


def main() -> None:
    """Print the results of the cases, one line each."""
    warnings.simplefilter("ignore")
    for case in sys.argv[1:]:
        if case == "waits":
            found: dict[str, object] = {**waits()}
        elif case.startswith(TRAINER):
            found = dict(count_trainer(*case.removeprefix(TRAINER).split("/")))
        elif case.startswith(MEMORY):
            shape, recipe, precision = case.removeprefix(MEMORY).split("/")
            kinds = peak(shape, recipe, precision, [(128, 32)] * 8)
            found = {" ".join(kind): size for kind, size in kinds.items()}
        else:
            found = dict(count(*case.split("/")))
        sys.stdout.write(json.dumps({"case": case, "found": found}) + "\n")


if __name__ == "__main__":
    main()
