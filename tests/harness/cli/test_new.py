"""``harness new``: the package that it writes passes its checks, and nothing is overwritten."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Harness = Callable[..., Result]

KINDS = ["compressor", "task", "backbone", "metric"]


def written(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_has_a_module_a_test_and_a_readme(
    kind: str, tmp_path: Path, harness: Harness
) -> None:
    result = harness("new", kind, "my_own", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "harness check my_own" in result.output
    files = written(tmp_path / "my_own")
    assert set(files) == {
        "README.md",
        "pyproject.toml",
        "my_own/__init__.py",
        f"my_own/{kind}.py",
        "tests/test_my_own.py",
    }
    assert not [name for name, text in files.items() if "{{" in text]
    assert f'"my_own", "my_own.{kind}:MyOwn"' in files["my_own/__init__.py"]
    for name, text in files.items():
        if name.endswith(".py"):
            compile(text, name, "exec")


def test_what_exists_is_never_overwritten(tmp_path: Path, harness: Harness) -> None:
    (tmp_path / "my_own").mkdir()
    (tmp_path / "my_own.py").write_text("mine")
    for more in ([], ["--file"]):
        result = harness("new", "compressor", "my_own", "--out", str(tmp_path), *more)
        assert result.exit_code == 2
        assert "exists already" in result.output
    assert written(tmp_path) == {"my_own.py": "mine"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compressor", "My-Own"], "no name of a Python module"),
        (["compressor", "lora_ff"], "has a compressor 'lora_ff' already"),
        (["metric", "json"], "There is a Python module 'json' already"),
        (["task", "my_own", "--file"], "no single file of a task"),
    ],
)
def test_a_name_that_cannot_be_is_an_error(
    words: list[str], message: str, tmp_path: Path, harness: Harness
) -> None:
    result = harness("new", *words, "--out", str(tmp_path), columns=200)
    assert result.exit_code == 2
    assert message in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_formatted_and_linted(kind: str, tmp_path: Path, harness: Harness) -> None:
    harness("new", kind, "my_own", "--out", str(tmp_path))
    harness("new", "compressor", "my_file", "--out", str(tmp_path), "--file")
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed")
    settings = Path(__file__).parents[3] / "pyproject.toml"
    for words in (["check"], ["format", "--check"]):
        command = [str(ruff), *words, "--config", str(settings), "--no-cache", str(tmp_path)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout


def run(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", *words]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=site
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_installed_package_passes_its_checks_and_its_test(
    kind: str, tmp_path: Path, harness: Harness, install_package: Callable[[Path], Path]
) -> None:
    harness("new", kind, "my_own", "--out", str(tmp_path))
    site = install_package(tmp_path / "my_own")
    checked = run(site, "harness", "check", "my_own")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{kind} my_own" in checked.stdout
    tests = str(tmp_path / "my_own" / "tests")
    tested = run(site, "pytest", "-q", "-p", "no:cacheprovider", tests)
    assert tested.returncode == 0, tested.stdout


@pytest.mark.slow
def test_a_file_passes_its_checks(tmp_path: Path, harness: Harness) -> None:
    harness("new", "compressor", "my_file", "--out", str(tmp_path), "--file")
    file = str(tmp_path / "my_file.py")
    checked = run(tmp_path, "harness", "check", "my_file", "--quick", "--plugin", file)
    assert checked.returncode == 0, checked.stdout + checked.stderr
