"""Modules in the current folder with the names of the harness's packages are never imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.spec.run_spec import RunSpec
from harness.sweeps.executor import Event, Job, Local, LocalOptions

STARTS = {
    "console script": [str(Path(sys.executable).with_name("harness"))],
    "module": [sys.executable, "-m", "harness"],
}


def call(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("path", [None, ":/nowhere"], ids=["", "empty entry in PYTHONPATH"])
@pytest.mark.parametrize("start", STARTS)
def test_the_built_ins_are_found_in_a_folder_with_modules_of_their_names(
    strangers: Path, start: str, path: str | None
) -> None:
    environment = {"PYTHONPATH": path + f":{os.environ.get('PYTHONPATH', '')}"} if path else {}
    done = call([*STARTS[start], "list", "--json"], strangers, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    listed = json.loads(done.stdout)
    for kind, name in {"tasks": "radiology_demo", "compressors": "lora_ff"}.items():
        assert name in [entry["name"] for entry in listed[kind]["names"]]


def test_a_module_named_like_a_library_is_not_imported_either(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise RuntimeError")
    done = call([*STARTS["module"], "--version"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sweeps_worker_finds_the_built_ins(
    strangers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(strangers)
    events: list[Event] = []
    job = Job(spec=RunSpec(metrics=["beauty"]), results=tmp_path)
    ending = Local(LocalOptions()).run(job, events.append)
    assert ending.code == 0, ending.stderr_tail
    assert "Unknown metric 'beauty'" in events[-1]["message"]


def test_a_module_that_was_imported_before_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("")
    script = "import tasks, harness.api.plugins; harness.api.plugins.installed()"
    done = call([sys.executable, "-c", script], tmp_path)
    assert done.returncode == 1
    assert f"{str(tmp_path / 'tasks.py')!r} hides the harness's own package 'tasks'" in done.stderr


def test_a_built_in_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    """A harness without its tasks would not report that they are missing."""
    script = (
        "import sys\n"
        "sys.modules['harness.data.references'] = None  # As if its file were gone.\n"
        "from harness.cli.main import app\n"
        "app(['list'])\n"
    )
    done = call([sys.executable, "-c", script], tmp_path)
    assert done.returncode == 2
    assert "own plugin 'harness-tasks' cannot be loaded from 'tasks'" in done.stderr
    assert "Traceback" not in done.stderr
