"""Registries of the names that plugins add, with lazy imports and origins."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError, did_you_mean

Target = str | Callable[..., Any]


@dataclass(frozen=True)
class Origin:
    """The distribution that a registration comes from."""

    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


@dataclass(frozen=True)
class Entry:
    """One registered name."""

    name: str
    target: Target
    summary: str
    origin: Origin

    def load(self) -> Any:
        """Import and return the registered class; its module is not imported before.

        Raises:
            HarnessError: there is no such class, or it lacks methods.
        """
        loaded = self._imported() if isinstance(self.target, str) else self.target
        if lacking := sorted(getattr(loaded, "__abstractmethods__", ())):
            raise HarnessError(
                f"The class {getattr(loaded, '__name__', loaded)!r} of {self.name!r} "
                f"({self.origin}) does not define {', '.join(lacking)}.",
                "Its author adds it: harness new shows what a complete plugin looks like",
            )
        return loaded

    def _imported(self) -> Any:
        module, _, attribute = str(self.target).partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise HarnessError(
                f"{self.name!r} of {self.origin} cannot be loaded from {self.target!r}: {error}",
                f"Repair or uninstall it: pip uninstall {self.origin.package}",
            ) from error


@dataclass(frozen=True)
class OpenEntry:
    """A family of names that cannot be listed, such as hub ids or file paths.

    ``accepts`` is a cheap test of whether a reference belongs to the family.
    """

    accepts: Callable[[str], bool]
    entry: Entry


class Registry:
    """All registered names of one kind.

    Args:
        kind: ``backbone``, ``compressor``, ``task``, ``metric`` or ``executor``; used in messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, list[Entry]] = {}
        self._open: list[OpenEntry] = []

    def add(self, entry: Entry) -> None:
        """Add an entry; a name that exists already is listed under both owners (see ``find``)."""
        self._entries.setdefault(entry.name, []).append(entry)

    def add_open(self, entry: OpenEntry) -> None:
        """Add a family of names."""
        self._open.append(entry)

    def merge(self, other: Registry) -> None:
        """Add all entries of another registry."""
        for entry in other:
            self.add(entry)
        self._open.extend(other._open)

    def __iter__(self) -> Iterator[Entry]:
        for name in sorted(self._entries):
            yield from self._entries[name]

    @property
    def families(self) -> list[Entry]:
        """The open families, in order of registration."""
        return [family.entry for family in self._open]

    @property
    def collisions(self) -> list[str]:
        """One message for each name with more than one owner."""
        return [
            self._collision(entries).message
            for entries in self._entries.values()
            if len(entries) > 1
        ]

    def find(self, reference: str) -> Entry:
        """Return the entry for a name or a reference of an open family.

        Raises:
            HarnessError: the name is unknown, or two packages register it. Neither is chosen,
                because a run must never measure another compressor than the user expects.
        """
        entries = self._entries.get(reference, [])
        if len(entries) > 1:
            raise self._collision(entries)
        if entries:
            return entries[0]
        for family in self._open:
            if family.accepts(reference):
                return family.entry
        families = "".join(f" Or: {family.summary}." for family in self.families)
        raise HarnessError(
            f"Unknown {self.kind} {reference!r}.",
            f"{did_you_mean(reference, self._entries)}{families} See: harness list {self.kind}s",
        )

    def _collision(self, entries: list[Entry]) -> HarnessError:
        owners = " and ".join(str(entry.origin) for entry in entries)
        return HarnessError(
            f"The {self.kind} name {entries[0].name!r} is claimed by {owners}.",
            f"Uninstall one of them: pip uninstall {entries[-1].origin.package}",
        )


class Register:
    """Argument of a plugin's register hook: it registers classes under names."""

    def __init__(self, registry: Registry, origin: Origin) -> None:
        self._registry = registry
        self._origin = origin

    def __call__(self, name: str, target: Target, summary: str) -> None:
        """Register ``target``, a class or ``"package.module:Class"``, under a name."""
        self._registry.add(Entry(name, target, summary, self._origin))

    def family(
        self, name: str, target: Target, summary: str, accepts: Callable[[str], bool]
    ) -> None:
        """Register a class for every reference that ``accepts`` returns True for."""
        self._registry.add_open(
            OpenEntry(accepts, Entry(name, target, summary, self._origin)),
        )
