"""The CUDA paths against the CPU's."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from harness import Backbone
from harness.api.backbone import Weights
from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.data.examples import Example
from harness.evaluation.decoding import generate
from harness.records.run_folder import TRAINING_STATE
from harness.spec.decoding import DecodingSettings
from harness.spec.run_spec import RunSpec
from harness.training.async_scalar import AsyncScalar
from harness.training.build import load_trainer
from harness.training.engines.attention import _PerSequence
from harness.training.engines.fused_attention import fused_attention, padded_within, takes_rows
from harness.training.engines.rows import PackedRow
from harness.training.resolved_run import choose_device, resolve_run
from harness.training.state import Progress, load_state, save_state
from harness.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

EXAMPLES = [
    Example([5 + i % 7 for i in range(n)] + [1], [9 + i % 5 for i in range(m)] + [1])
    for n, m in [(30, 14), (9, 3), (1, 20), (35, 8)]
]
DEVICE = torch.device("cuda")
TOKENS = sum(len(e.target) for e in EXAMPLES)


def trainer(backbone: Backbone, device: str, recipe: str, precision: str = "float32") -> Trainer:
    spec = RunSpec.model_validate(
        {
            "recipe": recipe,
            "weights": "random",
            "device": device,
            "train": {"precision": precision, "engine": "auto"},
        }
    )
    return load_trainer(resolve_run(spec, backbone, parse(recipe, installed().compressors)))


@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
def test_loss_and_gradients_are_those_of_the_cpu(backbone: Backbone, recipe: str) -> None:
    made = {device: trainer(backbone, device, recipe) for device in ("cpu", "cuda")}
    losses = {}
    for device, one in made.items():
        one.model.eval()  # Without dropout.
        losses[device] = float(one.backward([one.engine.collate(EXAMPLES)], TOKENS))
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-4)
    largest = max(float(p.grad.norm()) for p in made["cpu"].trained.values() if p.grad is not None)
    for name, parameter in made["cpu"].trained.items():
        other = made["cuda"].trained[name].grad
        assert parameter.grad is not None
        assert other is not None
        assert float((other.cpu() - parameter.grad).norm()) < 1e-3 * largest, name


@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
def test_steps_with_dropout_lower_the_loss(backbone: Backbone, recipe: str) -> None:
    one = trainer(backbone, "cuda", recipe)
    one.model.train()
    for group in one.optimizer.param_groups:
        group["lr"] = 1e-2
    losses = [float(one.step([one.engine.collate(EXAMPLES)], TOKENS)) for _ in range(30)]
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("recipe", ["full", "lora_ff+lprun"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_never_waits_for_the_device(backbone: Backbone, recipe: str, precision: str) -> None:
    one = trainer(backbone, "cuda", recipe, precision)
    one.model.train()
    batches = [[one.engine.collate(EXAMPLES)] for _ in range(3)]
    one.step(batches[0], TOKENS, check=True)  # Loads kernels, makes the optimizer's state.
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [AsyncScalar(one.step(batch, TOKENS)) for batch in batches[1:]]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(math.isfinite(float(loss)) for loss in losses)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
@pytest.mark.parametrize("width", [64, 20])
def test_flash_attention_is_the_loops(kind: str, width: int) -> None:
    if not takes_rows(torch.bfloat16, torch.device("cuda")):
        pytest.skip("this device has no flash attention")
    lengths = {"queries": (30, 1, 128), "keys": (7, 300, 64) if kind == "cross" else (30, 1, 128)}
    rows = {
        device: [
            PackedRow(
                n,
                torch.cat([torch.arange(m) for m in n]).to(device),
                torch.tensor([0, *accumulate(n)], dtype=torch.int32, device=device),
            )
            for n in lengths.values()
        ]
        for device in ("cpu", "cuda")
    }
    torch.manual_seed(0)
    made = [torch.randn(4, sum(lengths[name]), width) for name in ("queries", "keys", "keys")]
    upstream = torch.randn(sum(lengths["queries"]), 4, width)
    results = []
    for device, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        q, k, v = (t.to(device, dtype).requires_grad_() for t in made)
        attend = _PerSequence.apply if device == "cpu" else fused_attention
        queries, keys = rows[device]
        scaling, causal = width**-0.5, kind == "decoder"
        result = attend(q, k, v, None, queries, keys, scaling, 0.0, causal)
        found = (result, *torch.autograd.grad(result, (q, k, v), upstream.to(device, dtype)))
        results.append([t.float().cpu() for t in found])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0.05, atol=0.05)


def test_flash_attention_drops_probabilities() -> None:
    """With equal scores and values of one, a result is the share kept, over its expectation."""
    if not takes_rows(torch.bfloat16, torch.device("cuda")):
        pytest.skip("this device has no flash attention")
    n = (100, 300)
    offsets = torch.tensor([0, *accumulate(n)], dtype=torch.int32, device="cuda")
    row = PackedRow(n, torch.cat([torch.arange(m) for m in n]).cuda(), offsets)
    zeros, ones = (torch.full((8, 400, 64), x, dtype=torch.bfloat16).cuda() for x in (0.0, 1.0))
    result = fused_attention(zeros, zeros, ones, None, row, row, 1.0, 0.2, False).float()
    assert float(result.mean()) == pytest.approx(1, abs=0.01)
    assert float(result.std()) > 0.01


@pytest.fixture
def _as_in_training() -> None:
    choose_device("cuda")  # Turns kernels off that PyTorch would choose.


def row_of(*lengths: int) -> PackedRow:
    offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=DEVICE)
    return PackedRow(lengths, torch.cat([torch.arange(n) for n in lengths]).to(DEVICE), offsets)


@pytest.mark.usefixtures("_as_in_training")
@pytest.mark.parametrize("p", [0.1, 0.3])
def test_padded_attention_drops_the_requested_share_of_probabilities(p: float) -> None:
    """With equal scores and the identity as values, a result is the probabilities themselves."""
    heads, length, count = 8, 64, 16
    row = row_of(*[length] * count)
    zeros = torch.zeros(length * count, heads, length, dtype=torch.bfloat16, device=DEVICE)
    values = torch.eye(length, dtype=torch.bfloat16, device=DEVICE).repeat(count, 1)
    values = values[:, None].expand(-1, heads, -1).contiguous()
    bias = torch.zeros(1, heads, length, length, dtype=torch.bfloat16, device=DEVICE)
    result = padded_within(zeros, zeros, values, bias, row, row, 1.0, p, False)
    # The standard error is 0.0006 at the most; some kernels know multiples of 1/16 alone.
    assert float((result == 0).float().mean()) == pytest.approx(p, abs=0.005)


@pytest.mark.usefixtures("_as_in_training")
@pytest.mark.parametrize("longest", [63, 64, 192, 320])
@pytest.mark.parametrize("trained_bias", [False, True])
def test_padded_attention_has_finite_gradients_at_every_length(
    longest: int, trained_bias: bool
) -> None:
    heads, width = 4, 64
    row = row_of(longest, 1, longest // 2)
    torch.manual_seed(0)
    shape = (sum(row.lengths), heads, width)
    made = [torch.randn(shape, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
    q, k, v = (tensor.requires_grad_() for tensor in made)
    bias = torch.randn(1, heads, longest, longest, device=DEVICE, requires_grad=trained_bias)
    result = padded_within(q, k, v, bias, row, row, width**-0.5, 0.1, False)
    wanted = [q, k, v, *([bias] if trained_bias else [])]
    for gradient in torch.autograd.grad(result.float().sum(), wanted):
        assert gradient.isfinite().all()


class Ids:
    """Replaces a tokenizer."""

    def batch_decode(self, rows: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        return [" ".join(map(str, row)) for row in rows.tolist()]


def test_predictions_are_those_of_the_cpu(backbone: Backbone) -> None:
    torch.manual_seed(0)
    model = backbone.load("random")
    sources = [e.source for e in EXAMPLES]
    search = DecodingSettings(beams=3, max_new_tokens=12)
    expected = generate(model, Ids(), sources, search, shared_beams=True)
    found = generate(model.to("cuda"), Ids(), sources, search, shared_beams=True)
    assert found == expected


def test_the_state_holds_the_generator_of_the_device_in_use_alone(
    backbone: Backbone, tmp_path: Path
) -> None:
    one = trainer(backbone, "cuda", "lora_ff")
    schedule = torch.optim.lr_scheduler.ConstantLR(one.optimizer)
    save_state(tmp_path, one, schedule, Progress())
    drawn = torch.rand(5, device=one.device)
    load_state(tmp_path, one, schedule)
    assert torch.equal(torch.rand(5, device=one.device), drawn)
    with safe_open(tmp_path / TRAINING_STATE, framework="pt") as file:
        random = {name for name in file.keys() if name.startswith("random/")}  # noqa: SIM118
    assert random == {"random/torch", "random/cuda"}


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_equal_steps_have_gradients_that_differ_in_their_last_digits_alone(
    backbone: Backbone,
    precision: str,
    bound: float,
    record_property: Callable[[str, object], None],
) -> None:
    """Equal bits are not promised on CUDA: its backward passes add in any order."""
    one = trainer(backbone, "cuda", "full", precision)
    one.model.eval()
    made = []
    for _ in range(5):
        one.backward([one.engine.collate(EXAMPLES)], TOKENS)
        gradients = [p.grad.flatten() for p in one.trained.values() if p.grad is not None]
        made.append(torch.cat(gradients))
        one.optimizer.zero_grad()
    first, *others = made
    spread = max(float((other - first).norm() / first.norm()) for other in others)
    record_property("relative spread of gradients", spread)
    assert spread < bound


def test_weights_can_be_drawn_on_the_device(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = backbone.load
    devices: set[str] = set()

    def load_and_look(weights: Weights) -> PreTrainedModel:
        model = load(weights)
        devices.update(p.device.type for p in model.parameters())
        return model

    monkeypatch.setattr(backbone, "load", load_and_look)
    spec = RunSpec.model_validate({"weights": "random", "device": "cuda"})
    recipe = parse("lora_ff+lprun", installed().compressors)
    losses = []
    for _ in range(2):
        one = load_trainer(resolve_run(spec, backbone, recipe), drawn_on_device=True)
        one.model.eval()
        losses.append(float(one.backward([one.engine.collate(EXAMPLES)], TOKENS)))
    assert devices == {"cuda"}
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert 0 < losses[0] < 20
