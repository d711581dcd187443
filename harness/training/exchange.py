"""Bytes and texts that processes exchange; JSON, so that nothing received is executed."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch

from harness.training.processes import Processes


def bytes_from_main(processes: Processes, data: bytes = b"") -> bytes:
    """Return the bytes that the main process passes, in every process."""
    if processes.size == 1:
        return data
    length = torch.tensor(len(data))
    torch.distributed.broadcast(length, 0)
    content = torch.empty(int(length), dtype=torch.uint8)
    if processes.rank == 0 and data:
        content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    if int(length):
        torch.distributed.broadcast(content, 0)
    return content.numpy().tobytes()


def merged(processes: Processes, part: Mapping[int, str]) -> dict[int, str]:
    """Return the union of the processes' mappings, in every process."""
    if processes.size == 1:
        return dict(part)
    own = torch.frombuffer(bytearray(json.dumps(part).encode()), dtype=torch.uint8)
    lengths = [torch.tensor(0) for _ in range(processes.size)]
    torch.distributed.all_gather(lengths, torch.tensor(len(own)))
    longest = int(max(lengths))
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in range(processes.size)]
    torch.distributed.all_gather(parts, padded)
    union: dict[int, str] = {}
    for length, content in zip(lengths, parts, strict=True):
        text = content[: int(length)].numpy().tobytes().decode()
        union |= {int(index): value for index, value in json.loads(text).items()}
    return union
