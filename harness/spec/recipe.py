"""Recipes: compositions of compressors, written ``lora_ff:r=8,alpha=16+lprun``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.api.compressor import Compressor, Stage
from harness.api.options import validate, written
from harness.api.registry import Registry
from harness.errors import HarnessError

_PART = re.compile(r"(?P<name>[A-Za-z_][\w-]*)(?::(?P<options>.*))?")
_OPTION = re.compile(r"[^:+=]+=")
_GRAMMAR = "Write name[:option=value[,option=value]] joined by '+', as in lora_ff:r=8+lprun"


@dataclass(frozen=True)
class Recipe:
    """A composition of compressors.

    Attributes:
        compressors: in the order in which they are applied, which is by stage.
    """

    compressors: tuple[Compressor[Any], ...]

    def __str__(self) -> str:
        """The canonical text: equal recipes read equally, defaults are left out."""
        parts = []
        for compressor in sorted(self.compressors, key=lambda c: c.name):
            given = compressor.options.model_dump(mode="json", exclude_defaults=True)
            options = ",".join(f"{key}={written(given[key])}" for key in sorted(given))
            parts.append(f"{compressor.name}:{options}" if options else compressor.name)
        return "+".join(parts)

    @property
    def stages(self) -> frozenset[Stage]:
        """The stages in which the recipe acts."""
        return frozenset(compressor.stage for compressor in self.compressors)


def parse(text: str, registry: Registry) -> Recipe:
    """Read a recipe; the order of its parts never matters.

    Raises:
        HarnessError: bad grammar, an unknown compressor or option, or compressors that conflict.
    """
    compressors: dict[str, Compressor[Any]] = {}
    for part in text.split("+"):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise HarnessError(f"The recipe {text!r} cannot be read at {part!r}.", _GRAMMAR)
        name = match["name"]
        if name in compressors:
            raise HarnessError(f"The recipe {text!r} names {name!r} twice.", "Name it once.")
        cls: type[Compressor[Any]] = registry.find(name).load()
        options = _options(match["options"], part)
        compressors[name] = cls(name, validate(cls.Options, options, f"compressor {name!r}"))
    _check_conflicts(compressors, text)
    return Recipe(tuple(sorted(compressors.values(), key=lambda c: (c.stage, c.name))))


def split_parts(text: str) -> list[str]:
    """Split what is listed with commas and may have options: ``full,lora_ff:r=8,alpha=16,lprun``.

    Options are listed with commas too; what tells them apart is that an option starts with
    ``key=``.
    """
    parts: list[str] = []
    for item in text.split(","):
        if parts and _OPTION.match(item):
            parts[-1] += f",{item}"
        elif item.strip():
            parts.append(item.strip())
    return parts


def read_part(text: str) -> tuple[str, dict[str, str]]:
    """Read ``name:option=value,option=value``.

    Raises:
        HarnessError: bad grammar.
    """
    name, colon, options = text.strip().partition(":")
    return name, _options(options if colon else None, text)


def _options(text: str | None, part: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in text.split(",") if text is not None else []:
        key, equals, value = item.partition("=")
        if not equals or not key.strip():
            raise HarnessError(f"The recipe cannot be read at {part!r}: {item!r}.", _GRAMMAR)
        if key.strip() in options:
            raise HarnessError(f"{part!r} gives the option {key.strip()!r} twice.", "Give it once.")
        options[key.strip()] = value.strip()
    return options


def _check_conflicts(compressors: Mapping[str, Compressor[Any]], text: str) -> None:
    for name, compressor in compressors.items():
        for other in compressors:
            if other in compressor.conflicts or ("*" in compressor.conflicts and other != name):
                rest = "+".join(p for p in text.split("+") if p.partition(":")[0].strip() != name)
                raise HarnessError(
                    f"The recipe {text!r} is not possible: {name!r} cannot be combined with "
                    f"{other!r}.",
                    f"Leave one out, for example: {rest}",
                )
