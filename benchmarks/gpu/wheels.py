"""Fetch the wheels that a GPU machine without a network lacks: ``make gpu-wheels``.

``machine.txt`` lists the packages of such a machine. The requirements of the harness and its tests
come from ``pyproject.toml``, and indirect ones from the packages installed here. Wheels of the
versions installed here are fetched.
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
"""Packages of the extra ``dev`` that tests and installation need."""
PINNED = {"setuptools": "81.0.0"}
"""Versions that differ from those installed here: torch 2.11 needs setuptools below 82."""
SOURCE_ONLY = ("rouge-score",)
"""Packages published without a wheel; they are pure Python, so wheels built here fit anywhere."""
MOST = 40 * 2**20
"""Maximum size of all wheels together in bytes."""
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
    """Fetch missing wheels; return 1 if that fails or they are too large."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "wheels")
    parser.add_argument("--list", action="store_true", help="only print the packages to fetch")
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
    """Return the pip command for wheels of CPython 3.12 on Linux, or of any platform."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    command += [str(folder), "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", "3.12"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    return command + pins


def build(pins: list[str], folder: Path) -> list[str]:
    """Return the pip command that builds packages without a wheel."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    return [*command, str(folder), *pins]


def missing_wheels() -> dict[str, str]:
    """Return name -> version of the packages that the machine lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional = project["optional-dependencies"]
    requirements = [Requirement(text) for text in project["dependencies"]]
    requirements += [Requirement(text) for extra in EXTRAS for text in optional[extra]]
    requirements += [r for r in map(Requirement, optional["dev"]) if canonical(r.name) in TESTS]
    return wheels_for(requirements, read_machine(MACHINE))


def wheels_for(
    requirements: Iterable[Requirement], machine: dict[str, SpecifierSet]
) -> dict[str, str]:
    """Return name -> version of what a machine lacks for some requirements.

    Args:
        requirements: direct requirements; if one demands a version, the machine's must be known.
        machine: package of the machine -> its version or lower bound; empty where unknown.

    Raises:
        SystemExit: a package is not installed here, so its requirements are unknown.
    """
    versions: dict[str, str] = {}
    waiting = [(requirement, True) for requirement in requirements]
    while waiting:
        requirement, direct = waiting.pop()
        name = canonical(requirement.name)
        if requirement.marker and not requirement.marker.evaluate(ENVIRONMENT):
            continue
        if name in versions or (
            name in machine and is_satisfied(requirement, machine[name], direct)
        ):
            continue
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            raise SystemExit(f"{requirement.name} is not installed here: make install") from None
        versions[name] = PINNED.get(name, package.version)
        waiting += [(Requirement(text), False) for text in package.requires or ()]
    return versions


def is_satisfied(requirement: Requirement, specifiers: SpecifierSet, direct: bool) -> bool:
    """Return whether a machine's package fits; indirect requirements are assumed to."""
    if not direct or not requirement.specifier:
        return True
    versions = [Version(part.version) for part in specifiers]
    return bool(versions) and all(requirement.specifier.contains(v) for v in versions)


def read_machine(file: Path) -> dict[str, SpecifierSet]:
    """Read the list of a machine's packages."""
    lines = (text.partition("#")[0].strip() for text in file.read_text("utf-8").splitlines())
    return {canonical(r.name): r.specifier for r in map(Requirement, filter(None, lines))}


def canonical(name: str) -> str:
    """Return a normalised name, as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
