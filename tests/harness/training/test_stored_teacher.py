"""A teacher that reads the examples once: what is stored, and that training is the same with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import harness
from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.data.examples import Example, Examples, Tokens
from harness.data.top_logits import read_top_logits, stored_bytes, write_top_logits
from harness.spec.run_spec import RunSpec
from harness.spec.setting_groups import TrainSettings
from harness.training import stored_teacher
from harness.training.build import load_trainer
from harness.training.resolved_run import ResolvedRun, resolve_run
from harness.training.stored_teacher import storage_notes, with_stored_teacher

EXAMPLES = [
    Example([5, 6, 7, 8, 9, 1], [8, 9, 1]),
    Example([9, 12, 1], [4, 3, 17, 20, 1]),
    Example([31, 30, 29, 28, 1], [11, 1]),
    Example([9, 12, 1], [4, 3, 17, 20, 1]),
]
SPLIT = Examples(Tokens.of([e.source for e in EXAMPLES]), Tokens.of([e.target for e in EXAMPLES]))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "teachers"


def make_run(backbone: Backbone, text: str, packing: str = "on") -> ResolvedRun:
    values = {"packing": packing, "precision": "float32", "batch_size": 3}
    train = TrainSettings.model_validate(values)
    spec = RunSpec(recipe=text, weights="random", device="cpu", train=train)
    return resolve_run(spec, backbone, installed().recipe(text))


def loss_and_gradient(run: ResolvedRun) -> tuple[float, float]:
    trainer = load_trainer(run)
    for module in trainer.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    trainer.model.train()
    batches = [trainer.engine.collate(EXAMPLES[:3]), trainer.engine.collate(EXAMPLES[3:])]
    loss = trainer.backward(batches, sum(b.target_tokens for b in batches))
    gradients = [p.grad for p in trainer.trained.values() if p.grad is not None]
    assert (trainer.objective.teacher is None) == (run.taught is not None)
    return float(loss), float(torch.cat([g.flatten() for g in gradients]).norm())


@pytest.mark.parametrize("packing", ["on", "off"])
def test_all_logits_stored_train_as_a_teacher_in_every_step(
    backbone: Backbone, packing: str
) -> None:
    options = "weight=0.7,temperature=1.5"
    live = make_run(backbone, f"distill:{options}+lprun", packing)
    stored = make_run(backbone, f"distill:{options},cache=48+lprun", packing)
    expected = loss_and_gradient(live)
    actual = loss_and_gradient(with_stored_teacher(stored, SPLIT))
    assert actual == pytest.approx(expected, rel=2e-4)


def test_the_most_likely_tokens_of_each_position_are_stored(backbone: Backbone) -> None:
    run = with_stored_teacher(make_run(backbone, "distill:cache=3"), SPLIT)
    assert run.taught
    torch.manual_seed(0)
    teacher: Any = backbone.load("random").eval()
    chosen = [EXAMPLES[2], EXAMPLES[1]]
    ids, logits = run.taught.rows(chosen)
    expected = []
    for example in chosen:
        with torch.no_grad():
            output = teacher(
                input_ids=torch.tensor([example.source]), labels=torch.tensor([example.target])
            )
        expected.append(output.logits[0].topk(3))
    assert np.array_equal(ids, torch.cat([top.indices for top in expected]).numpy())
    values = torch.cat([top.values - top.values[:, :1] for top in expected])
    torch.testing.assert_close(torch.tensor(logits).float(), values, rtol=1e-3, atol=1e-5)
    with pytest.raises(HarnessError, match="lack an example"):
        run.taught.rows([Example([5, 1], [8, 9, 1])])


def test_a_teacher_reads_the_examples_once(
    backbone: Backbone, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(backbone, "distill:cache=3")
    read: list[int] = []
    first = with_stored_teacher(run, SPLIT, read.append)
    again = with_stored_teacher(run, SPLIT, read.append)
    assert read == [3, 4]
    assert first.taught
    assert again.taught
    assert np.array_equal(first.taught.logits, again.taught.logits)
    assert first.taught.seconds == again.taught.seconds > 0
    turned = Examples(SPLIT.sources, Tokens.of([e.target[::-1] for e in EXAMPLES]))
    with_stored_teacher(run, turned)
    with_stored_teacher(make_run(backbone, "distill:cache=4"), SPLIT)
    assert len(list(cache.iterdir())) == 3
    monkeypatch.delenv("HARNESS_CACHE")
    with pytest.raises(HarnessError, match="need a folder"):
        storage_notes(run, SPLIT)


def test_the_size_is_said_before(backbone: Backbone, cache: Path) -> None:
    run = make_run(backbone, "distill:cache=16")
    assert "15 target tokens" in storage_notes(run, SPLIT)[0]
    with_stored_teacher(run, SPLIT)
    (folder,) = cache.iterdir()
    tables = sum((folder / name).stat().st_size - 128 for name in ("ids.npy", "logits.npy"))
    assert tables == stored_bytes(15, 16)


def test_logits_that_were_not_finished_leave_nothing(cache: Path) -> None:
    def parts() -> Iterator[Any]:
        yield np.zeros((3, 2), np.int32), np.zeros((3, 2), np.float16), 1.0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_top_logits(cache / "some", EXAMPLES, 2, parts())
    assert not list(cache.iterdir())
    (cache / "some").mkdir()
    with pytest.raises(HarnessError, match="cannot be used"):
        read_top_logits(cache / "some")


def test_states_cannot_be_stored() -> None:
    with pytest.raises(HarnessError, match="leave out cache"):
        installed().recipe("distill:cache=8,hidden=0.5")


@pytest.mark.slow
def test_runs_that_compute_or_read_the_logits_are_equal(
    notes: Path, tiny_settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> harness.StoredRun:
        recipe = "distill:cache=8+lora_ff+lprun"
        place = tmp_path / name
        made = harness.run(
            "nano-t5", recipe, str(notes), settings=tiny_settings, results=place, progress=False
        )
        assert made.report.status == "ok", made.report.failure
        return made

    first = run("first")
    monkeypatch.setattr(stored_teacher, "_computed", None)
    second = run("second")
    for name in ("weights.safetensors", "history.jsonl", "predictions.jsonl"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name
    assert first.report.teacher_seconds == second.report.teacher_seconds > 0
    assert first.report.memory
    assert first.report.memory.parts
    assert first.report.memory.parts.teacher == 0
