"""Wheels for a GPU machine without a network, and the script that installs them there."""

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


def needs(wheels: ModuleType, tmp_path: Path, machine: str, *requirements: str) -> dict[str, str]:
    (tmp_path / "machine.txt").write_text(machine)
    listed = wheels.read_machine(tmp_path / "machine.txt")
    versions: dict[str, str] = wheels.wheels_for(map(Requirement, requirements), listed)
    return versions


def test_a_missing_package_comes_with_its_requirements(wheels: ModuleType, tmp_path: Path) -> None:
    versions = needs(wheels, tmp_path, "typing-extensions\nannotated_types\n", "pydantic>=2.12")
    assert versions == {
        "pydantic": version("pydantic"),
        "pydantic-core": version("pydantic-core"),
        "typing-inspection": version("typing-inspection"),
    }


@pytest.mark.parametrize(
    ("there", "requirement", "fetched"),
    [
        ("rich==14.1", "rich>=14,<16", False),
        ("rich==13.0", "rich>=14,<16", True),
        ("rich", "rich>=14,<16", True),  # The version is unknown.
        ("rich", "rich", False),
        ("rich>=14.2", "rich>=14", False),
        ("", "rich>=14; python_version < '3.12'", None),
    ],
)
def test_a_package_whose_version_may_not_fit_is_fetched(
    wheels: ModuleType, tmp_path: Path, there: str, requirement: str, fetched: bool | None
) -> None:
    others = "markdown-it-py\npygments  # of any version\n"
    versions = needs(wheels, tmp_path, f"{others}{there}\n", requirement)
    assert versions == ({"rich": version("rich")} if fetched else {})


def test_every_requirement_is_available_on_the_machine(wheels: ModuleType) -> None:
    available = {**wheels.missing_wheels(), **wheels.read_machine(wheels.MACHINE)}
    for name in wheels.missing_wheels():
        for text in requires(name) or ():
            requirement = Requirement(text)
            if not requirement.marker or requirement.marker.evaluate(wheels.ENVIRONMENT):
                assert wheels.canonical(requirement.name) in available, f"{name} needs {text}"
    assert {"datasets", "pydantic", "rouge-score", "bert-score"} <= set(wheels.missing_wheels())
    assert not {"torch", "transformers", "scipy", "numpy"} & set(wheels.missing_wheels())


def test_the_script_says_where_wheels_come_from(tmp_path: Path) -> None:
    process = subprocess.run(
        [ROOT / "scripts" / "gpu.sh"],
        env={**os.environ, "WHEELS": str(tmp_path), "SITE": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "make gpu-wheels" in process.stderr
    assert not (tmp_path / "site").exists()


@pytest.mark.slow
def test_all_wheels_are_fetched_and_small(tmp_path: Path) -> None:
    program = ROOT / "benchmarks" / "gpu" / "wheels.py"
    subprocess.run([sys.executable, program, tmp_path / "wheels"], check=True)
    files = list((tmp_path / "wheels").iterdir())
    assert len(files) > 15
    assert sum(path.stat().st_size for path in files) < 40 * 2**20
