"""Targets that a teacher predicts: what is stored, and a training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness import Backbone, HarnessError
from harness.api.plugins import installed
from harness.data.examples import Example, Examples, Tokens
from harness.evaluation.teacher_targets import target_notes, taught_examples
from harness.spec.run_spec import RunSpec
from harness.training.build import load_trainer
from harness.training.resolved_run import ResolvedRun, resolve_run

EXAMPLES = [
    Example([5, 6, 7, 8, 9, 1], [8, 9, 1]),
    Example([9, 12, 1], [4, 3, 17, 20, 1]),
    Example([31, 30, 29, 28, 1], [11, 1]),
]
SPLIT = Examples(Tokens.of([e.source for e in EXAMPLES]), Tokens.of([e.target for e in EXAMPLES]))
LONGEST = 5


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "predictions"


def make_run(backbone: Backbone, text: str, **decoding: Any) -> ResolvedRun:
    spec = RunSpec.model_validate(
        {
            "recipe": text,
            "weights": "random",
            "device": "cpu",
            "train": {"precision": "float32"},
            "test": {"no_repeat_ngram": 2, "batch_size": 2, **decoding},
        }
    )
    return resolve_run(spec, backbone, installed().recipe(text))


def test_the_targets_are_what_transformers_predicts(backbone: Backbone) -> None:
    run = make_run(backbone, "distill:targets=teacher,beams=3,weight=0+lprun")
    taught = taught_examples(run, SPLIT)
    assert taught
    torch.manual_seed(0)
    teacher: Any = backbone.load("random").eval()
    end = teacher.config.eos_token_id
    for example, found in zip(EXAMPLES, taught.examples, strict=True):
        row: list[int] = teacher.generate(
            input_ids=torch.tensor([example.source]),
            num_beams=3,
            max_new_tokens=LONGEST,
            no_repeat_ngram_size=2,
            do_sample=False,
        )[0].tolist()
        predicted = row[1:]
        if end in predicted:
            expected = predicted[: predicted.index(end) + 1]
        else:
            expected = [*predicted[: LONGEST - 1], end]
        assert found == Example(example.source, expected)


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_a_teacher_predicts_each_source_once(
    backbone: Backbone, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def folders(text: str, split: Examples = SPLIT, **decoding: Any) -> int:
        run = make_run(backbone, f"distill:targets=teacher{text}", **decoding)
        assert "3 sources with" in target_notes(run, split)[0]
        assert taught_examples(run, split, read.append)
        return len(list(cache.iterdir()))

    assert folders("") == 1
    assert read == [3]
    turned = Examples(SPLIT.sources, Tokens.of([e.target[::-1] for e in EXAMPLES]))
    assert folders(",weight=0+lora_ff", turned, batch_size=1) == 1
    assert read == [3]
    assert folders(",beams=2") == 2
    assert folders("", length_penalty=0.5) == 3
    assert folders("", Examples(turned.targets, SPLIT.targets)) == 4
    (file, counts) = sorted(next(iter(cache.iterdir())).iterdir(), reverse=True)
    assert {f.stat().st_mode & 0o777 for f in (file, counts)} == {0o600}
    monkeypatch.delenv("HARNESS_CACHE")
    with pytest.raises(HarnessError, match="need a folder"):
        target_notes(make_run(backbone, "distill:targets=teacher"), SPLIT)


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_predictions_that_were_not_finished_leave_nothing(backbone: Backbone, cache: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    run = make_run(backbone, "distill:targets=teacher")
    with pytest.raises(KeyboardInterrupt):
        taught_examples(run, SPLIT, stop)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("backbone", ["t5"], indirect=True)
def test_targets_alone_need_no_teacher_in_the_steps(backbone: Backbone) -> None:
    trainer = load_trainer(make_run(backbone, "distill:targets=teacher,weight=0"))
    assert trainer.objective.teacher is None
    batch = trainer.engine.collate(EXAMPLES)
    trainer.model.eval()
    with torch.no_grad():
        loss = trainer.objective.loss_sum(trainer.model, batch)
        assert float(loss) == pytest.approx(float(trainer.engine.loss_sum(trainer.model, batch)))
    assert load_trainer(make_run(backbone, "distill:targets=teacher")).objective.teacher


@pytest.mark.parametrize("options", ["weight=0", "weight=0,targets=teacher,cache=4"])
def test_a_teacher_that_teaches_nothing_is_refused(options: str) -> None:
    with pytest.raises(HarnessError, match="give targets=teacher"):
        installed().recipe(f"distill:{options}")
