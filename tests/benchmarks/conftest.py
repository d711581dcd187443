"""Imports of the benchmarks' modules, which are not a package."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Return a function that imports a module of the benchmarks by its name.

    Some set variables of the environment, which are restored after the test.
    """
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    with mock.patch.dict(os.environ):
        yield importlib.import_module


@pytest.fixture
def work(module: Callable[[str], ModuleType]) -> ModuleType:
    return module("work")
