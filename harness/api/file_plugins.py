"""Registration of plugins that are single files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from harness.api.plugin_files import PluginFile
from harness.api.plugins import Plugins, installed
from harness.api.registry import Origin, Registry
from harness.errors import HarnessError, first_line


def add_plugin(file: str | Path) -> None:
    """Register the plugin of a single Python file, as ``--plugin`` does.

    Its code is part of the identity of each run that follows, and processes that a run starts
    register it too.

    Args:
        file: the file; it defines hooks, as the module of a package does.

    Raises:
        HarnessError: there is no such file, or it cannot be loaded.

    Example:
        >>> harness.add_plugin("my_method.py")
        >>> harness.run(compressor="my_method")
    """
    add_file(installed(), PluginFile.read(Path(file)))


def add_file(plugins: Plugins, file: PluginFile) -> None:
    """Register the plugin of a single file; a file that is registered already stays.

    Args:
        plugins: the plugins of this process.
        file: the file.

    Raises:
        HarnessError: it cannot be loaded, it registers nothing, or a name that there is.
    """
    same_name = [other for other in plugins.files if other.name == file.name]
    if any(other.sha256 == file.sha256 for other in same_name):
        return
    if same_name:
        raise HarnessError(
            f"Another plugin file {file.name!r} is in use.",
            "Rename one of them; to use an edited file, start Python again.",
        )
    module = file.load()
    origin = Origin(file.name, f"sha256:{file.sha256[:12]}")
    try:
        staged = plugins.stage(module, file.name, origin)
    except Exception as error:
        raise HarnessError(
            f"The plugin {str(file.path)!r} cannot be registered: "
            f"{type(error).__name__}: {first_line(error)}.",
            "Correct its hooks.",
        ) from error
    try:
        _require_new(plugins, staged, module, file)
    except HarnessError:
        plugins.manager.unregister(module)
        raise
    plugins.merge(staged, origin)
    plugins.files.append(file)


def _require_new(
    plugins: Plugins, staged: Mapping[str, Registry], module: ModuleType, file: PluginFile
) -> None:
    if not plugins.manager.get_hookcallers(module):
        raise HarnessError(
            f"The plugin {str(file.path)!r} registers nothing.",
            "Add a hook to it: @hookimpl def register_compressors(register): "
            'register("my_method", MyMethod, "what it does")',
        )
    for kind, registry in staged.items():
        known = {entry.name: entry for entry in plugins.registries[kind]}
        for entry in registry:
            if entry.name in known:
                raise HarnessError(
                    f"The plugin {str(file.path)!r} registers the {registry.kind} "
                    f"{entry.name!r}, which {known[entry.name].origin} has.",
                    "Choose another name in the file.",
                )
