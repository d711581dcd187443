"""NLTK's Porter stemmer without the rest of NLTK, whose import takes two seconds."""

from __future__ import annotations

import functools
import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_PACKAGES = ("nltk", "nltk.stem")
"""Packages whose code imports modules that stemming does not need."""


@functools.cache
def porter_stemmer() -> Any:
    """Return ``nltk.stem.porter.PorterStemmer()``.

    The stemmer's module needs nothing from its packages, so they are not executed. If NLTK is
    already imported, or has another layout, the module is imported as usual.
    """
    if "nltk" not in sys.modules:
        try:
            return _load_alone().PorterStemmer()
        except (ImportError, AttributeError):
            pass
    return importlib.import_module("nltk.stem.porter").PorterStemmer()


def _load_alone() -> ModuleType:
    """Import the stemmer's module with empty parent packages, which are removed afterwards."""
    spec = find_spec("nltk")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("NLTK is not a package.")
    root = list(spec.submodule_search_locations)
    try:
        for name in _PACKAGES:
            package = ModuleType(name)
            inner = name.partition(".")[2]
            package.__path__ = [f"{folder}/{inner}" if inner else folder for folder in root]
            sys.modules[name] = package
        return importlib.import_module("nltk.stem.porter")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "nltk"]:
            del sys.modules[name]
