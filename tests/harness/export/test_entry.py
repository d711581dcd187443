"""Exports of every family and recipe: stock libraries alone predict what the run predicted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from safetensors import safe_open

import harness
from harness import HarnessError, folder_hash
from harness.export.check import LOGITS_LIMIT, count_equal
from harness.export.manifest import Form, Manifest, read_manifest

MakeRun = Callable[..., Path]

FAMILIES = ["t5", "gated-t5", "bart"]
MERGED_ONLY = ["full", "lprun"]
PATTERNS = "lora_qv:r=4,alpha=8+lora_ff:r=2"
BOTH = ["lora_ff+lprun", PATTERNS, "lora_qv", "lora_ff", "lora_qv+lora_ff", "lora_ff:bias=false"]
PAPER = "lora_ff:paper_compat=true+lprun"


def manifest_of(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest
    return manifest


def stored(run: Path, field: str = "prediction") -> list[str]:
    lines = (run / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line)[field] for line in lines]


def predict_as_the_card_says(folder: Path, run: Path) -> list[str]:
    """Execute the program of the model card, in a process in which the harness cannot be imported.

    Only its text and its last line, which prints the predictions, are replaced.
    """
    match = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert match
    program = match[1].replace("FOLDER", str(folder))
    assert '["Your text."]' in program
    program = program.replace('["Your text."]', repr(stored(run, "source")))
    program = re.sub(r"print\((.*)\)\n$", r"import json; print(json.dumps(\1))\n", program)
    block = (
        "import sys\nfor name in ('harness', 'compressors', 'tasks'): sys.modules[name] = None\n"
    )
    process = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", block + program],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return [text.strip() for text in json.loads(process.stdout)]


def check_forms(
    make_run: MakeRun,
    tmp_path: Path,
    family: str,
    recipe: str,
    record: Callable[[str, str], None],
    forms: Sequence[Form] = ("merged", "adapter"),
) -> None:
    """Export each form; ``benchmarks/exports.py`` reads the records."""
    run = make_run(family, recipe)
    for form in forms:
        folder = harness.export_run(run, tmp_path / form, form=form)
        check = manifest_of(folder).check
        equal = count_equal(predict_as_the_card_says(folder, run), stored(run))
        difference = check.largest_difference / check.limit * LOGITS_LIMIT
        record("row", f"| {family} | `{recipe}` | {form} | {difference:.1e} | {equal} of 20 |")
        assert check.equal_predictions == check.equal_to_stored == equal == 20
        assert difference <= LOGITS_LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [*MERGED_ONLY, *BOTH])
@pytest.mark.parametrize("family", FAMILIES)
def test_another_process_predicts_the_same(
    make_run: MakeRun,
    tmp_path: Path,
    family: str,
    recipe: str,
    record_property: Callable[[str, str], None],
) -> None:
    forms: list[Form] = ["merged"] if recipe in MERGED_ONLY else ["merged", "adapter"]
    check_forms(make_run, tmp_path, family, recipe, record_property, forms)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_biases_that_the_paper_counts(
    make_run: MakeRun,
    tmp_path: Path,
    family: str,
    record_property: Callable[[str, str], None],
) -> None:
    forms: list[Form] = ["merged", "adapter"] if family == "bart" else ["adapter"]
    check_forms(make_run, tmp_path, family, PAPER, record_property, forms)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "gated-t5"])
def test_added_biases_of_t5_are_in_the_adapter_alone(
    make_run: MakeRun, tmp_path: Path, family: str
) -> None:
    run = make_run(family, PAPER)
    with pytest.raises(HarnessError, match=r"cannot be merged[^\n]*bias[^\n]*\n.*--adapter"):
        harness.export_run(run, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    folder = harness.export_run(run, tmp_path / "adapter", form="adapter")
    assert json.loads((folder / "adapter_config.json").read_text())["lora_bias"] is True
    assert predict_as_the_card_says(folder, run) == stored(run)


@pytest.mark.parametrize("recipe", MERGED_ONLY)
def test_a_recipe_without_an_adapter_says_so(
    make_run: MakeRun, tmp_path: Path, recipe: str
) -> None:
    with pytest.raises(HarnessError, match=r"no adapter[^\n]*\n.*--merged"):
        harness.export_run(make_run("bart", recipe), tmp_path / "out", form="adapter")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("fresh_checks")
def test_a_real_run_is_exported(finished_run: harness.StoredRun, tmp_path: Path) -> None:
    folder = harness.export_run(finished_run.folder, tmp_path / "out")
    check = manifest_of(folder).check
    assert check.stored_must_equal
    assert check.equal_to_stored == check.examples > 0
    assert "0.00 to 0.00" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_a_merged_export_is_a_stock_folder(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("t5", "lora_ff+lprun")
    folder, again = (harness.export_run(run, tmp_path / name) for name in ("one", "two"))
    assert folder_hash(folder) == folder_hash(again)
    assert predict_as_the_card_says(folder, run) == stored(run)
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_layers"], config["num_decoder_layers"]) == (6, 5)
    search = json.loads((folder / "generation_config.json").read_text())
    chosen = {"num_beams": 2, "max_new_tokens": 8, "no_repeat_ngram_size": 3, "length_penalty": 0.5}
    assert chosen.items() <= search.items()
    assert search["decoder_start_token_id"] == search["pad_token_id"] == 0
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        names = set(tensors.keys())
    assert "shared.weight" in names
    assert not {"lm_head.weight", "encoder.embed_tokens.weight"} & names
    assert {path.name for path in tmp_path.iterdir()} == {"one", "two"}


@pytest.mark.slow
def test_an_adapter_is_the_same_every_time(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("bart", PATTERNS)
    folder, again = (
        harness.export_run(run, tmp_path / name, form="adapter") for name in ("one", "two")
    )
    assert folder_hash(folder) == folder_hash(again)
    assert predict_as_the_card_says(folder, run) == stored(run)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert {config["r"], *config["rank_pattern"].values()} == {2, 4}


def test_a_wrong_merge_leaves_no_folder(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressors.lora import Lora

    merge = Lora.merge

    def wrong(self: Lora, model: object) -> object:
        merged = merge(self, model)
        merged.get_submodule("model.decoder.layers.0.fc1").weight.data *= 1.1
        return merged

    monkeypatch.setattr(Lora, "merge", wrong)
    with pytest.raises(HarnessError, match="logits differ by up to"):
        harness.export_run(make_run("bart", "lora_ff+lprun"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def replace_first_prediction(run: Path) -> None:
    path = run / "predictions.jsonl"
    first, *others = path.read_text().splitlines(keepends=True)
    first = json.dumps({**json.loads(first), "prediction": "Another text."}) + "\n"
    path.write_text(first + "".join(others))


def test_a_prediction_that_the_model_does_not_make_leaves_no_folder(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("bart", "lora_ff", results=tmp_path / "runs")
    replace_first_prediction(run)
    with pytest.raises(HarnessError, match="19 of 20 predictions are those that the run stored"):
        harness.export_run(run, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


@pytest.mark.slow
def test_a_run_decoded_in_bfloat16_reports_the_agreement(make_run: MakeRun, tmp_path: Path) -> None:
    decoding = "beam_search|beams:2|max_new_tokens:8|no_repeat_ngram:3|bfloat16"
    run = make_run("bart", "lora_ff", results=tmp_path / "runs", decoding=decoding)
    replace_first_prediction(run)
    check = manifest_of(harness.export_run(run, tmp_path / "out")).check
    assert not check.stored_must_equal
    assert (check.equal_predictions, check.equal_to_stored) == (20, 19)


def test_bfloat16_is_compared_by_log_probabilities(make_run: MakeRun, tmp_path: Path) -> None:
    folder = harness.export_run(make_run("t5", "full"), tmp_path / "out", dtype="bfloat16")
    manifest = manifest_of(folder)
    assert (manifest.dtype, manifest.check.compared) == ("bfloat16", "log-probabilities")
    assert manifest.check.mean_difference
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_an_unsafe_type_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="overflow in float16"):
        harness.export_run(make_run("t5", "full"), tmp_path / "out", dtype="float16")


def test_nothing_but_an_export_is_overwritten(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("t5", "full")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("All my work.")
    with pytest.raises(HarnessError, match=r"exists already[^\n]*\n.*--overwrite"):
        harness.export_run(run, tmp_path / "out")
    with pytest.raises(HarnessError, match="is not an export"):
        harness.export_run(run, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "thesis.tex").exists()


@pytest.mark.slow
def test_the_card_holds_numbers_and_no_texts(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("bart", "full", results=tmp_path, not_computed={"bleu": "it is missing"})
    card = (harness.export_run(run, tmp_path / "out") / "README.md").read_text()
    assert "`summarize: `" in card
    assert "BLEU: it is missing" in card
    assert "| R-1 | 41.25 | 39.75 to 42.75 |" in card
    assert "ab" * 32 in card
    assert "There is a" not in card
    folder = harness.export_run(run, tmp_path / "out", overwrite=True, examples_in_card=True)
    assert (folder / "README.md").read_text().count("- Source: There is a") == 3
