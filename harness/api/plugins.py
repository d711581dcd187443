"""Discovery of plugins by one entry-point group, which built-in plugins use too."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pluggy

from harness.api import hookspecs
from harness.api.backbone import Backbone
from harness.api.metric import Metric, make_metric
from harness.api.options import validate
from harness.api.own_packages import check_own, own_packages_first
from harness.api.parts import split_parts
from harness.api.plugin_files import PluginFile
from harness.api.recipe import Recipe, parse
from harness.api.registry import Origin, Register, Registry
from harness.api.task import Task
from harness.errors import HarnessError

GROUP = "harness"
_OWN_DISTRIBUTION = "seq2seq-harness"


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be loaded, and the reason; the others still work."""

    name: str
    origin: Origin
    reason: str


@dataclass
class Plugins:
    """All registered names, and the hooks of all loaded plugins."""

    manager: pluggy.PluginManager
    backbones: Registry = field(default_factory=lambda: Registry("backbone"))
    compressors: Registry = field(default_factory=lambda: Registry("compressor"))
    tasks: Registry = field(default_factory=lambda: Registry("task"))
    metrics: Registry = field(default_factory=lambda: Registry("metric"))
    executors: Registry = field(default_factory=lambda: Registry("executor"))
    broken: list[BrokenPlugin] = field(default_factory=list)
    origins: set[Origin] = field(default_factory=set)
    files: list[PluginFile] = field(default_factory=list)

    @property
    def registries(self) -> dict[str, Registry]:
        """Registries by the plural of their kind, as ``harness list`` names them."""
        return {
            "backbones": self.backbones,
            "compressors": self.compressors,
            "tasks": self.tasks,
            "metrics": self.metrics,
            "executors": self.executors,
        }

    @property
    def warnings(self) -> list[str]:
        """Messages about plugins that failed to load and names that two packages register."""
        skipped = [f"Skipped plugin {b.name!r} of {b.origin}: {b.reason}" for b in self.broken]
        return skipped + [c for r in self.registries.values() for c in r.collisions]

    def backbone(self, reference: str) -> Backbone:
        """Build the backbone of a registered name, a hub id or a folder.

        Raises:
            HarnessError: no backbone has this reference, or its plugin cannot be loaded.
        """
        backbone: Backbone = self.backbones.find(reference).load()(reference)
        return backbone

    def recipe(self, text: str) -> Recipe:
        """Build the recipe of a text such as ``lora_ff:r=8+lprun``.

        Raises:
            HarnessError: bad grammar, an unknown compressor or option, or compressors that
                conflict.
        """
        return parse(text, self.compressors)

    def recipes(self, texts: str | Iterable[str]) -> list[Recipe]:
        """Build several recipes.

        Args:
            texts: a list of recipes, or one text in which they are separated by commas.

        Raises:
            HarnessError: one of the recipes cannot be built.
        """
        return [self.recipe(t) for t in (split_parts(texts) if isinstance(texts, str) else texts)]

    def task(self, reference: str, options: Mapping[str, Any]) -> Task[Any]:
        """Build the task of a registered name, a file or a folder.

        Args:
            reference: the registered name, or the path of the user's data.
            options: option name -> value, not yet validated.

        Raises:
            HarnessError: no task has this reference, or an option is not valid.
        """
        kind: type[Task[Any]] = self.tasks.find(reference).load()
        return kind(reference, validate(kind.Options, options, f"task {reference!r}"))

    def register(self, plugin: object, name: str, origin: Origin) -> None:
        """Register one plugin; if any of its hooks fails, none of its names is kept."""
        try:
            staged = self.stage(plugin, name, origin)
        except Exception as error:
            self.broken.append(BrokenPlugin(name, origin, _reason(error)))
            return
        self.merge(staged, origin)

    def stage(self, plugin: object, name: str, origin: Origin) -> dict[str, Registry]:
        """Call the hooks of a plugin, and return what they register, by the plural of its kind.

        Args:
            plugin: a module, or an object with hooks.
            name: its name among the plugins.
            origin: the package or file that it comes from.
        """
        self.manager.register(plugin, name=name)
        others = [other for other in self.manager.get_plugins() if other is not plugin]
        staged = {kind: Registry(registry.kind) for kind, registry in self.registries.items()}
        try:
            for kind, registry in staged.items():
                hook = self.manager.subset_hook_caller(f"register_{kind}", remove_plugins=others)
                hook(register=Register(registry, origin))
        except Exception:
            self.manager.unregister(plugin)
            raise
        return staged

    def merge(self, staged: Mapping[str, Registry], origin: Origin) -> None:
        """Add what ``stage`` returned."""
        for kind, registry in staged.items():
            self.registries[kind].merge(registry)
        self.origins.add(origin)

    @property
    def packaged(self) -> list[object]:
        """The plugins that are not single files."""
        files = {file.name for file in self.files}
        return [p for name, p in self.manager.list_name_plugin() if name not in files and p]


def discover(entry_points: Iterable[EntryPoint]) -> Plugins:
    """Load plugins from entry points; other packages' plugins that fail are in ``Plugins.broken``.

    Raises:
        HarnessError: a built-in plugin cannot be loaded.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    plugins = Plugins(manager)
    # The harness's own plugins first and the rest by name: listings and messages must not depend
    # on the order in which packages were installed.
    for point in sorted(entry_points, key=lambda p: (not _is_own(p), p)):
        try:
            module = _load(point)
        except Exception as error:
            if _is_own(point):
                raise _own_plugin_error(point, error) from error
            plugins.broken.append(BrokenPlugin(point.name, _origin(point), _reason(error)))
            continue
        plugins.register(module, point.name, _origin(point))
    return plugins


@functools.cache
def installed() -> Plugins:
    """Return the plugins of this environment; they are discovered once per process."""
    plugins = discover(importlib.metadata.entry_points(group=GROUP))
    if not any(origin.package == _OWN_DISTRIBUTION for origin in plugins.origins):
        raise HarnessError(
            "The harness's own plugins are not installed.",
            "Install the package; adding it to the path is not enough: pip install -e .",
        )
    return plugins


def find_metrics(*texts: str) -> list[Metric]:
    """Build installed metrics, for the suite of a task.

    Args:
        texts: one metric each, as ``--metrics`` takes it: ``rouge`` or ``bleu:tokenize=zh``.

    Raises:
        HarnessError: bad grammar, an unknown metric or option, or a value that does not fit.
    """
    return [make_metric(text, installed().metrics) for text in texts]


def _is_own(point: EntryPoint) -> bool:
    return _origin(point).package == _OWN_DISTRIBUTION


def _load(point: EntryPoint) -> ModuleType:
    if not _is_own(point):
        module: ModuleType = point.load()
        return module
    with own_packages_first():
        module = point.load()
    check_own(module)
    return module


def _own_plugin_error(point: EntryPoint, error: Exception) -> HarnessError:
    if isinstance(error, HarnessError):
        return error
    return HarnessError(
        f"The harness's own plugin {point.name!r} cannot be loaded from {point.value!r}: "
        f"{_reason(error)}",
        "Install the package again: pip install --force-reinstall --no-deps seq2seq-harness",
    )


def _origin(point: EntryPoint) -> Origin:
    if point.dist is None:
        return Origin("unknown", "0")
    return Origin(point.dist.name, point.dist.version)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
