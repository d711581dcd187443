"""Hashes of code change exactly with the code that can change a run's result."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from harness.data.hashing import code_hash, folder_hash


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package called ``harness`` with modules that show runs and modules that train."""
    for room in ("cli", "reporting/page", "training", "training/cli"):
        (tmp_path / room).mkdir(parents=True)
        (tmp_path / room / "module.py").write_text("old")
    stand_in = ModuleType("harness")
    stand_in.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "harness", stand_in)
    return tmp_path


@pytest.mark.parametrize(
    ("room", "changes"),
    [("cli", False), ("reporting/page", False), ("training", True), ("training/cli", True)],
)
def test_only_code_that_can_change_a_result_is_hashed(
    package: Path, room: str, changes: bool
) -> None:
    before = code_hash([])
    (package / room / "module.py").write_text("new")
    assert (code_hash([]) != before) is changes


def test_a_renamed_file_changes_the_hash_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("text")
    before = folder_hash(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert folder_hash(tmp_path) != before


def test_hidden_files_do_not_count(tmp_path: Path) -> None:
    before = folder_hash(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("compiled")
    (tmp_path / ".hidden").write_text("text")
    assert folder_hash(tmp_path) == before
