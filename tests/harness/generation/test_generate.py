"""Runs, folders and adapters predict what transformers predicts, from the command and Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

import harness as api
from harness import HarnessError
from harness.records.run_folder import PREDICTIONS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Harness = Callable[..., Result]
SHORT = ["--beams", "2", "--max-new-tokens", "6", "--device", "cpu", "--precision", "float32"]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def library(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    **settings: Any,
) -> list[str]:
    """Return the predictions of transformers, one at a time."""
    model.eval()
    texts_out = []
    for text in texts:
        ids = model.generate(**tokenizer(text, return_tensors="pt"), **settings)
        texts_out.append(tokenizer.decode(ids[0], skip_special_tokens=True).strip())
    return texts_out


@pytest.fixture(scope="module")
def adapters(tiny_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of random weights for the tiny T5."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import T5ForConditionalGeneration

    folders = {}
    for seed, name in enumerate(("news", "notes")):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules=["q", "v", "wo"], init_lora_weights=False)
        model = get_peft_model(T5ForConditionalGeneration.from_pretrained(tiny_t5), config)
        folders[name] = tmp_path_factory.mktemp("adapters") / name
        model.save_pretrained(folders[name])
    return folders


def test_a_run_predicts_what_it_stored(finished_run: Any, tmp_path: Path, harness: Harness) -> None:
    rows = read(finished_run.folder / PREDICTIONS)
    source = tmp_path / "in.jsonl"
    source.write_text(
        "".join(json.dumps({k: row[k] for k in ("id", "source")}) + "\n" for row in rows)
    )
    out = tmp_path / "out.jsonl"
    result = harness(
        "generate", str(finished_run.folder), str(source), "--out", str(out), "--device", "cpu"
    )
    assert result.exit_code == 0, result.output
    assert "predicted tokens/s" in result.output
    assert [(row["id"], row["prediction"]) for row in read(out)] == [
        (row["id"], row["prediction"]) for row in rows
    ]
    assert len({row["prediction"] for row in rows}) > 1
    texts = [row["source"] for row in rows]
    assert api.generate(finished_run.folder, texts, device="cpu") == [r["prediction"] for r in rows]


def test_a_loaded_run_is_a_plain_model_with_the_measured_search(finished_run: Any) -> None:
    rows = read(finished_run.folder / PREDICTIONS)
    loaded = api.load(finished_run.folder)
    assert not loaded.model.training
    assert not any("lora" in name for name, _ in loaded.model.named_modules())
    assert (loaded.model.generation_config.num_beams, loaded.tokenizer.model_max_length) == (2, 512)
    sources = [loaded.prefix + row["source"] for row in rows]
    assert library(loaded.model, loaded.tokenizer, sources) == [row["prediction"] for row in rows]


def test_each_adapter_predicts_what_peft_predicts(
    tiny_t5: Path, adapters: dict[str, Path], tmp_path: Path, harness: Harness
) -> None:
    from peft import PeftModel
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    texts = [f"The {word} is clear." for word in ("lung", "liver", "left kidney", "spleen")]
    names = ["news", "", "notes", "news"]
    source = tmp_path / "in.csv"
    lines = [f"{text},{name}\n" for text, name in zip(texts, names, strict=True)]
    source.write_text("text,task\n" + "".join(lines))
    given = [
        word for name, folder in adapters.items() for word in ("--adapter", f"{name}={folder}")
    ]
    out = tmp_path / "out.jsonl"
    command = ["generate", str(tiny_t5), str(source), "--out", str(out), *SHORT]
    result = harness(*command, *given, "--adapter-column", "task")
    assert result.exit_code == 0, result.output
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5)
    expected = []
    for text, name in zip(texts, names, strict=True):
        model = T5ForConditionalGeneration.from_pretrained(tiny_t5)
        if name:
            model = PeftModel.from_pretrained(model, adapters[name]).merge_and_unload()
        expected += library(model, tokenizer, [text], num_beams=2, max_new_tokens=6)
    assert [row["prediction"] for row in read(out)] == expected
    assert len(set(expected)) > 1
    single = api.generate(
        tiny_t5,
        texts[2:3],
        beams=2,
        max_new_tokens=6,
        adapters={"x": adapters["notes"]},
        device="cpu",
    )
    assert single == expected[2:3]


def test_options_of_adapters_that_do_not_fit_are_errors(
    tiny_t5: Path, adapters: dict[str, Path], tmp_path: Path, harness: Harness
) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text,task\na,b\n")
    command = ["generate", str(tiny_t5), str(source), "--out", str(tmp_path / "out.csv"), *SHORT]
    given = [
        word for name, folder in adapters.items() for word in ("--adapter", f"{name}={folder}")
    ]
    for words, message in [
        (given, "--adapter-column NAME"),
        (["--adapter-column", "task"], "--adapter NAME=FOLDER"),
        (["--adapter", "news"], "cannot be read"),
        ([*given[:2], *given[:2]], "two adapters 'news'"),
        (["--adapter", f"x={tiny_t5}"], "adapter_config.json"),
        (["--set", "batch_size=4"], "--batch-tokens"),
        (["--set", "temperature=4"], "no option 'temperature'"),
        (["--input-format", "excel"], "Formats: jsonl"),
    ]:
        result = harness(*command, *words)
        assert result.exit_code == 2, (words, result.output)
        assert message in result.output
        assert "Traceback" not in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"in.csv"}


def test_an_adapter_of_another_base_is_an_error(
    adapters: dict[str, Path], tmp_path: Path, harness: Harness
) -> None:
    source = tmp_path / "in.txt"
    source.write_text("a\n")
    words = ["--out", str(tmp_path / "out.txt"), "--adapter", f"news={adapters['news']}"]
    result = harness("generate", "nano-t5", str(source), *words, *SHORT)
    assert result.exit_code == 2
    assert "The adapter 'news'" in result.output
    assert "does not fit the model" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out.txt").exists()


def test_texts_flow_from_standard_input_to_standard_output(tiny_t5: Path) -> None:
    from harness.cli.main import app

    texts = ["the lung is clear", "", "a nodule"]
    expected = api.generate(
        tiny_t5, texts, beams=2, max_new_tokens=6, device="cpu", precision="float32"
    )
    assert isinstance(expected, list)
    assert expected[1] == ""
    command = ["generate", str(tiny_t5), "-", "--out", "-", *SHORT]
    lines = "".join(text + "\n" for text in texts)
    result = CliRunner().invoke(app, command, input=lines)
    assert result.stdout.split("\n") == [*expected, ""]
    assert "3 records in" in result.stderr
    rows = "".join(json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(texts))
    result = CliRunner().invoke(app, command, input=rows + "{secret\n")
    assert result.exit_code == 1
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"text": text, "n": n, "prediction": prediction}
        for n, (text, prediction) in enumerate(zip(texts, expected, strict=True))
    ]
    assert "Line 4: not JSON" in result.stderr
    assert "secret" not in result.stderr
    result = CliRunner().invoke(app, [*command, "--output-format", "parquet"], input=rows)
    assert result.exit_code == 2
    assert "cannot be written to the standard output" in result.stderr


def test_counts_are_printed_as_json(tiny_t5: Path, tmp_path: Path, harness: Harness) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"source": "one two three"}\n{"source": ""}\n{"source": 1}\n')
    command = ["generate", str(tiny_t5), str(source), "--out", str(tmp_path / "out.jsonl"), *SHORT]
    result = harness(*command, "--json", "--max-source-length", "3")
    assert result.exit_code == 1
    counts = json.loads(result.stdout)
    assert (counts["records"], counts["errors"], counts["blank"], counts["truncated"]) == (
        3,
        1,
        1,
        1,
    )
    assert counts["source_tokens"] == 3
    assert counts["prediction_tokens"] > 0
    assert counts["errors_file"] == str(tmp_path / "out.jsonl.errors.jsonl")


def test_a_list_with_an_output_or_a_file_without_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="no output is given"):
        api.generate("nano-t5", tmp_path / "in.jsonl")
    with pytest.raises(HarnessError, match="are a list"):
        api.generate("nano-t5", ["a"], tmp_path / "out.jsonl")


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def batches_done(work: Path) -> tuple[int, int]:
    """Return the windows that are done, and the batches of the present one."""
    try:
        windows = json.loads((work / "progress.json").read_text())["windows"]
        return windows, sum(p.read_bytes().count(b"\n") for p in work.glob("window-*.jsonl"))
    except (FileNotFoundError, ValueError):
        return 0, 0


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_process_that_is_killed_again_and_again_loses_and_doubles_no_line(
    tiny_t5: Path, tmp_path: Path, harness: Harness, suffix: str
) -> None:
    source = tmp_path / "in.jsonl"
    rows = [{"n": n, "text": f"case {n} " + "word " * (n * 7 % 23)} for n in range(300)]
    lines = [json.dumps(row) + "\n" for row in rows]
    source.write_text("".join([*lines[:100], "{bad\n", *lines[100:]]))
    options = [*SHORT, "--window", "64", "--batch-tokens", "150"]
    whole = tmp_path / f"whole.{suffix}"
    assert (
        harness("generate", str(tiny_t5), str(source), "--out", str(whole), *options).exit_code == 1
    )
    cut = tmp_path / f"cut.{suffix}"
    command = ["generate", str(tiny_t5), str(source), "--out", str(cut), *options]
    work = tmp_path / f".cut.{suffix}.partial"
    kills = 0
    for _ in range(4):
        before = batches_done(work)
        process = start(command)
        while process.poll() is None and batches_done(work) <= before:
            time.sleep(0.002)
        process.kill()
        kills += process.wait() != 1
        if cut.exists():
            break
    assert kills >= 3
    assert not cut.exists()
    assert start(command).wait() == 1
    assert cut.read_bytes() == whole.read_bytes()
    errors = [path.with_name(f"{path.name}.errors.jsonl") for path in (cut, whole)]
    assert errors[0].read_bytes() == errors[1].read_bytes()
    assert not work.exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(tiny_t5: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    with source.open("w") as file:
        for n in range(20_000):
            file.write(json.dumps({"source": f"case {n % 977}", "more": "x" * 2000}) + "\n")
    # Peaks are compared with peaks: memory rises and falls within each batch.
    program = """
import sys, harness
from harness.measurement.memory import reset_peak, resident
starts, peaks = [4_000, 12_000], []
def on_progress(status):
    if starts and status.records >= starts[0]:
        starts.pop(0)
        peaks.append(resident("VmHWM"))
        reset_peak()
harness.generate(*sys.argv[1:], beams=1, max_new_tokens=1, window=512, device="cpu",
                 on_progress=on_progress)
print(resident("VmHWM") - peaks[1])
"""
    out = tmp_path / "out.jsonl"
    words = [sys.executable, "-c", program, str(tiny_t5), str(source), str(out)]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert sum(1 for _ in out.open()) == 20_000
    # The last 8,000 records have 16 MB of text; in Python they would need more.
    assert int(result.stdout.splitlines()[-1]) < 8 * 2**20
