"""Fetch the wheels that a GPU machine without a network lacks: ``make gpu-wheels``.

What such a machine has is listed in ``machine.txt``. What the harness and its tests need is read
from ``pyproject.toml``, and what those need in turn from the packages installed here, whose
versions are fetched.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[2]
MACHINE = Path(__file__).with_name("machine.txt")
EXTRAS = ("gpu",)
TESTS = ("pytest", "hypothesis", "setuptools")
"""Of the extra ``dev``, what the tests and the installation need."""
PINNED = {"setuptools": "81.0.0"}
"""Versions that are not those installed here: torch 2.11 asks for a setuptools below 82."""
SOURCE_ONLY = ("rouge-score",)
"""Published without a wheel; pure Python, so that the one built here suits any machine."""
MOST = 40 * 2**20
"""Bytes of all wheels together."""
ENVIRONMENT = {
    "python_version": "3.12",
    "python_full_version": "3.12.0",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
    "extra": "",
}
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17)] + ["manylinux2014_x86_64"]


def main() -> int:
    """Fetch what is missing; return 1 if it is too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "wheels")
    parser.add_argument("--list", action="store_true", help="only print what would be fetched")
    options = parser.parse_args()
    wanted = sorted(missing_wheels().items())
    pins = [f"{name}=={version}" for name, version in wanted if name not in SOURCE_ONLY]
    sources = [f"{name}=={version}" for name, version in wanted if name in SOURCE_ONLY]
    if options.list:
        print("\n".join([*pins, *sources]))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    for old in options.folder.glob("*.whl"):
        old.unlink()
    for command in (download(pins, options.folder), build(sources, options.folder)):
        if subprocess.run(command, check=False).returncode:
            print("pip could not fetch all wheels; its message is above.", file=sys.stderr)
            return 1
    files = list(options.folder.glob("*.whl"))
    size = sum(path.stat().st_size for path in files)
    print(f"{len(files)} wheels, {size / 2**20:.1f} MiB in {options.folder}")
    if size > MOST:
        print(f"More than {MOST / 2**20:.0f} MiB.", file=sys.stderr)
        return 1
    return 0


def download(pins: list[str], folder: Path) -> list[str]:
    """Return pip's command for wheels of CPython 3.12 on Linux, or of no platform at all."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    command += [str(folder), "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", "3.12"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    return command + pins


def build(pins: list[str], folder: Path) -> list[str]:
    """Return pip's command for packages without a wheel."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    return [*command, str(folder), *pins]


def missing_wheels() -> dict[str, str]:
    """Return name -> version of what the machine lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    asked = [Requirement(text) for text in project["dependencies"]]
    asked += [Requirement(text) for extra in EXTRAS for text in optional[extra]]
    asked += [r for r in map(Requirement, optional["dev"]) if canonical(r.name) in TESTS]
    return wheels_for(asked, read_machine(MACHINE))


def wheels_for(asked: Iterable[Requirement], machine: dict[str, SpecifierSet]) -> dict[str, str]:
    """Return name -> version of what a machine lacks for some requirements.

    Args:
        asked: what is needed itself; of a version it asks for, one must be known to be there.
        machine: what is there -> its version, or the least one; empty where it is unknown.

    Raises:
        SystemExit: a package is not installed here, so that its needs are not known.
    """
    found: dict[str, str] = {}
    waiting = [(requirement, True) for requirement in asked]
    while waiting:
        requirement, direct = waiting.pop()
        name = canonical(requirement.name)
        if requirement.marker and not requirement.marker.evaluate(ENVIRONMENT):
            continue
        if name in found or (name in machine and is_there(requirement, machine[name], direct)):
            continue
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            raise SystemExit(f"{requirement.name} is not installed here: make install") from None
        found[name] = PINNED.get(name, package.version)
        waiting += [(Requirement(text), False) for text in package.requires or ()]
    return found


def is_there(requirement: Requirement, known: SpecifierSet, direct: bool) -> bool:
    """Return whether a machine's package will do: what others need in turn is taken to fit."""
    if not direct or not requirement.specifier:
        return True
    versions = [Version(part.version) for part in known]
    return bool(versions) and all(requirement.specifier.contains(v) for v in versions)


def read_machine(file: Path) -> dict[str, SpecifierSet]:
    """Read the list of what a machine has."""
    lines = (text.partition("#")[0].strip() for text in file.read_text("utf-8").splitlines())
    return {canonical(r.name): r.specifier for r in map(Requirement, filter(None, lines))}


def canonical(name: str) -> str:
    """Return a name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
