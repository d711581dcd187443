"""Every command and snippet of the pages works, or fails with an error that says what is missing.

A run is interrupted when its first measurement begins. By then it has found its settings, data,
metrics, trackers and weights. The slow test runs it to its end.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import Result

from harness import hookimpl
from harness.api.events import PhaseStarted
from harness.api.options import validate
from harness.api.parts import read_part
from harness.api.plugins import installed
from harness.cli.main import app
from harness.costs.estimate_process import MemoryEstimator, RunMemory
from harness.spec.run_spec import RunSpec, parse_settings, resolve
from harness.sweeps.grid import SweepFile, specs
from harness.training.schedule import Step

Harness = Callable[..., Result]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

KINDS = {
    "shell": r"(harness|make|pip|export|ray|torchrun|accelerate) ",
    "report": r"\S+ on \S+, [\d,]+ test examples\n",
    "preview": r"\S+ on \S+ +steps +time +GiB\n",
    "toml": r"\[|\w+ = ",
    "python": r"from |import |class |def |@|\"\"\"",
    "folder": r"\w+/\n",
    "picture": r"\w+ +[A-Za-z ]+\n\w+ +[A-Za-z ]+\n",
}
"""Kind of a block -> pattern of its first words."""

NEEDS = {
    r"prepare .*--notes (\S+)": r"{0}",
    r"--task hcm .*task_options\.path=(\S+)": r"{0}",
    r"task_options\.hub=(\S+)": r"{0}",
    r"--metrics .*\b(bertscore)\b": r"{0}.*HARNESS_BERTSCORE_MODEL|The data of hcm",
    r"--metrics .*\b(summac)\b": r"{0}.*HARNESS_SUMMAC_NLI",
    r"^harness run .*--task (hcm|mimic_\w+)$": r"The data of {0} were not found",
    r"(?:--task|stats|score) (notes\.csv|FOLDER|out\.csv|hypotheses\.txt)": r"{0}",
    r"--task (samsum)$": r"{0} is not available",
    r"--task hub:(\S+)": r"{0} is not available",
    r"sweep (paper/\w+)": r"backbone '\S+' is not on this machine|data of \S+ were not found",
    r"sweep --watch --out (\w+)": r"There are no jobs of Slurm in '{0}'",
    r"^harness generate (results/RUN)\b": r"{0}|notes\.jsonl",
    r"^harness serve results/(RUN)\b": r"'results/\S+' .*weights|{0}",
    r"^harness serve .*=(exports/\w+)\b": r"exports/",
    r"^harness push (\S+)": r"{0}",
    r"^harness storage (\S+)": r"No files can be measured in {0}|no results folder '{0}'",
    r"^harness export (results/RUN)\b": r"{0}",
    r"^harness diagnose (results/\w+)\b": r"{0}",
    r"^harness export (results) --seed best": r"several recipes|{0}",
    r"teacher=(results/RUN)\b": r"{0}",
    r"check (my_method)": r"'{0}'",
    r"--plugin \./(my_method\.py)": r"{0}",
    # Plugins of the package of examples, which is not installed here.
    r"\b(biases|influence|sparsity|distillation|thinning)\b": r"'{0}'",
    r"distill:cache=": r"HARNESS_CACHE",
    r"^harness run .*cache_encoder": r"HARNESS_CACHE",
    r"^harness run .*--backbone (t5-11b)": r"{0}' is not on this machine",
    r"\b(commit_messages|wer|pegasus:[\w/-]+)\b": r"'{0}'",
    r"\b(srun)\b": r"'{0}'",
}
"""Pattern of a command -> pattern of its error, which names what is missing here."""


@dataclass(frozen=True)
class Block:
    """An indented block of a page."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def kind(self) -> str | None:
        return next((kind for kind, start in KINDS.items() if re.match(start, self.text)), None)

    @property
    def commands(self) -> list[str]:
        lines = self.text.replace("\\\n", " ").splitlines()
        return [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]


def read_blocks(page: Path) -> Iterator[Block]:
    lines = ["", *page.read_text().splitlines(), "end"]
    start = None
    for number, line in enumerate(lines):
        if line.startswith("    "):
            if start is None and not lines[number - 1]:
                start = number
        elif line and start is not None:
            text = textwrap.dedent("\n".join(lines[start:number])).rstrip() + "\n"
            yield Block(page, start, text)
            start = None


BLOCKS = [block for page in PAGES for block in read_blocks(page)]
COMMANDS = list(
    dict.fromkeys(
        command for block in BLOCKS if block.kind == "shell" for command in block.commands
    )
)
LAUNCHED = [command for command in COMMANDS if " -m harness " in command]
HARNESS = [
    *(command for command in COMMANDS if command.startswith("harness ")),
    *(f"harness {command.partition(' -m harness ')[2]}" for command in LAUNCHED),
]
SPANS = sorted(
    {
        " ".join(span.split())
        for page in PAGES
        for span in re.findall(r"`([^`]+)`", re.sub(r"(?m)^    .*$", "", page.read_text()))
    }
)


def need(command: str) -> str | None:
    for says, error in NEEDS.items():
        if found := re.search(says, command):
            return error.format(*map(re.escape, found.groups()))
    return None


@cache
def options() -> dict[str, set[str]]:
    """Return command -> its options."""
    group: Any = typer.main.get_command(app)
    return {
        name: {
            o for parameter in command.params for o in (*parameter.opts, *parameter.secondary_opts)
        }
        for name, command in group.commands.items()
    }


FEW_REPORTS = [
    w for count in ("train=60", "eval=6", "test=6") for w in ("--set", f"task_options.{count}")
]
"""Options of the task of the pages, whose thousands of reports take seconds to write."""


def made_small(words: list[str]) -> list[str]:
    """Return a command that does the same with less data and smaller batches."""
    if words[0] == "plan":
        return [*words, "--batch-size", "1"]
    if words[0] not in ("run", "sweep"):
        return words
    of_pages = "--task" not in words and not any(word.endswith(".toml") for word in words)
    return [*words, "--set", "train.batch_size=2", *(FEW_REPORTS if of_pages else [])]


SLOW = [c for c in HARNESS if re.match(r"harness (plan|sweep) .*--nproc", c)]
"""Commands that take some fifteen seconds: they plan several processes."""


class CtrlC:
    """An observer that interrupts when the first measurement begins."""

    @hookimpl
    def phase_started(self, event: PhaseStarted) -> None:
        if event.phase == "probe speed":
            raise KeyboardInterrupt


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with results, a spec and a data file; no variable names a data set."""
    for name in ("HARNESS_DATA", "HARNESS_CACHE", "HARNESS_BERTSCORE_MODEL", "HARNESS_SUMMAC_NLI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "results" / "readme", "results")
    spec = min(Path("results").glob("*-radiology_demo-*/spec.toml"))
    shutil.copy(spec, "spec.toml")
    rows = [
        {"article": f"Finding {n}: the lung is clear.", "summary": f"clear {n}"} for n in range(40)
    ]
    Path("mydata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def arguments(command: str) -> list[str]:
    """Return the words after ``harness``; RUN becomes an existing run."""
    run = next(Path("results").iterdir()).name
    return [word.replace("/RUN/", f"/{run}/") for word in shlex.split(command)[1:]]


def test_the_pages_have_many_commands_and_spans() -> None:
    assert len(COMMANDS) > 35
    assert len(SPANS) > 100


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_known_kind_and_valid(block: Block) -> None:
    assert block.kind, f"{block}: what is this?\n{block.text}"
    if block.kind == "shell":
        for command in block.commands:
            assert re.match(KINDS["shell"], command), command
    elif block.kind == "python":
        compile(block.text, str(block), "exec")
    elif block.kind == "toml":
        values = tomllib.loads(block.text)
        if "grid" in values:
            assert specs(validate(SweepFile, values, str(block)), {}, installed())


@pytest.fixture(scope="module")
def _shared_estimates() -> Iterator[None]:
    """Estimate the memory of each kind of run once for all sweeps of the pages."""
    estimates: dict[tuple[str, int], RunMemory] = {}
    estimate = MemoryEstimator.__call__

    def look_up(
        estimator: MemoryEstimator, spec: RunSpec, longest: Step, processes: int, room: int | None
    ) -> RunMemory:
        key = spec.digest(), processes
        if key not in estimates:
            estimates[key] = estimate(estimator, spec, longest, processes, room)
        return estimates[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryEstimator, "__call__", look_up)
        yield


@pytest.mark.usefixtures("_shared_estimates")
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=pytest.mark.slow if command in SLOW else ())
        for command in HARNESS
        if "--track" not in shlex.split(command)
    ],
)
def test_a_harness_command_works_or_says_what_is_missing(
    command: str, place: Path, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = arguments(command)
    if not need(command):
        words = made_small(words)
    if "--executor" in words and not need(command):
        # Options are checked only, since there is no cluster to connect to.
        name, chosen = read_part(words[words.index("--executor") + 1])
        pytest.importorskip({"slurm": "submitit"}.get(name, name))
        validate(installed().executors.find(name).load().Options, chosen, name)
        words += ["--executor", "local"]
    if words[0] == "search":
        pytest.importorskip("optuna")
    if words[0] == "sweep":
        words += ["--no-probe"]
    if words[0] == "run" and "--nproc" in words:
        # The observer does not reach other processes.
        words += ["--nproc", "1", "--max-restarts", "0"]

    def give_up(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.costs.entry.profile_recipes", give_up)
    monkeypatch.setattr("harness.diagnosis.entry.look_into", give_up)
    monkeypatch.setattr("harness.searching.entry.Screen", give_up)
    if words[0] == "serve":
        monkeypatch.setattr("harness.serving.server.Server.run", give_up)
        monkeypatch.setenv("HARNESS_API_KEY", "key")
        words += ["--port", "0"]
    user = CtrlC()
    installed().manager.register(user)
    try:
        result = harness(*words)
    finally:
        installed().manager.unregister(user)
    if missing := need(command):
        assert result.exit_code == 2, result.output
        assert "Error: " in result.output
        assert re.search(missing, result.output, re.DOTALL), result.output
    elif words[0] == "sweep":
        assert result.exit_code == 2, result.output
        assert "The sweep needs a confirmation" in result.output
        assert re.search(r"\d+ runs?, ", result.output), result.output
    elif words[0] in ("run", "profile", "diagnose", "search", "serve"):
        assert result.exit_code == 130, result.output
    elif words[0] == "recommend":
        # 1 means that no recipe is good enough, which is an answer too.
        assert result.exit_code in (0, 1), result.output
        assert "lora_ff+lprun" in result.output
    else:
        assert result.exit_code == 0, result.output
    assert not re.search(r"Traceback|Usage:", result.output)


WHOLE = [command for command in HARNESS if command.startswith("harness run") and not need(command)]


@pytest.mark.slow
@pytest.mark.parametrize("command", WHOLE)
def test_a_run_of_the_pages_finishes(
    command: str, place: Path, harness: Harness, tiny_settings: dict[str, object]
) -> None:
    for tracker in re.findall(r"--track (\w+)", command):
        pytest.importorskip(tracker)
    settings = [
        word for item in tiny_settings.items() for word in ("--set", "=".join(map(str, item)))
    ]
    result = harness(*made_small(arguments(command)), *settings, "--out", "own")
    assert result.exit_code == 0, result.output
    reports = [json.loads(path.read_text()) for path in Path("own").glob("*/report.json")]
    assert reports
    assert all(report["status"] == "ok" for report in reports)


def test_a_page_quotes_the_committed_sweep(tmp_path: Path, harness: Harness) -> None:
    copy = shutil.copytree(ROOT / "results" / "sweep", tmp_path / "sweep")
    result = harness("report", str(copy), columns=80)
    shown = "\n".join(line.rstrip() for line in result.stdout.splitlines()) + "\n"
    assert shown in [block.text for block in BLOCKS if block.page.name == "example.md"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_has_the_target(command: str) -> None:
    process = subprocess.run(
        ["make", "-n", *shlex.split(command)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("pip ")])
def test_pip_installs_extras_that_exist(command: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    words = shlex.split(command)
    match = re.fullmatch(r"([\w-]+)\[([\w,]+)\]", words[2])
    assert words[:2] == ["pip", "install"]
    assert match
    assert match[1] == project["name"]
    assert set(match[2].split(",")) <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("export ")])
def test_an_exported_variable_is_one_that_the_code_reads(command: str) -> None:
    name = command.removeprefix("export ").partition("=")[0]
    sources = [
        path
        for folder in ("harness", "tasks", "examples")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert any(f'"{name}"' in path.read_text() for path in sources)


@pytest.mark.parametrize("command", LAUNCHED)
def test_a_launcher_knows_its_options(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        parsed = get_args_parser().parse_args(words[1:])
    else:
        from accelerate.commands.launch import launch_command_parser

        parsed = launch_command_parser().parse_args(words[2:])
    assert parsed.module
    assert parsed.training_script == "harness"
    assert parsed.training_script_args == ["run"]


def on_this_machine(command: str) -> list[list[str]]:
    """Return the commands of all machines of a launcher, with a process on each, all on this one.

    A launcher for one machine keeps its number of processes.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    words = shlex.split(
        command.replace("HOST:29500", f"localhost:{port}").replace("HOST", "localhost")
    )
    words[0] = str(Path(sys.executable).with_name(words[0]))
    if "--nnodes" not in words and "--num_machines" not in words:
        return [words]
    for option, value in {"--nproc-per-node": "1", "--num_processes": "2"}.items():
        if option in words:
            words[words.index(option) + 1] = value
    if "--machine_rank" not in words:
        return [words, words]
    words[2:2] = ["--main_process_port", port]
    others = list(words)
    others[others.index("--machine_rank") + 1] = "1"
    return [words, others]


@pytest.mark.slow
@pytest.mark.parametrize("command", LAUNCHED)
def test_a_launcher_finishes_a_run(
    command: str, place: Path, tiny_settings: dict[str, object]
) -> None:
    settings = [f"--set={name}={value}" for name, value in tiny_settings.items()]
    started = [
        subprocess.Popen(
            [*words, *settings, "--out", "own"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in on_this_machine(command)
    ]
    outputs = [process.communicate(timeout=900)[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), outputs
    (path,) = Path("own").glob("*/report.json")
    report = json.loads(path.read_text())
    assert (report["status"], report["training"]["processes"]) == ("ok", 2)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("ray ")])
def test_ray_knows_its_options(command: str) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    words = shlex.split(command)
    assert scripts.cli.commands[words[1]].make_context("start", words[2:]).params


@pytest.mark.parametrize("span", [s for s in SPANS if re.match("harness |make |--|pip ", s)])
def test_commands_and_options_in_sentences_exist(span: str) -> None:
    words = shlex.split(span.replace("<run>", "RUN"))
    if words[0] == "make":
        assert re.search(rf"(?m)^{words[1]}:", (ROOT / "Makefile").read_text())
    elif words[0] == "--set":
        settings = [word for word in words if word != "--set"]
        if settings and not any("NAME" in setting for setting in settings):
            assert resolve(parse_settings(settings), "quick")
    elif words[0] == "pip":
        test_pip_installs_extras_that_exist(span)
    elif words[0] == "harness":
        if words[1] != "--help":
            assert {word for word in words if word.startswith("--")} <= options()[words[1]]
    else:
        assert any(words[0] in known for known in options().values())
