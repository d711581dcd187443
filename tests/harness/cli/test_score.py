"""``harness score`` on good files, bad files and arbitrary bytes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from harness import HarnessError, Metric
from harness.api.plugins import installed
from harness.cli.main import app
from harness.evaluation.predictions import read_predictions
from tasks.metrics.rouge import rouge

ROWS: list[dict[str, Any]] = [
    {"prediction": "the lungs are clear", "reference": "lungs clear", "id": 7},
    {"prediction": "small effusion is seen today", "reference": "a small effusion is seen today"},
    {"prediction": "", "reference": "normal"},
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["score", *map(str, arguments)])


def complaint(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return result.stderr


def test_json_has_corpus_and_example_values(tmp_path: Path) -> None:
    result = run(write(tmp_path / "p.jsonl", ROWS), "--metrics", "rouge,bleu", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert set(record) == {"corpus", "examples", "not_computed"}
    assert record["not_computed"] == {}
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    assert list(record["corpus"]) == [*names, "bleu", "bleu1_precision", "bleu4_precision"]
    for row, scored in zip(ROWS, record["examples"], strict=True):
        expected = [100 * f for f in rouge(str(row["prediction"]), str(row["reference"]))]
        assert [scored[name] for name in names] == pytest.approx(expected)
    # Unigrams: 2 + 5 matches among 4 + 5 + 0 predicted words.
    assert record["corpus"]["bleu1_precision"] == pytest.approx(100 * 7 / 9)


def test_other_metrics_are_scored_when_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise HarnessError("The weights are not weights.", "Fetch them again.")

    monkeypatch.setattr("tasks.metrics.bleu.Chrf.score", fail)
    path = write(tmp_path / "p.jsonl", ROWS)
    result = run(path, "--metrics", "rouge,chrf")
    assert result.exit_code == 1
    assert "rougeLsum" in result.stdout
    assert result.stderr == "Not computed: chrf. The weights are not weights. Fetch them again.\n"
    message = complaint(path, "--metrics", "chrf")
    assert "chrf cannot be computed.\nThe weights are not weights. Fetch them again." in message


def test_table_shows_intervals_and_signatures(tmp_path: Path) -> None:
    result = run(write(tmp_path / "p.jsonl", ROWS))
    assert result.exit_code == 0, result.output
    assert "3 examples" in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.startswith("rouge1 "))
    value, low, high = (float(word) for word in line.split()[1:] if word != "to")
    assert low < value < high
    assert "rouge1|measure:f1|stemmer:porter" in result.stdout
    assert "chrf|nrefs:1" in result.stdout


def test_every_registered_metric_is_built_without_arguments() -> None:
    metrics = {entry.name: entry.load()() for entry in installed().metrics}
    assert {"rouge", "bleu", "chrf", "bertscore", "summac", "summac_conv"} <= set(metrics)
    names = [name for metric in metrics.values() for name in metric.names]
    assert all(isinstance(metric, Metric) for metric in metrics.values())
    assert len(names) == len(set(names))


def test_one_example_has_no_interval(tmp_path: Path) -> None:
    result = run(write(tmp_path / "p.jsonl", ROWS[:1]), "--metrics", "chrf")
    assert result.exit_code == 0
    assert "one example" in result.stdout


def test_console_script_never_imports_torch_for_rouge(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", ROWS)
    code = (
        "import sys; from harness.cli.main import app;"
        f"app(['score', {str(path)!r}, '--json'], standalone_mode=False);"
        "assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prediction": "a", "reference": "b"', "not JSON"),
        (b'["a", "b"]', "it holds a list instead of an object"),
        (b'"text"', "it holds a str instead of an object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"prediction": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"prediction": "a"}', "the field reference is missing"),
        (b'{"reference": "a", "predicted": "b"}', "the field prediction is missing"),
        (b'{"prediction": 3, "reference": "a"}', "prediction holds 3, which is not text"),
        (b'{"prediction": "a", "reference": null}', "reference holds None"),
        (b'{"prediction": "a", "reference": "b", "source": ["c"]}', "source holds ['c']"),
        (b'{"prediction": "\xff", "reference": "b"}', "not UTF-8"),
        (b'{"prediction": "\\ud800", "reference": "b"}', "half of a surrogate pair"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"prediction": "a", "reference": "b"}\n\n' + line + b"\n")
    error = complaint(path)
    assert message in error
    assert "line 3" in error
    assert len(error) < 600


def test_files_without_predictions_are_errors(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "nothing.jsonl")
    assert "holds no run" in complaint(tmp_path)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n \n")
    assert "holds no predictions" in complaint(empty)


def test_metrics_that_cannot_be_computed_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "p.jsonl", ROWS)
    assert "Did you mean 'rouge'" in complaint(path, "--metrics", "rouge,rogue")
    assert "names no metric" in complaint(path, "--metrics", " ,")
    monkeypatch.setenv("HARNESS_BERTSCORE_MODEL", "nobody/no-such-model")
    assert "hf download nobody/no-such-model" in complaint(path, "--metrics", "bertscore")


def test_a_metric_that_reads_sources_names_the_line_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.metrics.summac.SummaCZeroShot.unavailable", lambda _self: None)
    rows = [{**ROWS[0], "source": "The lungs are clear."}, {**ROWS[1], "source": None}]
    error = complaint(write(tmp_path / "p.jsonl", rows), "--metrics", "summac")
    assert "line 2: summac needs the field source" in error


def test_reads_a_byte_order_mark_and_any_line_end(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"prediction": "a\\nb", "reference": "\xe2\x80\xa8"}\r\n'
        b'{"prediction": "", "reference": "", "source": "s"}'
    )
    first, second = read_predictions(path)
    assert first == (1, "a\nb", "\u2028", None, None)
    assert second == (2, "", "", "s", None)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
near_rows = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("prediction", "reference", "source", "id"), json_values)
).map(json.dumps)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.lists(near_rows, max_size=3).map("\n".join).map(str.encode))
@example(b"\x00")
@example(b'{"prediction": "", "reference": ""}')
def test_any_file_is_read_or_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.jsonl"
    path.write_bytes(content)
    refused = ""
    rows = []
    try:
        rows = read_predictions(path)
    except HarnessError as error:
        refused = error.message
    assert rows or str(path) in refused
    for row in rows:
        references = row.reference if isinstance(row.reference, list) else [row.reference]
        assert all(isinstance(text, str) for text in [row.prediction, *references])


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_any_text_gets_finite_scores(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    rows = [{"prediction": prediction, "reference": reference} for prediction, reference in pairs]
    path = write(tmp_path / "any.jsonl", rows)
    result = run(path, "--json")
    record = json.loads(result.stdout)
    assert record["corpus"]["chrf"] >= 0
    # A metric whose tokenizer drops the text gives a reason that names --metrics.
    assert all("--metrics" in reason for reason in record["not_computed"].values())
    assert result.exit_code == bool(record["not_computed"]), result.output
    assert len(record["examples"]) == len(rows)
    for values in [record["corpus"], *record["examples"]]:
        assert all(math.isfinite(value) and 0 <= value <= 100.001 for value in values.values())
    assert run(path).exit_code == result.exit_code
