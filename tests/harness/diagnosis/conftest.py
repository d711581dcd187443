"""Batches of random examples of different lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import BatchEncoding


@pytest.fixture
def batches() -> list[BatchEncoding]:
    """Two batches, of three and two examples, with padding in sources and targets."""
    import torch
    from transformers import BatchEncoding

    torch.manual_seed(5)
    found = []
    for lengths in ([(7, 5), (4, 3), (6, 1)], [(3, 4), (5, 2)]):
        source, target = (max(column) for column in zip(*lengths, strict=True))
        ids = torch.zeros(len(lengths), source, dtype=torch.long)
        mask = torch.zeros_like(ids)
        labels = torch.full((len(lengths), target), -100)
        for row, (sources, targets) in enumerate(lengths):
            ids[row, :sources] = torch.randint(3, 48, (sources,))
            mask[row, :sources] = 1
            labels[row, :targets] = torch.randint(3, 48, (targets,))
        found.append(BatchEncoding({"input_ids": ids, "attention_mask": mask, "labels": labels}))
    return found
