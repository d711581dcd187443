"""What a GPU machine without a network lacks, and the script that installs it there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import requires, version
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]


@pytest.fixture
def wheels(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("gpu.wheels")


def needs(wheels: ModuleType, tmp_path: Path, machine: str, *asked: str) -> dict[str, str]:
    (tmp_path / "machine.txt").write_text(machine)
    listed = wheels.read_machine(tmp_path / "machine.txt")
    found: dict[str, str] = wheels.wheels_for(map(Requirement, asked), listed)
    return found


def test_what_is_missing_comes_with_what_it_needs(wheels: ModuleType, tmp_path: Path) -> None:
    found = needs(wheels, tmp_path, "typing-extensions\nannotated_types\n", "pydantic>=2.12")
    assert found == {
        "pydantic": version("pydantic"),
        "pydantic-core": version("pydantic-core"),
        "typing-inspection": version("typing-inspection"),
    }


@pytest.mark.parametrize(
    ("there", "asked", "fetched"),
    [
        ("rich==14.1", "rich>=14,<16", False),
        ("rich==13.0", "rich>=14,<16", True),
        ("rich", "rich>=14,<16", True),  # Nobody knows which.
        ("rich", "rich", False),
        ("rich>=14.2", "rich>=14", False),
        ("", "rich>=14; python_version < '3.12'", None),
    ],
)
def test_a_version_that_nothing_vouches_for_is_fetched(
    wheels: ModuleType, tmp_path: Path, there: str, asked: str, fetched: bool | None
) -> None:
    others = "markdown-it-py\npygments  # of any version\n"
    found = needs(wheels, tmp_path, f"{others}{there}\n", asked)
    assert found == ({"rich": version("rich")} if fetched else {})


def test_no_need_of_the_project_is_forgotten(wheels: ModuleType) -> None:
    found = {**wheels.missing_wheels(), **wheels.read_machine(wheels.MACHINE)}
    for name in wheels.missing_wheels():
        for text in requires(name) or ():
            requirement = Requirement(text)
            if not requirement.marker or requirement.marker.evaluate(wheels.ENVIRONMENT):
                assert wheels.canonical(requirement.name) in found, f"{name} needs {text}"
    assert {"datasets", "pydantic", "rouge-score", "bert-score"} <= set(wheels.missing_wheels())
    assert not {"torch", "transformers", "scipy", "numpy"} & set(wheels.missing_wheels())


def test_the_script_says_where_wheels_come_from(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "gpu.sh"],
        env={**os.environ, "WHEELS": str(tmp_path), "SITE": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "make gpu-wheels" in done.stderr
    assert not (tmp_path / "site").exists()


@pytest.mark.slow
def test_all_wheels_are_fetched_and_small(tmp_path: Path) -> None:
    program = ROOT / "benchmarks" / "gpu" / "wheels.py"
    subprocess.run([sys.executable, program, tmp_path / "wheels"], check=True)
    files = list((tmp_path / "wheels").iterdir())
    assert len(files) > 15
    assert sum(path.stat().st_size for path in files) < 40 * 2**20
