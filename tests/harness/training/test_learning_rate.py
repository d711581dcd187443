"""The peak learning rate of a recipe: documented by its method, or set by the user."""

from __future__ import annotations

import pytest

from harness.api.plugins import installed
from harness.spec.run_spec import RunSpec, resolve
from harness.spec.setting_groups import TrainSettings
from harness.training.learning_rate import peak_learning_rate


@pytest.mark.parametrize(
    ("recipe", "preset", "rate"),
    [
        ("full", "paper", 5e-5),
        ("lprun", "quick", 3e-3),
        ("lora_ff", "paper", 1e-4),
        ("lora_ff+lprun", "quick", 2e-2),
        ("ia3", "paper", 3e-3),
        ("ia3+lprun", "quick", 3e-3),
        ("lora+lora_ff", "quick", 1e-4),  # The lowest of both.
    ],
)
def test_each_method_has_its_own_rate(recipe: str, preset: str, rate: float) -> None:
    settings = resolve({}, preset).train
    assert peak_learning_rate(settings, installed().recipe(recipe)) == rate


def test_the_user_s_rate_holds_for_every_adapter() -> None:
    settings = TrainSettings(adapter_learning_rate=0.5)
    for recipe in ("ia3", "lora_ff+lprun", "lora+lora_ff"):
        assert peak_learning_rate(settings, installed().recipe(recipe)) == 0.5
    assert peak_learning_rate(settings, installed().recipe("lprun")) == settings.learning_rate


def test_a_spec_without_a_rate_reads_back(tmp_path: object) -> None:
    import tomllib

    spec = resolve({}, "quick")
    assert RunSpec.model_validate(tomllib.loads(spec.to_toml())) == spec
