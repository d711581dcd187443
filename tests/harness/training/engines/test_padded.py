"""The padded engine against transformers' own loss of each example alone, unpadded."""

import random
from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from harness.data.examples import Example
from harness.training.engines.padded import IGNORED, PaddedEngine

MakeModel = Callable[[], PreTrainedModel]
EXAMPLES = [
    Example([random.Random(n).randrange(3, 48) for _ in range(n)] + [1], [5 + n] * m + [1])
    for n, m in [(7, 2), (1, 6), (12, 0), (4, 4)]
]


def engine(dtype: torch.dtype = torch.float32, multiple: int = 1) -> PaddedEngine:
    return PaddedEngine(1, dtype, "cpu", multiple)


def loss_of_each_alone(model: PreTrainedModel) -> float:
    total = 0.0
    for example in EXAMPLES:
        ids, labels = torch.tensor([example.source]), torch.tensor([example.target])
        total += len(example.target) * float(model(input_ids=ids, labels=labels).loss)
    return total


@torch.no_grad()
@pytest.mark.parametrize("multiple", [1, 8])
def test_the_loss_is_the_sum_over_the_examples(make_model: MakeModel, multiple: int) -> None:
    model = make_model().eval()
    made = engine(multiple=multiple)
    loss = made.loss_sum(model, made.collate(EXAMPLES))
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    assert float(loss) == pytest.approx(loss_of_each_alone(model), rel=1e-5)


@torch.no_grad()
def test_bfloat16_is_near_and_summed_in_float32(make_model: MakeModel) -> None:
    model = make_model().eval()
    made = engine(torch.bfloat16)
    loss = made.loss_sum(model, made.collate(EXAMPLES))
    assert loss.dtype == torch.float32
    exact = loss_of_each_alone(model)
    assert float(loss) == pytest.approx(exact, rel=0.03)
    assert float(loss) != pytest.approx(exact, rel=1e-6), "bfloat16 was not used"


def test_a_batch_is_padded_to_the_right_and_counted() -> None:
    batch = engine().collate([Example([4, 5, 1], [6, 1]), Example([7, 1], [8, 9, 9, 1])])
    assert batch.tensors["input_ids"].tolist() == [[4, 5, 1], [7, 1, 1]]
    assert batch.tensors["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.tensors["labels"].tolist() == [[6, 1, IGNORED, IGNORED], [8, 9, 9, 1]]
    assert (batch.source_tokens, batch.target_tokens, batch.examples) == (5, 6, 2)


@pytest.mark.parametrize(("multiple", "width"), [(1, 13), (4, 16), (8, 16), (13, 13)])
def test_widths_are_multiples(multiple: int, width: int) -> None:
    assert engine(multiple=multiple).collate(EXAMPLES).tensors["input_ids"].shape == (4, width)


def test_a_batch_moves_whole() -> None:
    batch = engine().collate(EXAMPLES)
    moved = batch.to(torch.device("meta"))
    assert {name: t.shape for name, t in moved.tensors.items()} == {
        name: t.shape for name, t in batch.tensors.items()
    }
    assert all(t.is_meta for t in moved.tensors.values())
    assert (moved.source_tokens, moved.examples) == (batch.source_tokens, batch.examples)
