"""Exports for CTranslate2: every family, pruned unequally, loaded without the harness."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from harness import HarnessError, folder_hash
from harness.evaluation.ctranslate import require_settings
from harness.export.manifest import Manifest, read_manifest
from harness.export.translator import LIMITS
from harness.generation.converted_model import ConvertedTextModel
from harness.generation.loading import load_text_model
from harness.spec.decoding import DecodingSettings

pytest.importorskip("ctranslate2")

MakeRun = Callable[..., Path]


def manifest_of(folder: Path) -> Manifest:
    manifest = read_manifest(folder)
    assert manifest
    return manifest


def export(run: Path, out: Path, quantization: str | None = None) -> Path:
    return harness.export_run(run, out, form="ctranslate2", quantization=quantization)


@pytest.mark.parametrize("family", ["t5", "gated-t5", "bart"])
def test_a_pruned_model_computes_the_same_in_float32(
    make_run: MakeRun, tmp_path: Path, family: str
) -> None:
    run = make_run(family, "lora_ff+lprun:encoder=1-4.7,decoder=1.6")
    folder = export(run, tmp_path / "out")
    manifest = manifest_of(folder)
    assert manifest.form == "ctranslate2"
    assert manifest.dtype == "float32"
    assert manifest.check.compared == "log-probabilities"
    assert manifest.check.largest_difference < 1e-3
    assert manifest.check.equal_predictions >= 0.8 * manifest.check.examples
    assert "ctranslate2" in manifest.check.libraries


def test_the_export_is_a_text_model_with_the_measured_use(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("t5", "lora_ff+lprun")
    folder = export(run, tmp_path / "out")
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    settings = {"beams": 1}
    with load_text_model(str(folder), settings=settings) as model:
        assert isinstance(model, ConvertedTextModel)
        assert model.usage.prefix == manifest_of(folder).prefix
        ids, truncated = model.encode([row["source"] for row in rows])
        assert truncated
        predictions = model.predict(ids)
        with pytest.raises(HarnessError, match="no adapters"):
            model.predict(ids, adapter="other")
    with load_text_model(str(run), decoder="ctranslate2", settings=settings) as converted:
        assert converted.predict(ids) == predictions
    with load_text_model(str(run), settings=settings) as own:
        same = sum(a == b for a, b in zip(own.predict(ids), predictions, strict=True))
    assert same >= 0.8 * len(rows)
    texts = [row["source"] for row in rows]
    assert harness.generate(str(folder), texts, settings=settings) == predictions


def test_two_exports_are_equal_byte_for_byte(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("t5", "lora_ff+lprun")
    first, second = (export(run, tmp_path / name, "int8") for name in ("first", "second"))
    assert folder_hash(first) == folder_hash(second)
    assert manifest_of(first).dtype == "int8"
    assert (first / "model.bin").stat().st_size < 0.6 * 4 * 2**20


def test_what_ctranslate2_cannot_hold_is_an_error(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("t5", "lora_ff+lprun")
    with pytest.raises(HarnessError, match="no quantization 'int3'") as raised:
        export(run, tmp_path / "out", "int3")
    assert all(name in str(raised.value) for name in LIMITS)
    paper = make_run("t5", "lora_ff:paper_compat=true+lprun")
    with pytest.raises(HarnessError, match="cannot be merged"):
        export(paper, tmp_path / "out")
    with pytest.raises(HarnessError, match="early_stopping=never"):
        require_settings(DecodingSettings(early_stopping="never"))
    with pytest.raises(HarnessError, match="no adapters"):
        load_text_model(str(run), decoder="ctranslate2", adapters={"other": tmp_path})
    assert not (tmp_path / "out").exists()


def test_a_check_that_falls_short_leaves_no_folder(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("t5", "lora_ff+lprun")
    exact = LIMITS["int8"]._replace(token=1e-9)
    monkeypatch.setitem(LIMITS, "int8", exact)
    with pytest.raises(HarnessError, match="log-probabilities differ by up to"):
        export(run, tmp_path / "out", "int8")
    assert not list(tmp_path.glob("*out*"))


def test_quantizations_are_those_of_the_library() -> None:
    import ctranslate2

    names = ctranslate2.get_supported_compute_types("cpu")
    assert {"float32", "int8", "int8_float32"} <= set(names) <= set(LIMITS)
