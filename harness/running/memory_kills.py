"""Processes that the kernel killed because memory ran out."""

from __future__ import annotations

import contextlib
from pathlib import Path

_VMSTAT = Path("/proc/vmstat")


def memory_kills() -> int:
    """Return the number of processes that the kernel killed for memory (Linux); 0 if unknown."""
    with contextlib.suppress(OSError):
        for line in _VMSTAT.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
