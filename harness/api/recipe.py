"""Recipes: compositions of compressors, written ``lora_ff:r=8,alpha=16+lprun``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.api.compressor import Compressor, Stage
from harness.api.options import validate, written
from harness.api.outputs import Need
from harness.api.parts import GRAMMAR, read_options
from harness.api.registry import Entry, Registry
from harness.api.teacher import Teacher
from harness.api.version import API_VERSION
from harness.errors import HarnessError

_PART = re.compile(r"(?P<name>[A-Za-z_][\w-]*)(?::(?P<options>.*))?")


@dataclass(frozen=True)
class Recipe:
    """A composition of compressors.

    Attributes:
        compressors: compressors in the order of application, which is by stage.
    """

    compressors: tuple[Compressor[Any], ...]

    def __str__(self) -> str:
        """The canonical text: equal recipes have equal texts, and defaults are left out."""
        return self.text({})

    def text(self, names: Mapping[str, str]) -> str:
        """Return the canonical text with some values of options replaced.

        Args:
            names: value -> its replacement, for example a folder -> a hash of its files.
        """
        parts = []
        for compressor in sorted(self.compressors, key=lambda c: c.name):
            given = compressor.options.model_dump(mode="json", exclude_defaults=True)
            options = ",".join(f"{key}={self._written(given[key], names)}" for key in sorted(given))
            parts.append(f"{compressor.name}:{options}" if options else compressor.name)
        return "+".join(parts)

    @staticmethod
    def _written(value: object, names: Mapping[str, str]) -> str:
        text = written(value)
        return names.get(text, text)

    @property
    def teacher(self) -> Teacher | None:
        """The teacher of its compressors; None if none of them needs one.

        Raises:
            HarnessError: they need different ones.
        """
        teachers = {c.name: c.teacher for c in self.compressors if "teacher" in c.needs}
        if len(set(teachers.values())) > 1:
            raise HarnessError(
                f"The recipe {str(self)!r} has several teachers: one for each of "
                f"{' and '.join(teachers)}.",
                "Give them the same teacher, or leave one out.",
            )
        return next(iter(teachers.values()), None)

    @property
    def taught_in_steps(self) -> bool:
        """True if a teacher reads each batch during training."""
        teacher = self.teacher
        return teacher is not None and teacher.logits and teacher.top is None

    @property
    def encoder_storage(self) -> Literal["float16", "float32"] | None:
        """The precision in which the encoder's outputs are stored; None if they are not.

        Of several that compressors ask for, it is the finest.
        """
        return max(
            (c.encoder_storage for c in self.compressors if c.encoder_storage),
            key=("float16", "float32").index,
            default=None,
        )

    @property
    def stages(self) -> frozenset[Stage]:
        """The stages of its compressors."""
        return frozenset(compressor.stage for compressor in self.compressors)

    @property
    def needs(self) -> frozenset[Need]:
        """All that the losses of its compressors need beside logits."""
        return frozenset(need for compressor in self.compressors for need in compressor.needs)

    @property
    def shares_beams(self) -> bool:
        """Return whether the beams of an example may share a cache."""
        return all(compressor.shares_beams for compressor in self.compressors)


def parse(text: str, registry: Registry) -> Recipe:
    """Read a recipe; the order of its parts has no effect.

    Raises:
        HarnessError: bad grammar, an unknown compressor or option, or compressors that conflict.
    """
    compressors: dict[str, Compressor[Any]] = {}
    for part in text.split("+"):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise HarnessError(f"The recipe {text!r} cannot be read at {part!r}.", GRAMMAR)
        name = match["name"]
        if name in compressors:
            raise HarnessError(f"The recipe {text!r} names {name!r} twice.", f"Name {name} once.")
        entry = registry.find(name)
        cls: type[Compressor[Any]] = entry.load()
        _check_class(cls, entry)
        options = read_options(match["options"], part)
        compressors[name] = cls(name, validate(cls.Options, options, f"compressor {name!r}"))
    _check_conflicts(compressors, text)
    return Recipe(tuple(sorted(compressors.values(), key=lambda c: (c.stage, c.name))))


def _check_class(cls: type[Compressor[Any]], entry: Entry) -> None:
    """Raise an error if a compressor has no stage, or the first API version's ``apply``."""
    if not isinstance(getattr(cls, "stage", None), Stage):
        raise HarnessError(
            f"The compressor {entry.name!r} of {entry.origin} does not say in which stage it is "
            "applied.",
            f"Its author adds one line to the class {cls.__name__}: stage = Stage.ADAPTER (or "
            f"{', '.join(stage.name for stage in Stage if stage is not Stage.ADAPTER)})",
        )
    if len(inspect.signature(cls.apply).parameters) != 3:
        return
    raise HarnessError(
        f"The compressor {entry.name!r} of {entry.origin} was written for version 1 of the API: "
        f"its apply takes (model, backbone). This is version {API_VERSION}.",
        "Install a newer version of it. Its author adds one argument: "
        "def apply(self, model, backbone, context)",
    )


def _check_conflicts(compressors: Mapping[str, Compressor[Any]], text: str) -> None:
    for name, compressor in compressors.items():
        for other in compressors:
            if other != name and {other, "*", compressors[other].stage} & compressor.conflicts:
                rest = "+".join(p for p in text.split("+") if p.partition(":")[0].strip() != name)
                raise HarnessError(
                    f"The recipe {text!r} is not possible: {name!r} cannot be combined with "
                    f"{other!r}.",
                    f"Leave one out, for example: {rest}",
                )
