"""The CUDA path of a whole training step, on fake CUDA tensors: where they lie, and what it costs.

A process of its own, because a guard must be loaded before torch; without g++ these tests fail.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RECIPES = ("full", "lprun", "lora_qv", "lora_ff", "lora_qv+lprun", "lora_ff+lprun")
LIMITS = {
    ("t5", "bfloat16"): (822, 708, 1028, 905, 868, 766),
    ("gated-t5", "bfloat16"): (1191, 1017, 1386, 1370, 1166, 1150),
    ("bart", "bfloat16"): (802, 682, 1069, 933, 897, 780),
    ("t5", "float32"): (890, 767, 998, 880, 848, 749),
    ("gated-t5", "float32"): (1175, 1006, 1272, 1259, 1076, 1063),
    ("bart", "float32"): (966, 824, 1051, 915, 890, 773),
}
"""The most kernels that a step of six layers a stack may launch, by recipe. They only fall."""
LIMIT_OF_CASE = {
    f"{shape}/{recipe}/{precision}": limit
    for (shape, precision), limits in LIMITS.items()
    for recipe, limit in zip(RECIPES, limits, strict=True)
}
MEMORY_LIMITS = {
    "t5": (4710200, 4009724, 5243468, 4567516, 4412596, 3803220),
    "gated-t5": (8654700, 7298344, 8768588, 8925244, 7352500, 7434916),
    "bart": (5628488, 4806936, 5881004, 5120044, 4951996, 4270068),
}
"""The most bytes that may be alive at the peak of a step in bfloat16, by recipe. They only fall."""
MEMORY_LIMIT_OF_CASE = {
    f"memory:{shape}/{recipe}/bfloat16": limit
    for shape, limits in MEMORY_LIMITS.items()
    for recipe, limit in zip(RECIPES, limits, strict=True)
}
QUICK = [f"{s}/{r}/bfloat16" for s in ("t5", "bart") for r in ("full", "lora_ff+lprun")]
QUICK += ["gated-t5/lora_ff+lprun/bfloat16", "t5/lora_ff/bfloat16", "t5/lora_ff+lprun/float32"]
QUICK_MEMORY = [f"memory:{case}" for case in QUICK[:5]]
BESIDE_TRAINER = QUICK[:4]
QUICK_BESIDE_TRAINER = ["t5/full/bfloat16", "bart/lora_ff+lprun/bfloat16"]
WAITING = ["item", "bool", "nonzero", "masked", "masked put", "down", "up", "copied down"]
SLOW = [c for c in LIMIT_OF_CASE if c not in QUICK]
SLOW_MEMORY = [c for c in MEMORY_LIMIT_OF_CASE if c not in QUICK_MEMORY]
SLOW_BESIDE_TRAINER = [c for c in BESIDE_TRAINER if c not in QUICK_BESIDE_TRAINER]


def rehearse(*cases: str) -> dict[str, Any]:
    script = Path(__file__).with_name("rehearse.py")
    done = subprocess.run(
        [sys.executable, script, *cases], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {row["case"]: row["found"] for row in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def quick() -> dict[str, Any]:
    return rehearse(
        "waits", *QUICK, *QUICK_MEMORY, *(f"trainer:{case}" for case in QUICK_BESIDE_TRAINER)
    )


@pytest.fixture(scope="module")
def slow() -> dict[str, Any]:
    trainers = (f"trainer:{case}" for case in SLOW_BESIDE_TRAINER)
    return rehearse(*SLOW, *SLOW_MEMORY, *trainers)


def check(found: dict[str, int], case: str) -> None:
    """A step ran: on one device and without waiting, or the process would have failed."""
    assert found["_fused_adamw_"] > 0
    assert found["_foreach_norm"] > 0
    assert sum(found.values()) <= LIMIT_OF_CASE[case], sorted(found.items(), key=lambda x: -x[1])


@pytest.mark.parametrize("case", QUICK)
def test_a_step_never_waits_and_launches_no_more_than_before(
    quick: dict[str, Any], case: str
) -> None:
    check(quick[case], case)


@pytest.mark.parametrize(
    ("case", "kernels", "backward"),
    # A kernel forward and two backward in each self-attention. The gradient of the bias takes one
    # more; without it, the first layer of a stack gets no gradient.
    [
        ("t5/full/bfloat16", 12, 12 * 3),
        ("t5/lora_ff/bfloat16", 12, 10 * 2),
        ("t5/lora_ff+lprun/float32", 10, 8 * 2),
        ("bart/full/bfloat16", 0, 0),
    ],
)
def test_attention_with_a_position_bias_is_not_padded(
    quick: dict[str, Any], case: str, kernels: int, backward: int
) -> None:
    found = quick[case]
    assert found.get("harness::biased_attention", 0) == kernels
    assert found.get("harness::biased_attention_backward", 0) == backward
    assert "bfloat16" not in case or "_scaled_dot_product_efficient_attention" not in found


@pytest.mark.parametrize("case", QUICK_MEMORY)
def test_a_step_keeps_no_more_bytes_than_before(quick: dict[str, Any], case: str) -> None:
    check_memory(quick[case], case)


def check_memory(kinds: dict[str, int], case: str) -> None:
    assert kinds["weights and optimizer  "] > 0
    assert sum(kinds.values()) <= MEMORY_LIMIT_OF_CASE[case], kinds


def test_after_relu_only_the_result_of_dropout_is_kept(quick: dict[str, Any]) -> None:
    kinds = quick["memory:t5/full/bfloat16"]
    wide = {kind: size for kind, size in kinds.items() if "DenseReluDense" in kind}
    # Six layers of 24 hidden features in two bytes, for 8 x 128 and 8 x 32 tokens.
    assert sum(wide.values()) == 6 * 24 * 2 * 8 * (128 + 32), wide


@pytest.mark.parametrize("shape", ["t5", "bart"])
def test_trained_weights_are_cast_in_lists_and_not_one_by_one(
    quick: dict[str, Any], shape: str
) -> None:
    found = quick[f"{shape}/full/bfloat16"]
    assert found["_foreach_copy_"] > 0
    # Autocast copies each trained matrix, 6 in a layer of the encoder and 10 in one of the decoder,
    # and its gradient back.
    assert found["_to_copy"] < 2 * 6 * (6 + 10)


@pytest.mark.parametrize("case", QUICK_BESIDE_TRAINER)
def test_clearly_fewer_kernels_than_the_trainer(quick: dict[str, Any], case: str) -> None:
    check_beside_trainer(quick[case], quick[f"trainer:{case}"])


def check_beside_trainer(found: dict[str, int], trainer: dict[str, int]) -> None:
    # The whole step is there too.
    assert trainer["_fused_adamw_"] > 0
    assert trainer["_foreach_norm"] > 0
    assert sum(found.values()) < 0.75 * sum(trainer.values())


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW)
def test_other_steps_never_wait_and_launch_no_more_than_before(
    slow: dict[str, Any], case: str
) -> None:
    check(slow[case], case)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_MEMORY)
def test_other_steps_keep_no_more_bytes_than_before(slow: dict[str, Any], case: str) -> None:
    check_memory(slow[case], case)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_BESIDE_TRAINER)
def test_other_steps_have_clearly_fewer_kernels_than_the_trainer(
    quick: dict[str, Any], slow: dict[str, Any], case: str
) -> None:
    check_beside_trainer(quick[case], slow[f"trainer:{case}"])


@pytest.mark.parametrize("case", WAITING)
def test_what_waits_for_the_device_is_found(quick: dict[str, Any], case: str) -> None:
    assert "waits for the device" in quick["waits"][case]


def test_a_mismatch_of_devices_is_found(quick: dict[str, Any]) -> None:
    assert "on the same device" in quick["waits"]["mismatch"]


@pytest.mark.parametrize(
    ("case", "kernels"),
    # 110 tensors or 320 blocks of 65,536 elements go into one kernel.
    [("up without waiting", 1), ("views", 0), ("product", 1), ("many", 2), ("large", 3)],
)
def test_kernels_are_counted(quick: dict[str, Any], case: str, kernels: int) -> None:
    assert quick["waits"][case] == str(kernels)
