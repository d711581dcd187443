"""Trained weights on disk: bit for bit, whole or not at all."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from harness.training.trained_weights import FILE, load_weights, save_weights


def weights(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": nn.Parameter(torch.randn(3, 5, generator=generator)),
        "a.transposed": nn.Parameter(torch.randn(4, 2, generator=generator).T),
        "b.half": nn.Parameter(torch.randn(7, generator=generator).bfloat16()),
        "b.scalar": nn.Parameter(torch.randn((), generator=generator)),
        "b.odd": nn.Parameter(torch.tensor([float("inf"), -0.0, 1e-45])),
    }


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()


def test_weights_come_back_bit_for_bit(tmp_path: Path) -> None:
    save_weights(weights(), tmp_path)
    other = weights(seed=1)
    before = {name: (id(p), p.dtype, p.shape, p.stride()) for name, p in other.items()}
    load_weights(other, tmp_path)
    for name, parameter in weights().items():
        assert bits(other[name]) == bits(parameter)
    # In place: the optimizer and the model hold these very tensors.
    assert {name: (id(p), p.dtype, p.shape, p.stride()) for name, p in other.items()} == before
    assert all(p.requires_grad for p in other.values())


def test_the_file_is_plain_safetensors_and_alone(tmp_path: Path) -> None:
    save_weights(weights(), tmp_path)
    save_weights(weights(seed=1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    loaded = load_file(tmp_path / FILE)
    assert loaded.keys() == weights().keys()
    assert torch.equal(loaded["a.weight"], weights(seed=1)["a.weight"])


def test_a_write_that_fails_leaves_the_last_good_file(tmp_path: Path) -> None:
    save_weights(weights(), tmp_path)
    (tmp_path / f"{FILE}.tmp").mkdir()  # Nothing can be written under that name.
    with pytest.raises(Exception, match="Is a directory"):
        save_weights(weights(seed=1), tmp_path)
    assert torch.equal(load_file(tmp_path / FILE)["a.weight"], weights()["a.weight"])
