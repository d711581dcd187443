"""The GPU of this machine: its name, the name of its folder, and its software.

``python -m gpu.card`` prints a record. It is a separate process, so the runner never loads CUDA.
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
"""Timeout in seconds; the first import on a cold disk takes long."""


class CardError(Exception):
    """There is no device of the kind that was requested."""


@dataclass(frozen=True)
class Card:
    """A device.

    Attributes:
        name: name reported by the driver.
        device: ``cuda`` or ``cpu``.
        record: name, size, driver and software, as stored with the results.
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
        process = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    except subprocess.TimeoutExpired as error:
        raise CardError(f"PyTorch did not name a device within {LIMIT} s.") from error
    except subprocess.CalledProcessError as error:
        last_line = (error.stderr.strip().splitlines() or ["no output"])[-1]
        raise CardError(
            f"PyTorch finds no device of the kind {device!r}: {last_line}\n"
            "Look at what nvidia-smi prints; make gpu-tiny rehearses the steps on a CPU."
        ) from error
    record = json.loads(process.stdout.splitlines()[-1])
    return Card(record["name"], device, record)


def describe(device: str) -> dict[str, Any]:
    """Return the card and the software, on which results depend."""
    import torch

    from harness.measurement.fingerprint import fingerprint
    from harness.training.engines.attention import kernels
    from harness.training.resolved_run import choose_device

    place = choose_device(device)
    machine = fingerprint(place, torch.bfloat16, kernels(place, torch.bfloat16))
    record: dict[str, Any] = {"name": machine.device, "fingerprint": machine.model_dump()}
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
