"""The functions of ``import harness``: in a script, and in a real notebook kernel."""

from __future__ import annotations

import multiprocessing
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import harness
from harness import HarnessError

FUNCTIONS = (
    *("run", "sweep", "plan", "profile", "score", "load_report", "load_reports"),
    *("recommend", "search", "stats", "prepare", "storage", "push"),
)


def test_no_room_is_called_like_a_function() -> None:
    rooms = {module.name for module in pkgutil.iter_modules(harness.__path__)}
    assert "cli" in rooms
    assert rooms.isdisjoint(FUNCTIONS)


@pytest.mark.slow
def test_no_module_takes_the_place_of_a_function() -> None:
    code = f"""
import importlib, pkgutil, harness
for module in pkgutil.walk_packages(harness.__path__, "harness."):
    if module.name != "harness.__main__":
        importlib.import_module(module.name)
for name in {FUNCTIONS}:
    function = getattr(harness, name)
    assert callable(function) and function.__name__ == name, (name, function)
assert harness.plan("nano-t5", "lprun")[0].recipe == "lprun"
assert harness.score(["a cat"], ["a cat"], metrics="rouge").computed["rouge1"].value == 100
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_documents_its_arguments_and_shows_an_example(name: str) -> None:
    function = getattr(harness, name)
    text = function.__doc__
    for part in ("Args:", "Returns:", "Raises:", "Example:"):
        assert part in text
    parameters = function.__code__.co_varnames[
        : function.__code__.co_argcount + function.__code__.co_kwonlyargcount
    ]
    assert [name for name in parameters if f"        {name}: " not in text] == []


def test_a_mistyped_name_is_an_error_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="nano-t6"):
        harness.run("nano-t6", results=tmp_path / "results")
    with pytest.raises(HarnessError, match="batch_sise"):
        harness.run(settings={"train.batch_sise": 2}, results=tmp_path / "results")
    assert not list(tmp_path.iterdir())


def test_a_script_without_a_main_guard_is_told_to_have_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(HarnessError, match="__main__"):
        harness.run()


def test_scores_of_lists_are_those_of_files(tmp_path: Path) -> None:
    predictions, references = ["a cat sat", "no dog"], ["the cat sat", "a dog"]
    for name, texts in (("predictions", predictions), ("references", references)):
        (tmp_path / f"{name}.txt").write_text("".join(f"{text}\n" for text in texts))
    of_lists = harness.score(predictions, references, metrics=["rouge", "chrf"])
    of_files = harness.score(
        tmp_path / "predictions.txt", tmp_path / "references.txt", metrics="rouge,chrf"
    )
    assert of_lists.example_count == of_files.example_count == 2
    for name, score in of_lists.computed.items():
        assert score.examples == of_files.computed[name].examples
    assert "rouge1" in of_lists._repr_html_()


@pytest.mark.parametrize(
    ("predictions", "references"),
    [(["one"], ["one", "two"]), ([], []), (["one"], None), (["one"], "file.txt")],
)
def test_texts_that_do_not_belong_together_are_an_error(predictions: Any, references: Any) -> None:
    with pytest.raises(HarnessError, match="predictions"):
        harness.score(predictions, references)


def test_a_file_is_not_scored_with_a_list(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="two files or two lists"):
        harness.score(tmp_path / "predictions.txt", ["one"])


def test_plans_are_for_the_batches_that_are_named() -> None:
    settings = {"train.batch_size": 2, "train": {"accumulation": 2}}
    short, long = (
        harness.plan("nano-t5", ["full"], source_tokens=n, target_tokens=8, settings=settings)[0]
        for n in (8, 64)
    )
    assert short.memory
    assert long.memory
    assert short.memory.batch_size == 2
    assert short.memory.source_tokens == 2 * 2 * 8
    assert short.memory.peak_bytes < long.memory.peak_bytes


def test_own_data_need_a_task() -> None:
    with pytest.raises(HarnessError, match="needs a task"):
        harness.plan("nano-t5", "full", data="own")
    with pytest.raises(HarnessError, match="Unknown choice of data 'mine'"):
        harness.plan("nano-t5", "full", data="mine")


@pytest.mark.slow
def test_a_real_kernel_runs_sweeps_and_shows_reports(
    tmp_path: Path, tiny_settings: dict[str, object]
) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    cells = [
        f"import harness\nSETTINGS = {tiny_settings!r}",
        "run = harness.run(settings=SETTINGS)\nrun",
        "sweep = harness.sweep(seeds=2, settings=SETTINGS)\nsweep",
        "assert [run.report.status for run in sweep.reports] == ['ok', 'ok']",
        "frame = harness.load_reports().to_pandas()\n"
        "assert frame['quality.rouge1.value'].notna().all()\nframe",
        "profile = harness.profile('nano-t5', ['lprun'], settings={'train.batch_size': 2, "
        "'probe.steps': 1, 'probe.rounds': 2})\nassert profile.recipes[0].status == 'ok'",
        "harness.load_report(run.folder)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    shown = [
        "".join(str(output.get("data", output.get("text", ""))) for output in cell.outputs)
        for cell in notebook.cells
    ]
    # A bar for each phase, and the report as a table.
    for word in ("probe speed", "train", "evaluate", "<table>", "trained parameters"):
        assert word in shown[1]
    assert "lora_ff+lprun" in shown[2]
    assert "<table>" in shown[2]
    assert "2 rows" in shown[4]
    assert "peak memory" in shown[6]
    errors = [out for cell in notebook.cells for out in cell.outputs if out.output_type == "error"]
    assert not errors
