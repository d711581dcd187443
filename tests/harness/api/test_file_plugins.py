"""Plugins of a single file: registered, part of the identity, and known to every process."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

import harness as package
from harness import HarnessError
from harness.api.file_plugins import add_file, add_plugin
from harness.api.plugin_files import PluginFile
from harness.api.plugins import installed
from harness.measurement.request_server import RequestServer, Service
from harness.records.run_folder import read_report
from harness.training.trained_run import open_run

Harness = Callable[..., Result]

TEXT = '''
from harness import Compressor, Options, Register, Stage, hookimpl


class Norms(Compressor[Options]):
    """Trains the norms; it has no options."""

    stage = Stage.ADAPTER

    def apply(self, model, backbone, context):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name)
        return model


@hookimpl
def register_compressors(register: Register) -> None:
    register("my_norms", Norms, "train the norms")
'''

TAKEN = TEXT.replace('"my_norms"', '"lora_ff"')
MISTAKEN = TEXT.replace("register(", "register.it(")


@pytest.fixture(autouse=True)
def _own_plugins(forget_plugins: None) -> Iterator[None]:
    """Let each test begin with the installed plugins alone."""
    installed.cache_clear()
    yield
    installed.cache_clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_norms.py"
    path.write_text(TEXT)
    return path


class Listing(Service):
    """Lists the compressors of single files, and trains nothing."""

    def names(self) -> list[str]:
        return [e.name for e in installed().compressors if e.origin.package.endswith(".py")]


def test_a_file_is_registered_once_and_its_source_is_known(file: Path) -> None:
    add_plugin(file)
    add_plugin(str(file))
    (entry,) = [e for e in installed().compressors if e.name == "my_norms"]
    assert entry.origin.package == "my_norms.py"
    assert entry.origin.version == f"sha256:{installed().files[0].sha256[:12]}"
    assert inspect.getsourcefile(entry.load()) == str(file)
    assert "requires_grad_" in inspect.getsource(entry.load().apply)
    assert not list(file.parent.glob("__pycache__"))


@pytest.mark.usefixtures("fresh_processes")
def test_a_process_that_a_run_starts_has_the_text_that_was_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process imports the class of its requests from this module.
    monkeypatch.syspath_prepend(Path(__file__).parents[3])
    add_plugin(file)
    file.unlink()
    server = RequestServer(Listing)
    try:
        assert server.request("names", timeout=120) == ["my_norms"]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("name", "text", "message", "hint"),
    [
        ("none.py", None, "cannot be read", "harness new compressor"),
        ("my-norms.py", TEXT, "name of a module", "pip install"),
        ("norms.txt", TEXT, "not a Python file", "pip install"),
        ("bad.py", "def f(:\n", "SyntaxError: invalid syntax", "Correct the file"),
        ("bad.py", "x = 1\nimport nowhere\n", "No module named 'nowhere' (line 2)", "beside it"),
        ("bad.py", "x = 1\n", "registers nothing", "register_compressors"),
        (
            "bad.py",
            TEXT.replace('"my_norms"', '"lora_ff"'),
            "which seq2seq-harness",
            "another name",
        ),
        (
            "bad.py",
            TEXT.replace("register(", "register.it("),
            "AttributeError",
            "Correct its hooks",
        ),
    ],
)
def test_a_file_that_is_no_plugin_is_an_error_of_the_user(
    name: str, text: str | None, message: str, hint: str, tmp_path: Path, harness: Harness
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    result = harness("list", "compressors", "--plugin", str(tmp_path / name), columns=1000)
    assert result.exit_code == 2
    assert message in result.output
    assert hint in result.output
    assert "Traceback" not in result.output
    assert "bad.py" not in [file.name for file in installed().files]
    result = harness("list", "compressors", "lora_ff")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("correct", "mistaken", "message", "hint"),
    [
        ("def apply(", "def aply(", "does not define apply.", "a complete plugin"),
        ("stage =", "level =", "in which stage it is applied", "stage = Stage.ADAPTER"),
    ],
)
def test_a_class_that_is_not_complete_is_an_error_of_its_author(
    correct: str, mistaken: str, message: str, hint: str, tmp_path: Path, harness: Harness
) -> None:
    path = tmp_path / "bad.py"
    path.write_text(TEXT.replace(correct, mistaken))
    result = harness(
        *("plan", "--backbone", "nano-t5", "--compressor", "my_norms", "--plugin", str(path)),
        columns=1000,
    )
    assert result.exit_code == 2
    assert "my_norms" in result.output
    assert message in result.output
    assert hint in result.output
    assert "Traceback" not in result.output


def test_two_files_of_one_name_are_an_error(file: Path, tmp_path: Path) -> None:
    add_plugin(file)
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / file.name
    other.write_text(TEXT + "\n# edited\n")
    with pytest.raises(HarnessError, match="Another plugin file"):
        add_plugin(other)


def test_a_file_that_has_changed_is_refused_by_its_hash(file: Path) -> None:
    read = PluginFile.read(file)
    assert PluginFile.read(file, read.sha256) == read
    file.write_text(TEXT + "#")
    with pytest.raises(HarnessError, match="has changed"):
        PluginFile.read(file, read.sha256)


def test_plan_and_list_take_a_file(file: Path, harness: Harness) -> None:
    plugin = ("--plugin", str(file))
    result = harness("list", "compressors", "my_norms", *plugin)
    assert "train the norms (my_norms.py sha256:" in result.output
    words = ("plan", "--backbone", "nano-t5", "--compressor", "my_norms+lprun", "--json")
    planned = json.loads(harness(*words, *plugin).stdout)
    assert planned["recipe"] == "lprun+my_norms"
    assert 0 < planned["parameters"]["trainable"] < 20_000


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_processes")
def test_a_run_says_which_file_it_used_and_needs_it_again(
    file: Path, tiny_settings: dict[str, object], tmp_path: Path, harness: Harness
) -> None:
    settings = [w for k, v in tiny_settings.items() for w in ("--set", f"{k}={v}")]
    command = ["run", "--compressor", "my_norms+lprun", *settings]
    ids = []
    for number, text in enumerate((TEXT, TEXT, TEXT + "\n# edited\n")):
        installed.cache_clear()
        file.write_text(text)
        results = tmp_path / f"results{number}"
        result = harness(*command, "--plugin", str(file), "--out", str(results))
        assert result.exit_code == 0, result.output
        (folder,) = results.iterdir()
        report = read_report(folder)
        assert report.plugin_files == {file.name: PluginFile.read(file).sha256}
        assert (folder / "plugins" / file.name).read_text() == text
        assert report.parameters
        assert report.parameters.trainable < 20_000
        ids.append(folder.name)
    assert ids[0] == ids[1] != ids[2]
    installed.cache_clear()
    with pytest.raises(HarnessError, match="used the plugin my_norms") as raised:
        open_run(folder)
    copy = folder / "plugins" / file.name
    assert f"--plugin {copy}" in str(raised.value.hint)
    add_plugin(copy)
    assert open_run(folder).load()


@pytest.mark.slow
def test_a_sweep_and_several_processes_use_the_file(
    file: Path, tiny_settings: dict[str, object], tmp_path: Path, harness: Harness
) -> None:
    settings = [w for k, v in tiny_settings.items() for w in ("--set", f"{k}={v}")]
    shared = ["--compressor", "my_norms", *settings, "--plugin", str(file)]
    swept = harness("sweep", "--yes", *shared, "--out", str(tmp_path / "swept"))
    assert swept.exit_code == 0, swept.output
    together = harness("run", "--nproc", "2", *shared, "--out", str(tmp_path / "together"))
    assert together.exit_code == 0, together.output
    for name in ("swept", "together"):
        (folder,) = (tmp_path / name).glob("*my_norms*")
        report = read_report(folder)
        assert (report.status, list(report.plugin_files)) == ("ok", [file.name])


def test_a_script_adds_a_file(file: Path) -> None:
    package.add_plugin(file)
    [plan] = package.plan("nano-t5", "my_norms")
    assert plan.recipe == "my_norms"
    add_file(installed(), PluginFile.read(file))
    assert len(installed().files) == 1
