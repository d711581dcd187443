"""A frozen encoder's stored outputs: training is the same with them, and computes no encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.costs.plan import plan_recipes
from harness.data.examples import Example, Examples, Tokens
from harness.data.stored_rows import Column, write_rows
from harness.model.composition import compose
from harness.model.contexts import skeleton_context
from harness.model.flops import recipe_flops
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training.build import load_trainer
from harness.training.engine_check import use_padded_batches
from harness.training.engines.packed import PackedEngine
from harness.training.engines.padded import STATES
from harness.training.resolved_run import ResolvedRun, resolve_run
from harness.training.stored_encoder import encoder_storage_notes, with_stored_encoder

EXAMPLES = [
    Example([5, 6, 7, 8, 9, 1], [8, 9, 1]),
    Example([9, 12, 1], [4, 3, 17, 20, 1]),
    Example([31, 30, 29, 28, 1], [11, 1]),
    Example([9, 12, 1], [4, 3, 17, 21, 1]),
]
SPLIT = Examples(Tokens.of([e.source for e in EXAMPLES]), Tokens.of([e.target for e in EXAMPLES]))
DECODER = "freeze:encoder_top=0,top=1"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "encoders"


def make_run(backbone: Backbone, text: str, packing: str = "on", seed: int = 0) -> ResolvedRun:
    values = {"packing": packing, "precision": "float32", "batch_size": 3}
    train = TrainSettings.model_validate(values)
    spec = RunSpec(recipe=text, weights="random", device="cpu", train=train, seed=seed)
    return resolve_run(spec, backbone, installed().recipe(text))


def loss_and_gradient(run: ResolvedRun, *, has_encoder: bool = True) -> tuple[float, float]:
    """Return the loss and the length of the gradient of all examples, without dropout.

    Without an encoder, the model has none that could compute anything.
    """
    trainer = load_trainer(run)
    for module in trainer.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    trainer.model.train()
    if not has_encoder:
        trainer.model.get_encoder().forward = None
    batches = [trainer.engine.collate(EXAMPLES[1:]), trainer.engine.collate(EXAMPLES[:1])]
    loss = trainer.backward(batches, sum(b.target_tokens for b in batches))
    gradients = [p.grad for p in trainer.trained.values() if p.grad is not None]
    return float(loss), float(torch.cat([g.flatten() for g in gradients]).norm())


@pytest.mark.parametrize("packing", ["on", "off"])
def test_stored_outputs_train_as_an_encoder_in_every_step(shallow: Backbone, packing: str) -> None:
    for trained in (DECODER, "lora:targets=decoder.ffn-cross_attn.q+lprun:encoder=1.3,decoder=2"):
        expected = loss_and_gradient(make_run(shallow, trained, packing))
        for dtype, tolerance in (("float32", 1e-5), ("float16", 2e-3)):
            run = make_run(shallow, f"cache_encoder:dtype={dtype}+{trained}", packing)
            stored = with_stored_encoder(run, SPLIT)
            found = loss_and_gradient(stored, has_encoder=False)
            assert found == pytest.approx(expected, rel=tolerance)


def test_a_teacher_in_every_step_reads_the_sources_itself(shallow: Backbone) -> None:
    text = f"distill+{DECODER}+lprun:encoder=2-3,decoder=2"
    expected = loss_and_gradient(make_run(shallow, text))
    run = with_stored_encoder(make_run(shallow, f"cache_encoder:dtype=float32+{text}"), SPLIT)
    assert loss_and_gradient(run) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_padded_batches_that_replace_packed_ones_read_them_too(shallow: Backbone) -> None:
    run = with_stored_encoder(make_run(shallow, f"cache_encoder+{DECODER}", "auto"), SPLIT)
    trainer = load_trainer(run)
    assert isinstance(trainer.engine, PackedEngine)
    use_padded_batches(trainer, trainer.engine, "of a test")
    batch = trainer.engine.collate(EXAMPLES)
    assert batch.tensors[STATES].shape[0] == batch.source_tokens == 17


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cache_encoder", "trained weights"),
        ("cache_encoder+freeze", r"layer"),
        ("cache_encoder+lora_ff", r"lora_A\.lora_ff"),
        ("cache_encoder+lora:targets=encoder.attn-decoder.ffn", r"lora_A\.lora"),
        ("cache_encoder+prompt", r"prompt\."),
        (f"cache_encoder+{DECODER}+distill:hidden=0.1", "distill needs the states"),
    ],
)
@pytest.mark.fast_on("bart")
def test_an_encoder_that_changes_is_refused_by_name(
    shallow: Backbone, text: str, named: str
) -> None:
    recipe = installed().recipe(text)
    for model, context in (
        (shallow.skeleton(), skeleton_context(shallow)),
        (shallow.load("random"), None),
    ):
        with pytest.raises(HarnessError, match=rf"(?s)cache_encoder: .*{named}"):
            compose(model, shallow, recipe, context)


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_a_trained_embedding_that_the_encoder_reads_is_named(shallow: Backbone) -> None:
    with pytest.raises(HarnessError, match=r"shared\.weight"):
        compose(shallow.skeleton(), shallow, installed().recipe("cache_encoder"))


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_what_is_stored_is_shared_where_the_encoders_are_equal(
    shallow: Backbone, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def stored(text: str, split: Examples = SPLIT, seed: int = 0) -> int:
        run = make_run(shallow, f"cache_encoder+{text}", seed=seed)
        with_stored_encoder(run, split, read.append)
        return len(list(cache.iterdir()))

    assert stored(DECODER) == 1
    assert read == [3, 4]
    assert stored("lora:targets=decoder.ffn") == 1
    assert stored(f"{DECODER}+lprun:encoder=all,decoder=2") == 1
    assert read == [3, 4]
    assert stored(f"{DECODER}+lprun:encoder=1-2,decoder=all") == 2
    assert stored(DECODER, seed=1) == 3  # Its random weights are others.
    other = Examples(Tokens.of([e.source[::-1] for e in EXAMPLES]), SPLIT.targets)
    assert stored(DECODER, other) == 4
    monkeypatch.delenv("HARNESS_CACHE")
    with pytest.raises(HarnessError, match="need a folder"):
        encoder_storage_notes(make_run(shallow, f"cache_encoder+{DECODER}"), SPLIT)


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_the_files_are_as_large_as_said_and_private(shallow: Backbone, cache: Path) -> None:
    run = make_run(shallow, f"cache_encoder+{DECODER}")
    (note,) = encoder_storage_notes(run, SPLIT)
    width = shallow.config().hidden_size
    assert f"17 source tokens take {17 * width * 2 / 1e6:.1f} MB" in note
    stored = with_stored_encoder(run, SPLIT)
    (folder,) = cache.iterdir()
    states = np.load(folder / "states.npy", allow_pickle=False)
    assert states.shape == (17, width)
    assert states.dtype == np.float16
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
    with pytest.raises(HarnessError, match="lack an example"):
        load_trainer(stored).engine.collate([Example([4, 1], [1])])
    np.save(folder / "states.npy", states[:0])
    (folder / "counts.json").unlink()
    with pytest.raises(HarnessError, match="cannot be used"):
        with_stored_encoder(run, SPLIT)


def test_outputs_that_were_not_finished_leave_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts() -> Iterator[Any]:
        yield {"states": np.zeros((3, 2), np.float16)}, 1.0
        raise KeyboardInterrupt

    def write(width: int) -> None:
        keys, column = [np.uint64(1), np.uint64(2)], Column("states", width, np.float16)
        write_rows(cache / "some", keys, [3, 4], [column], parts())

    with pytest.raises(KeyboardInterrupt):
        write(2)
    assert not list(cache.iterdir())
    with pytest.raises(HarnessError, match="GB free"):
        write(10**15)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_outputs_that_half_precision_cannot_hold_are_refused(
    shallow: Backbone, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = shallow.load

    def load_loud(weights: Any) -> Any:
        model: Any = load(weights)
        with torch.no_grad():
            model.encoder.final_layer_norm.weight.mul_(1e6)
        return model

    monkeypatch.setattr(shallow, "load", load_loud)
    run = make_run(shallow, f"cache_encoder+{DECODER}")
    with pytest.raises(HarnessError, match="larger than float16 can hold"):
        with_stored_encoder(run, SPLIT)
    assert not list(cache.iterdir())
    assert with_stored_encoder(
        replace(run, recipe=installed().recipe(f"cache_encoder:dtype=float32+{DECODER}")), SPLIT
    ).encoded


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_the_plan_counts_no_encoder_in_a_step(shallow: Backbone) -> None:
    length, target = 20, 7

    def flops(text: str) -> int:
        recipe = installed().recipe(text)
        model = compose(shallow.skeleton(), shallow, recipe, skeleton_context(shallow))
        return recipe_flops(model, shallow, recipe, length, target)

    shape: Any = shallow.config()
    inner = shape.num_heads * shape.d_kv
    projections = 4 * shape.d_model * inner + 2 * shape.d_model * shape.d_ff
    layer = 2 * length * projections + 2 * 2 * length * length * inner
    saved = flops(DECODER) - flops(f"cache_encoder+{DECODER}")
    assert saved == shape.num_layers * layer
    spec = RunSpec(device="cpu", train=TrainSettings(precision="float32"))
    plain, stored = plan_recipes(
        shallow,
        [installed().recipe(text) for text in (DECODER, f"cache_encoder+{DECODER}")],
        spec=spec,
    )
    assert stored.flop_limit_relative_speed > plain.flop_limit_relative_speed
    assert stored.memory
    assert plain.memory
    assert stored.memory.parts.total < plain.memory.parts.total
    assert stored.capabilities.packs
