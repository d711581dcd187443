"""The registry: names load lazily, near names are suggested, collisions are errors."""

import sys

import pytest

from harness import HarnessError
from harness.api.registry import Origin, Register, Registry

ALPHA = Origin("alpha", "1.0")
BETA = Origin("beta", "2.0")


@pytest.fixture
def registry() -> Registry:
    registry = Registry("compressor")
    register = Register(registry, ALPHA)
    register("lora_ff", "fractions:Fraction", "LoRA on feed-forward layers")
    register("lprun", "decimal:Decimal", "layer pruning")
    return registry


def test_a_name_is_found_with_its_origin(registry: Registry) -> None:
    entry = registry.find("lora_ff")
    assert (entry.summary, str(entry.origin)) == ("LoRA on feed-forward layers", "alpha 1.0")
    assert [entry.name for entry in registry] == ["lora_ff", "lprun"]


def test_the_module_is_imported_only_by_load(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "fractions", raising=False)
    entry = registry.find("lora_ff")
    assert "fractions" not in sys.modules
    assert entry.load().__name__ == "Fraction"
    assert "fractions" in sys.modules


def test_a_class_can_be_registered_itself(registry: Registry) -> None:
    Register(registry, BETA)("own", dict, "a class")
    assert registry.find("own").load() is dict


@pytest.mark.parametrize("target", ["no_such_module:Thing", "fractions:NoSuchThing"])
def test_a_target_that_cannot_be_loaded_names_its_package(registry: Registry, target: str) -> None:
    Register(registry, BETA)("bad", target, "broken")
    with pytest.raises(HarnessError) as raised:
        registry.find("bad").load()
    assert "'bad' of beta 2.0" in raised.value.message
    assert raised.value.hint is not None
    assert "pip uninstall beta" in raised.value.hint


def test_an_unknown_name_suggests_near_ones(registry: Registry) -> None:
    with pytest.raises(HarnessError) as raised:
        registry.find("lora_f")
    assert raised.value.message == "Unknown compressor 'lora_f'."
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("Did you mean 'lora_ff'?")
    assert "harness list compressors" in raised.value.hint


def test_of_two_owners_neither_wins_and_other_names_work(registry: Registry) -> None:
    Register(registry, BETA)("lora_ff", "decimal:Decimal", "another one")
    with pytest.raises(HarnessError, match=r"'lora_ff' is claimed by alpha 1.0 and beta 2.0"):
        registry.find("lora_ff")
    assert len(registry.collisions) == 1
    assert registry.find("lprun").origin == ALPHA


def test_a_family_handles_references_without_a_registered_name(registry: Registry) -> None:
    register = Register(registry, BETA)
    register.family("path", "pathlib:Path", "any path", accepts=lambda text: "/" in text)
    register("a/name", dict, "a name that looks like a path")
    assert registry.find("some/where").name == "path"
    assert registry.find("a/name").name == "a/name"
    with pytest.raises(HarnessError, match="any path"):
        registry.find("neither")


def test_merging_keeps_names_families_and_collisions(registry: Registry) -> None:
    other = Registry("compressor")
    Register(other, BETA)("lprun", dict, "a second one")
    Register(other, BETA).family("all", dict, "everything else", accepts=lambda _: True)
    registry.merge(other)
    assert [entry.name for entry in registry] == ["lora_ff", "lprun", "lprun"]
    assert len(registry.collisions) == 1
    assert registry.find("anything").name == "all"
