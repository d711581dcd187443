"""The study of all methods: what is run, what counts as finished, and what is kept of it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness import HarnessError
from harness.api.plugins import installed

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
Import = Callable[[str], ModuleType]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Import:
    """Return a function that imports a module of the study."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: importlib.import_module(f"study.{name}")


def test_every_method_is_studied_once_and_the_baseline_first(study: Import) -> None:
    plugins = installed()
    recipes = study("recipes").recipes(plugins)
    assert recipes[0] == "full"
    assert len(recipes) == len(set(recipes))
    names = {part.partition(":")[0] for recipe in recipes for part in recipe.split("+")}
    own = {e.name for e in plugins.compressors if e.origin.package == "seq2seq-harness"}
    assert names == own - {"lprun", "distill", "cache_encoder"}
    assert "int8+lora_ff" in recipes
    assert [str(plugins.recipe(recipe)) for recipe in recipes] == recipes
    assert study("recipes").pruned("full", plugins) == "lprun"
    assert study("recipes").pruned("ia3", plugins) == "ia3+lprun"


def test_the_rates_begin_with_the_documented_one(study: Import) -> None:
    rates = study("size").rates
    assert rates("full", installed()) == [5e-5, 5e-4, 5e-3]
    assert rates("lora_ff", installed()) == [1e-4, 1e-3, 1e-2]
    assert rates("ia3", installed())[0] == 3e-3


def test_runs_of_different_rates_are_compared_and_trials_are_not_mixed_in(study: Import) -> None:
    size = study("size")
    one, other = (size.cell("full", rate, 0, size.Size()) for rate in (1e-3, 1e-2))
    assert one.settings_digest() == other.settings_digest()
    assert one.digest() != other.digest()
    assert size.trial("full", 1e-3, size.Size()).settings_digest() != one.settings_digest()


def test_a_cell_is_known_by_settings_data_and_code(study: Import) -> None:
    size, store = study("size"), study("store")

    def key(code: str = "code", data: str = "data", **changes: Any) -> str:
        keys = store.Keys(code)
        keys._data.update({("radiology_demo", seed): data for seed in range(3)})
        values = {"recipe": "ia3", "rate": 1e-2, "seed": 0, "size": size.Size(), **changes}
        found: str = keys.of(size.cell(**values))
        return found

    others = [
        key("other code"),
        key(data="other data"),
        key(seed=1),
        key(rate=2e-2),
        key(size=size.Size(steps=9)),
        key(recipe="bitfit"),
    ]
    assert len({key(), *others}) == 1 + len(others)
    assert key() == key()


def test_only_code_that_decides_a_result_is_part_of_a_cell(study: Import, tmp_path: Path) -> None:
    store = study("store")
    files = [
        "compressors/lora.py",
        "harness/backbones/t5.py",
        "harness/cli/run.py",
        "harness/data/arrow.py",
        "harness/data/calibration.py",
        "harness/data/examples.py",
        "harness/evaluation/decoding.py",
        "harness/export/card.py",
        "harness/model/flops.py",
        "harness/reporting/table.py",
        "harness/testing/many.py",
        "harness/training/loop.py",
        "harness/training/parallel/sharding.py",
        "tasks/metrics/rouge.py",
    ]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    before = store.training_code(tmp_path)

    def changes(name: str) -> bool:
        (tmp_path / name).write_text("2")
        changed: bool = store.training_code(tmp_path) != before
        (tmp_path / name).write_text("1")
        return changed

    assert [name for name in files if not changes(name)] == [
        "harness/cli/run.py",
        "harness/data/arrow.py",
        "harness/export/card.py",
        "harness/reporting/table.py",
        "harness/testing/many.py",
        "harness/training/parallel/sharding.py",
    ]
    assert store.training_code(tmp_path) == before
    assert len(store.training_code()) == 16


def finished(folder: Path, name: str, seed: int = 0) -> Path:
    run = folder / ".work" / name
    run.mkdir(parents=True)
    (run / "report.json").write_text(json.dumps({"recipe": "ia3", "seed": seed}))
    (run / "spec.toml").write_text("seed = 0\n")
    row = {"id": "t1", "source": "Secret", "reference": "Secret", "prediction": "Secret"}
    (run / "predictions.jsonl").write_text(json.dumps({**row, "scores": {"rouge1": 4.5}}) + "\n")
    (run / "weights.safetensors").write_bytes(b"0" * 77)
    (run / "history.jsonl").write_text("{}\n")
    return run


def test_texts_and_weights_of_a_finished_cell_are_not_kept(study: Import, tmp_path: Path) -> None:
    store = study("store").Store(tmp_path, "code")
    place = store.add(finished(tmp_path, "run"), "key")
    assert store.done() == {"key"}
    assert {path.name for path in place.iterdir()} == {
        "report.json",
        "scores.jsonl",
        "spec.toml",
        "study.json",
    }
    assert "Secret" not in "".join(path.read_text() for path in place.iterdir())
    assert json.loads((place / "scores.jsonl").read_text()) == {
        "id": "t1",
        "scores": {"rouge1": 4.5},
    }
    assert store.records()["run"]["trained_bytes"] == 77
    assert not (tmp_path / ".work" / "run").exists()


def test_a_newer_cell_replaces_that_of_older_code(study: Import, tmp_path: Path) -> None:
    store = study("store").Store(tmp_path, "code")
    store.add(finished(tmp_path, "old"), "old")
    store.add(finished(tmp_path, "other", seed=1), "other")
    store.add(finished(tmp_path, "new"), "new")
    assert store.done() == {"new", "other"}
    assert not (tmp_path / "old").exists()


def test_the_rate_with_the_lowest_loss_is_chosen(study: Import, tmp_path: Path) -> None:
    runner = study("runner").Runner(
        installed(),
        study("store").Store(tmp_path, "code"),
        study("studies").METHODS,
        study("size").Size(),
        "local",
        ["ia3"],
    )
    runner._keys._data["radiology_demo", 0] = "data"
    assert runner.rate("ia3") is None
    losses = [3.0, 1.0, None]
    trials = {
        runner._keys.of(spec): {"learning_rate": spec.train.tuned_learning_rate, "loss": loss}
        for spec, loss in zip(runner._trials("ia3"), losses, strict=True)
    }
    runner.store.write("rates.json", trials)
    assert runner.rate("ia3") == pytest.approx(3e-2)


def test_the_loss_is_that_of_the_last_third_of_steps(study: Import, tmp_path: Path) -> None:
    events = [*({"step": n, "loss": float(n)} for n in range(1, 8)), {"event": "evaluated"}]
    (tmp_path / "history.jsonl").write_text("".join(f"{json.dumps(e)}\n" for e in events))
    assert study("runner").last_loss(tmp_path) == 6.5


@pytest.mark.slow
def test_a_study_is_run_once_and_written_down(
    study: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner_module, store_module, page = study("runner"), study("store"), study("page")
    size = study("size").Size(seeds=2, steps=2, rate_steps=1, test_examples=4)
    store = store_module.Store(tmp_path / "results", store_module.training_code())
    lines: list[str] = []

    def run() -> None:
        methods = study("studies").METHODS
        runner_module.Runner(
            installed(), store, methods, size, "local:jobs=2", ["full", "ia3"], lines.append
        ).run()
        page.write(store, tmp_path, methods.planned(["full", "ia3"], 3, installed()))

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run()
    assert len(store.done()) == 8
    assert len([line for line in lines if line.startswith("ok: ")]) == 6 + 8
    assert lines[-1] == "14 runs have ended, of about 14"
    text = (tmp_path / "study.md").read_text()
    for recipe in ("full", "lprun", "ia3", "ia3+lprun"):
        assert f"| `{recipe}` |" in text
    assert "4 of 12 runs are missing" in text
    assert (tmp_path / "study.svg").read_text().startswith("<svg")
    before = {path: path.read_bytes() for path in store.folder.glob("*/*")}

    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr("harness.sweeps.executor.Local.run", never)
    run()
    assert {path: path.read_bytes() for path in store.folder.glob("*/*")} == before


def test_a_study_without_cells_has_no_page(study: Import, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no finished runs"):
        study("page").write(study("store").Store(tmp_path, "code"), tmp_path, [])
