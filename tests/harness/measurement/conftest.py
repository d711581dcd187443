"""Compressors of known cost, installed where measured processes find them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import T5Config

from harness.api.plugins import installed
from harness.data.examples import Example
from harness.spec.run_spec import RunSpec
from harness.training.schedule import Schedule

ENTRY_POINTS = "[harness]\nknown-costs = known_costs\n"
METADATA = "Metadata-Version: 2.1\nName: known-costs\nVersion: 1.0\n"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package known-costs, laid out as an installer leaves it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).with_name("known_costs.py"), folder)
    information = folder / "known_costs-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(METADATA)
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.fixture
def known_costs(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fresh processes, which inherit the search path, discover the package."""
    installed()  # This process has discovered its plugins before, so it does not see these.
    monkeypatch.syspath_prepend(site)


@pytest.fixture(scope="session")
def make_spec(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunSpec]:
    """Build specs of a recipe on a model whose own training step takes a few milliseconds."""
    folder = tmp_path_factory.mktemp("backbones") / "tiny"
    T5Config(
        vocab_size=48,
        d_model=8,
        d_kv=4,
        d_ff=8,
        num_heads=2,
        num_layers=1,
        decoder_start_token_id=0,
    ).save_pretrained(folder)

    def make(recipe: str, **probe: Any) -> RunSpec:
        train = {"precision": "float32", "engine": "padded"}
        return RunSpec.model_validate(
            {
                "backbone": str(folder),
                "recipe": recipe,
                "weights": "random",
                "device": "cpu",
                "train": train,
                "probe": {"warmup_steps": 1, "steps": 1, "rounds": 2, **probe},
            }
        )

    return make


@pytest.fixture(scope="session")
def schedule() -> Schedule:
    """Steps of four examples, 10 tokens each: 7 of the source, 3 that carry loss."""
    examples = [Example([6 + n, 8, 8, 9, 9, 9, 1], [n, 7, 1]) for n in range(3, 35)]
    return Schedule(examples, batch_size=4, accumulation=1, seed=0)
