"""``harness export``, and the export of ``harness recommend``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import Result

from harness.records.run_choice import best_of

if TYPE_CHECKING:
    from harness.records.run_folder import StoredRun

Harness = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("forked_checks")


def test_it_prints_files_and_the_check(
    finished_run: StoredRun, harness: Harness, tmp_path: Path
) -> None:
    command = ["export", str(finished_run.folder), "--out", str(tmp_path / "out")]
    result = harness(*command)
    assert result.exit_code == 0, result.output
    assert "model.safetensors" in result.stdout
    assert "equal predictions" in result.stdout
    again = harness(*command)
    assert again.exit_code == 2
    assert "exists already" in again.output


def test_json_holds_the_manifest(finished_run: StoredRun, harness: Harness, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = harness(
        "export", str(finished_run.folder), "--out", str(folder), "--adapter", "--json"
    )
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["manifest"]["form"] == "adapter"
    assert printed["manifest"] == json.loads((folder / "harness.json").read_text())
    sizes = {name: (folder / name).stat().st_size for name in printed["files"]}
    assert printed["files"] == sizes


def test_one_form_is_chosen(harness: Harness, tmp_path: Path) -> None:
    result = harness("export", "RUN", "--out", str(tmp_path / "out"), "--merged", "--adapter")
    assert result.exit_code == 2
    assert "Several forms were chosen: --merged, --adapter" in result.output


@pytest.mark.parametrize("option", [["--base", "b"], ["--rebuild"], ["--quantization", "int8"]])
def test_an_option_of_another_form_is_refused(
    finished_run: StoredRun, harness: Harness, tmp_path: Path, option: list[str]
) -> None:
    folder = str(tmp_path / "out")
    result = harness("export", str(finished_run.folder), "--out", folder, *option)
    assert result.exit_code == 2
    assert "belong" in result.output


def test_recommend_exports_the_best_seed_of_its_choice(
    write_run: Callable[..., Path],
    make_report: Callable[..., Any],
    harness: Harness,
    tmp_path: Path,
) -> None:
    training = make_report().model_dump()["training"]
    results = tmp_path / "results"
    for seed, value in enumerate([30.0, 50.0, 40.0]):
        for recipe in ("full", "lora_ff"):
            chosen = {**training, "best_metric": "rouge1", "best_value": value}
            write_run(
                results, {"rouge1": [40.0, 41, 42]}, recipe=recipe, seed=seed, training=chosen
            )
    folders = sorted(results.glob("*lora_ff*"))
    assert best_of(folders).name.endswith("-1")
    result = harness("recommend", str(results), "--export", str(tmp_path / "out"))
    # These runs have numbers alone, so that the export ends where it reads the settings.
    assert result.exit_code == 2, result.output
    chosen_recipe = json.loads(harness("recommend", str(results), "--json").stdout)[0]["chosen"]
    assert f"tiny-{chosen_recipe}-notes-1/spec.toml" in result.output.replace("\n", "")
    assert not (tmp_path / "out").exists()
