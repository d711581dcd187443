"""The import contracts: the order of the rooms, what plugins use, and what is light."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

ROOT = Path(harness.__file__).parents[1]

ROOMS = [
    {"cli"},
    {"testing"},
    {"serving"},
    {"generation"},
    {"searching"},
    {"diagnosis"},
    {"export"},
    {"sweeps"},
    {"reporting"},
    {"running"},
    {"costs"},
    {"measurement"},
    {"evaluation"},
    {"training"},
    {"model"},
    {"backbones"},
    {"spec"},
    {"data", "statistics"},
    {"api"},
    {"records"},
    {"errors", "clock", "interrupts"},
]
"""Floors from top to bottom: a room imports from its own floor and those below."""

FLOOR = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}

HEAVY = {"torch", "transformers", "peft", "datasets", "safetensors", "ctranslate2", "ray"}
LIGHT = {"api", "spec", "records", "statistics", "data", "reporting", "sweeps", "cli"}
HEAVY_BY_PURPOSE = {"harness/records/tensor_file.py", "harness/sweeps/ray.py"}
"""Modules of light rooms that are imported only where tensors or a cluster are needed."""

PLUGINS = ["compressors", "tasks", "harness/backbones", "examples"]


MODULE_LINES, CLASS_LINES, FUNCTION_LINES = 300, 150, 60
SIZED = ["harness", "compressors", "tasks", "benchmarks", "scripts", "examples"]


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, *, typing: bool = False, inner: bool = True) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of each import.

    Args:
        path: path of the module.
        typing: whether to include imports that only a type checker runs.
        inner: whether to include imports inside functions.
    """
    stack: list[ast.AST] = [ast.parse(path.read_text())]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif not inner and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing:
            stack += node.orelse
        else:
            stack += ast.iter_child_nodes(node)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "harness" and len(parts) > 1 and parts[1] in FLOOR else None


def test_every_room_has_its_floor() -> None:
    rooms = {path.stem for path in (ROOT / "harness").iterdir() if not path.name.startswith("_")}
    assert rooms - {"py"} == set(FLOOR)


def test_no_room_imports_from_a_room_above_it() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in modules("harness")
        for line, module in imports(path)
        if (here := room_of(name_of(path).removesuffix(".py").replace("/", ".")))
        and (there := room_of(module))
        and FLOOR[there] < FLOOR[here]
    ]
    assert not wrong


def test_harness_imports_no_built_in() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in modules("harness")
        for line, module in imports(path, typing=True)
        if module.partition(".")[0] in ("compressors", "tasks")
    ]
    assert not wrong


@pytest.mark.parametrize("folder", PLUGINS)
def test_plugins_use_only_what_harness_exports(folder: str) -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in modules(folder)
        for line, module in imports(path, typing=True)
        if module.startswith("harness.")
        and not module.startswith("harness.backbones.")
        and module.removeprefix("harness.") not in harness.__all__
    ]
    assert not wrong


def test_light_modules_import_nothing_heavy() -> None:
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for room in LIGHT
        for path in modules(f"harness/{room}")
        if name_of(path) not in HEAVY_BY_PURPOSE
        for line, module in imports(path, inner=False)
        if module.partition(".")[0] in HEAVY
    ]
    assert not wrong


def length(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a class, or of a function after its arguments and docstring.

    A command of twenty options and a function of the Python API whose arguments are explained are
    long before they do anything.
    """
    assert node.end_lineno
    if isinstance(node, ast.ClassDef):
        return node.end_lineno - node.lineno + 1
    body = node.body[ast.get_docstring(node) is not None :] or node.body
    return node.end_lineno - body[0].lineno + 1


@pytest.mark.parametrize("folder", SIZED)
def test_modules_classes_and_functions_are_short(folder: str) -> None:
    large = set()
    for path in modules(folder):
        text = path.read_text()
        if len(text.splitlines()) > MODULE_LINES:
            large.add(name_of(path))
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            limit = CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES
            if length(node) > limit:
                large.add(f"{name_of(path)} {node.name}")
    assert not large


def test_every_export_can_be_imported() -> None:
    missing = [name for name in harness.__all__ if not hasattr(harness, name)]
    assert not missing


def test_the_first_floor_has_few_loose_modules() -> None:
    assert len(list((ROOT / "harness").glob("*.py"))) <= 6


def test_the_page_of_the_architecture_lists_the_rooms_in_this_order() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = re.findall(r"(?m)^\| `harness/(\w+)/`", page)
    assert [FLOOR[room] for room in table] == sorted(FLOOR[room] for room in table)
    picture = re.search(r"(?m)(?:^    .+\n)+", page)
    assert picture
    names = [re.split(r"\s{2,}", line[4:])[0].split(", ") for line in picture[0].splitlines()]
    assert [set(rooms) for rooms in names] == ROOMS
    loose = set(ROOMS[-1])
    assert set(table) == set(FLOOR) - loose
