"""The card at hand: its name, its folder's name, and the software on top of it.

``python -m gpu.card`` prints a record; a process of its own keeps CUDA out of the runner.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError

LIMIT = 120
"""Seconds for the answer: the first import on a cold disk takes long."""


class CardError(Exception):
    """There is no device of the kind that was requested."""


@dataclass(frozen=True)
class Card:
    """A device.

    Attributes:
        name: as its driver gives it.
        device: ``cuda`` or ``cpu``.
        record: its name, size, driver and software, for the results.
    """

    name: str
    device: str
    record: dict[str, Any]

    @property
    def slug(self) -> str:
        """Return its name in the characters a to z, 0 to 9 and the hyphen."""
        return slug_of(self.name)


def slug_of(name: str) -> str:
    """Return a name in the characters a to z, 0 to 9 and the hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"


def ask_for_card(device: str) -> Card:
    """Return the card.

    Args:
        device: ``cuda`` or ``cpu``.

    Raises:
        CardError: there is none, or PyTorch does not find it.
    """
    command = [sys.executable, "-m", "gpu.card", device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    except subprocess.TimeoutExpired as error:
        raise CardError(f"PyTorch did not name a device within {LIMIT} s.") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no output"])[-1]
        raise CardError(
            f"PyTorch finds no device of the kind {device!r}: {last}\n"
            "Look at what nvidia-smi prints; make gpu-tiny rehearses the steps on a CPU."
        ) from error
    record = json.loads(done.stdout.splitlines()[-1])
    return Card(record["name"], device, record)


def describe(device: str) -> dict[str, Any]:
    """Return what the results depend on: the card and the software."""
    import torch

    from harness.measurement.fingerprint import fingerprint
    from harness.training.engines.attention import kernels
    from harness.training.resolved_run import choose_device

    place = choose_device(device)
    made = fingerprint(place, torch.bfloat16, kernels(place, torch.bfloat16))
    record: dict[str, Any] = {"name": made.device, "fingerprint": made.model_dump()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        record["memory_bytes"] = properties.total_memory
        record["capability"] = f"{properties.major}.{properties.minor}"
        record["processors"] = properties.multi_processor_count
        record["cuda"] = torch.version.cuda
        record["cudnn"] = torch.backends.cudnn.version()
    return record


if __name__ == "__main__":
    try:
        print(json.dumps(describe(sys.argv[1])))
    except HarnessError as error:
        sys.exit(error.message)
