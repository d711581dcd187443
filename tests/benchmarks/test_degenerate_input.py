"""Each benchmark fails if its input lacks what makes the work realistic."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

Import = Callable[[str], ModuleType]


def fails(reason: str) -> Any:
    return pytest.raises(SystemExit, match=f"degenerate: .*{reason}")


# Prediction: decoding.py


def test_decoding_needs_several_batches_of_unequal_sources(module: Import) -> None:
    decoding = module("decoding")
    decoding.check_sources([[1] * n for n in (5, 20, 60)], batch=2)
    with fails("one batch"):
        decoding.check_sources([[1] * n for n in (5, 60)], batch=2)
    with fails("of much the same length"):
        decoding.check_sources([[1] * 20] * 3, batch=2)


def test_the_sources_of_decoding_pass_its_check(module: Import) -> None:
    decoding = module("decoding")
    decoding.check_sources(decoding._sources(16, 1000, 1), batch=8)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({"peer": ["5", "6"], "ours": ["5", "6"]}, "generates 1.0 of at most 40"),
        ({"peer": ["5 6 7 8"] * 2, "ours": ["5 6 7 8"] * 2}, "the same for all sources"),
        ({"peer": ["5 6 7 8", "6 5 7 8"], "ours": ["6 5 7 8", "5 6 7 8"]}, "finds 0 outputs of 2"),
    ],
)
def test_decoding_needs_a_full_search_with_equal_results(
    module: Import, texts: dict[str, list[str]], reason: str
) -> None:
    with fails(reason):
        module("decoding").check_outputs(texts, "peer", "ours", longest=40)


def test_the_peer_of_decoding_sorts_by_length_and_keeps_the_order(module: Import) -> None:
    import torch

    decoding = module("decoding")
    widths = []

    class Model:
        generation_config = SimpleNamespace(pad_token_id=0)

        def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
            widths.append(input_ids.shape[1])
            return input_ids[:, :1]

    sources = [[n] * n for n in (5, 50, 6, 60)]
    settings = decoding.DecodingSettings(batch_size=2)
    assert decoding._transformers(Model(), sources, settings, torch.float32) == [
        "5",
        "50",
        "6",
        "60",
    ]
    assert widths == [60, 6]


# Growth: growth.py


def test_growth_needs_texts_that_differ_and_a_wide_range(module: Import) -> None:
    growth = module("growth")
    growth.check_texts(growth.make_texts(200))
    with fails("texts are equal"):
        growth.check_texts(["a b", "a b"])
    with fails("of much the same length"):
        growth.check_texts(["a b", "a c"])
    with fails("hardly grows"):
        growth.check_axis("layers", [{"at": 2}, {"at": 4}], least=8)
    with fails("memory does not grow with layers"):
        growth.check_axis("layers", [{"at": 2, "bytes": 9}, {"at": 16, "bytes": 9}], least=8)
    with fails("only 100 are left"):
        growth.check_batch(100, growth.TARGET, growth.Point(source=128, batch=1))


# Planned beside measured memory: prediction.py


def test_memory_estimates_need_steps_that_take_more_than_weights(module: Import) -> None:
    prediction = module("prediction")
    prediction.check_step("full", peak=300, held=100)
    with fails("a step of full needs 1.10 of what it begins with"):
        prediction.check_step("full", peak=110, held=100)
    with fails("all recipes need the same memory"):
        prediction.check_recipes({"full": 300, "lora_ff": 301})


# Two profiles: intervals.py


def cell(**changes: Any) -> dict[str, Any]:
    return {"first": 1.2, "second": 1.21, "interval": [1.1, 1.3], "noise_floor": 1.02, **changes}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"interval": [0.5, 3.0]}, "hold anything"),
        ({"noise_floor": 2.0}, "hold anything"),
        ({"second": 1.2}, "the first one's numbers"),
        ({"first": 1.0}, "equally fast"),
    ],
)
def test_intervals_that_hold_anything_are_refused(
    module: Import, changes: dict[str, Any], reason: str
) -> None:
    check = module("intervals").check_cells
    full = cell(first=1.0, second=1.01)
    check({"full": full, "lora_ff": cell()})
    others = {"full": {**full, "second": 1.0}} if "second" in changes else {"full": full}
    with fails(reason):
        check({**others, "lora_ff": cell(**changes)})


# Killed and undisturbed: resume.py


def run(folder: Path, name: str, text: str = "one\n", steps: int = 9, status: str = "ok") -> Any:
    (folder / name).mkdir()
    (folder / name / "predictions.jsonl").write_text(text)
    (folder / name / "history.jsonl").write_text("{}\n" * steps)
    return SimpleNamespace(folder=folder / name, report=SimpleNamespace(id=name, status=status))


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"status": "failed", "text": "two\n"}, "1 runs failed"),
        ({"text": "one\n"}, "predict nothing, or the same"),
        ({"text": ""}, "predict nothing, or the same"),
        ({"text": "two\n", "steps": 2}, "too few to be killed"),
    ],
)
def test_a_sweep_with_nothing_to_compare_is_refused(
    module: Import,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    second: dict[str, Any],
    reason: str,
) -> None:
    resume = module("resume")
    good = run(tmp_path, "a")
    monkeypatch.setattr(resume, "PREDICTIONS", "predictions.jsonl")
    monkeypatch.setattr(resume, "HISTORY", "history.jsonl")
    monkeypatch.setattr(resume, "stored", lambda _: [good, run(tmp_path, "b", text="two\n")])
    resume.check_calm(tmp_path)
    monkeypatch.setattr(resume, "stored", lambda _: [good, run(tmp_path, "c", **second)])
    with fails(reason):
        resume.check_calm(tmp_path)


def test_a_sweep_is_not_killed_before_there_is_something_to_lose(
    module: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killing = module("killing")
    monkeypatch.setattr(killing, "PATIENCE", 0.1)
    with fails("nothing to lose in the phase train"):
        killing.Killer("train", tmp_path, after=0)("run: train")


# ROUGE: rouge.py


def test_rouge_needs_long_texts_that_share_words_and_equal_scores(
    module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    rouge = module("rouge")
    pairs = rouge.make_pairs(20)
    rouge.check_texts(pairs)
    rouge.check_scores(pairs[:5], rouge.RougeScorer(list(rouge.Rouge.names), use_stemmer=True))
    with fails("texts are short"):
        rouge.check_texts([("a b", "a c")])
    with fails("of much the same length"):
        rouge.check_texts([("a " * 50, "b " * 50)])
    with fails("share 0% of their words"):
        rouge.check_texts([("a " * 90, "b " * 40)])
    with fails("share 100% of their words"):
        rouge.check_texts([("a " * 90, "a " * 40)])
    with fails("no word is found by its stem alone"):
        rouge.check_scores(pairs[:5], rouge.RougeScorer(list(rouge.Rouge.names)))
    monkeypatch.setattr(rouge, "rouge", lambda prediction, reference: (0.5,) * 4)
    with fails("scores differ"):
        rouge.check_scores(pairs[:5], rouge.RougeScorer(list(rouge.Rouge.names), use_stemmer=True))


# Kernels of a step: launches.py


def test_a_step_without_one_of_its_parts_is_not_counted(module: Import) -> None:
    check = module("launch_counter").check_step
    whole = {
        "mm": 9,
        "_scaled_dot_product_flash_attention": 2,
        "native_layer_norm_backward": 3,
        "_foreach_norm": 1,
        "_fused_adamw_": 1,
    }
    check(whole, [5, 50])
    with fails("no kernel of the optimizer"):
        check({name: n for name, n in whole.items() if name != "_fused_adamw_"}, [5, 50])
    with fails("of much the same length"):
        check(whole, [50, 50])


# Reports of many runs: reports.py


def write_run(folder: Path, name: str, lengths: list[int]) -> None:
    (folder / name).mkdir()
    rows = [{"prediction": f"{name} " * n} for n in lengths]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name / "predictions.jsonl").write_text(text)


def test_reports_need_predictions_of_unequal_lengths_in_every_run(
    module: Import, tmp_path: Path
) -> None:
    reports = module("reports")
    shape = SimpleNamespace(runs=2, examples=3)
    write_run(tmp_path, "a", [2, 5, 9])
    with fails("1 runs predicted"):
        reports.check_input(tmp_path, shape)
    write_run(tmp_path, "b", [2, 5, 9])
    reports.check_input(tmp_path, shape)
    with fails("not every run has 4 predictions"):
        reports.check_input(tmp_path, SimpleNamespace(runs=2, examples=4))
    for name in ("a", "b"):
        (tmp_path / name / "predictions.jsonl").unlink()
        (tmp_path / name).rmdir()
        write_run(tmp_path, name, [5, 5, 5])
    with fails("of much the same length"):
        reports.check_input(tmp_path, shape)


def test_the_first_report_must_find_no_comparisons(module: Import, tmp_path: Path) -> None:
    reports = module("reports")
    (tmp_path / reports.CACHE).mkdir(parents=True)
    with fails("before call 0 comparisons are kept: True"):
        next(reports.time_calls(tmp_path, 1))


# Light commands: startup.py


def test_a_command_that_fails_or_shows_nothing_is_not_timed(module: Import) -> None:
    import sys

    startup = module("startup")
    with fails("failed: .*no such thing"):
        startup.call([sys.executable, "-c", "raise SystemExit('no such thing')"])
    with fails("shows 1 lines"):
        startup.check_shown("list", "nothing\n")
    with fails("no byte code of antigravity_is_no_module"):
        startup.check_byte_code("antigravity_is_no_module")
    wall, processor, shown = startup.call([sys.executable, "-c", "print(sum(range(10**6)))"])
    assert (wall > 0, processor > 0, shown) == (True, True, "499999500000\n")


# Notes: notes.py


def test_notes_are_as_long_as_real_ones_and_all_different(module: Import) -> None:
    notes = module("notes")
    notes.check_notes(notes.make_notes(50))
    with fails("shorter than real ones"):
        notes.check_notes(["FINDINGS: a"])
    with fails("of much the same length"):
        notes.check_notes(["a " * 200, "b " * 200])
    with fails("notes are equal"):
        notes.check_notes(["a " * 200, "a " * 200, "a " * 900])


def test_all_prepared_notes_are_stored_with_hashes(module: Import, tmp_path: Path) -> None:
    from harness import Preparation
    from tasks.mimic.task import Radiology

    notes = module("notes")
    texts = notes.make_notes(300)
    notes.write_notes(tmp_path / "a.csv.gz", texts)
    Radiology.prepare(Preparation(tmp_path / "out", tmp_path / "a.csv.gz"))
    notes.check_examples(tmp_path / "out", 300)
    with fails("examples are made of 900 notes"):
        notes.check_examples(tmp_path / "out", 900)
    equal = [text for text in texts if "IMPRESSION" in text][:1] * 99 + ["no headings"]
    notes.write_notes(tmp_path / "b.csv.gz", equal)
    Radiology.prepare(Preparation(tmp_path / "same", tmp_path / "b.csv.gz"))
    with pytest.raises(SystemExit, match="degenerate"):
        notes.check_examples(tmp_path / "same", 100)
