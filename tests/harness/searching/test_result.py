"""Result of a search: its commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from harness.api.file_plugins import add_file
from harness.api.plugin_files import PluginFile
from harness.api.plugins import installed
from harness.searching.budget import Budget
from harness.searching.candidates import Candidate, eval_metric
from harness.searching.result import command_of
from harness.searching.runs import Runs
from harness.spec.run_spec import parse_settings, resolve
from harness.sweeps.executor import open_executor
from harness.training.learning_rate import peak_learning_rate

TEXT = """
from harness import Compressor, Stage, hookimpl


class Nothing(Compressor):
    \"\"\"Changes nothing.\"\"\"

    stage = Stage.ADAPTER

    def apply(self, model, backbone, context):
        return model


@hookimpl
def register_compressors(register):
    register("nothing", Nothing, "change nothing")
"""


@pytest.mark.usefixtures("forget_plugins")
def test_the_command_of_a_candidate_works_in_another_process(
    tmp_path: Path, harness: Callable[..., Result]
) -> None:
    file = tmp_path / "my method" / "nothing.py"
    file.parent.mkdir()
    file.write_text(TEXT)
    installed.cache_clear()
    plugins = installed()
    add_file(plugins, PluginFile.read(file))
    given = parse_settings(["train.max_steps=3", "preset=paper"])
    base = resolve({"device": "cpu", "train": {"max_steps": 3}}, "paper")
    executor = open_executor("local", plugins)
    runs = Runs(
        base, plugins, tmp_path, executor, eval_metric(base, plugins), Budget(tmp_path, 9), None
    )
    documented = peak_learning_rate(base.train, plugins.recipe("lora_ff+nothing"))
    words = shlex.split(command_of(Candidate("lora_ff+nothing", 1), runs, given))
    assert words[:2] == ["harness", "run"]
    assert words[words.index("--plugin") + 1] == str(file)
    installed.cache_clear()
    # A process that has not seen the file yet finds the recipe by the command's words.
    at = words.index("--plugin")
    listed = harness("list", "compressors", "nothing", *words[at : at + 2])
    assert listed.exit_code == 0, listed.output
    assert "change nothing" in listed.output
    rate = next(word for word in words if word.startswith("train.tuned_learning_rate="))
    assert float(rate.partition("=")[2]) == documented * 2
    installed.cache_clear()
