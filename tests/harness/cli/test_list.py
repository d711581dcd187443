"""``harness list`` and the command line itself: light imports and clear errors."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from typer.testing import Result

import harness as package
from harness.cli import main as command_line

Harness = Callable[..., Result]

# Runs commands one after another, and prints the heavy libraries that are imported after each.
IMPORTS = """
import json, sys
from harness.cli.main import app
sys.stdout, out = open("/dev/null", "w"), sys.stdout
imported = {}
for command in sys.argv[1:]:
    app(command.split(), standalone_mode=False)
    heavy = {"torch", "transformers", "datasets", "peft", "numpy"} & sys.modules.keys()
    imported[command] = sorted(heavy)
json.dump(imported, out)
"""
LIGHT = [
    "--help",
    "list",
    "list backbones t5-large",
    "list compressors lora_ff",
    "list compressors lprun",
    "list tasks --json",
    "report --help",
    "run --help",
    "sweep --help",
    "plan --help",
    "prepare --help",
    "stats --help",
]


def test_light_commands_import_nothing_heavy() -> None:
    call = [sys.executable, "-c", IMPORTS, *LIGHT]
    printed = subprocess.run(call, capture_output=True, check=True).stdout
    assert json.loads(printed) == {command: [] for command in LIGHT}


def test_everything_is_listed_with_its_origin(harness: Harness) -> None:
    result = harness("list")
    assert result.exit_code == 0
    for word in (
        "backbones",
        "compressors",
        "tasks",
        "metrics",
        "executors",
        "t5-large",
        "lora_ff",
        "rouge",
    ):
        assert word in result.stdout
    assert "<hub id>" in result.stdout
    assert f"seq2seq-harness {package.__version__}" in result.stdout


def test_one_kind_can_be_listed(harness: Harness) -> None:
    result = harness("list", "compressors")
    assert "lora_ff" in result.stdout
    assert "t5-large" not in result.stdout


def test_a_compressor_is_shown_with_its_options(harness: Harness) -> None:
    lines = harness("list", "compressors", "lora_ff").stdout.splitlines()
    rank = next(line.split() for line in lines if line.startswith("r "))
    assert rank == ["r", "int,", ">=", "1", "16", "Rank", "of", "the", "update."]


def test_a_default_that_could_not_be_seen_is_quoted_and_escaped(harness: Harness) -> None:
    lines = harness("list", "tasks", "samsum").stdout.splitlines()
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert r"  '\n'  " in rows["turn_separator"]
    assert "  ': '  " in rows["speaker_separator"]


def test_json_lists_the_same(harness: Harness) -> None:
    listed = json.loads(harness("list", "--json").stdout)
    names = {kind: [entry["name"] for entry in listed[kind]["names"]] for kind in listed}
    assert {"full", "lora_ff", "lora_qv", "lprun"} <= set(names["compressors"])
    assert "bart-large" in names["backbones"]
    assert "hub id" in [entry["name"] for entry in listed["backbones"]["families"]]

    shown = json.loads(harness("list", "compressors", "lora_ff", "--json").stdout)
    assert shown["origin"] == {"package": "seq2seq-harness", "version": package.__version__}
    rank = {"name": "r", "type": "int, >= 1", "default": "16", "doc": "Rank of the update."}
    assert rank in shown["options"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["list", "compressors", "lora_f"], "Did you mean 'lora_ff'"),
        (["list", "compressor"], "'compressor'"),
        (["lst"], "Did you mean 'list'"),
        (["list", "--jsn"], "--json"),
    ],
)
def test_errors_suggest_the_right_word(
    harness: Harness, arguments: list[str], complaint: str
) -> None:
    result = harness(*arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "Traceback" not in result.output


def test_without_arguments_help_is_shown(harness: Harness) -> None:
    result = harness()
    for word in ("Usage:", "Commands", "run", "report", "list", "plan"):
        assert word in result.output


def test_the_version_is_shown(harness: Harness) -> None:
    assert harness("--version").stdout == f"harness {package.__version__}\n"


def test_an_interrupt_is_one_line(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "installed", interrupted)
    result = harness("list")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")
