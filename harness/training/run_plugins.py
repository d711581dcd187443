"""Plugins that a run was given as single files, which rebuilding its model needs again."""

from __future__ import annotations

from pathlib import Path

from harness.api.plugin_files import FOLDER
from harness.api.plugins import Plugins
from harness.errors import HarnessError
from harness.records.report import Report


def require_plugin_files(report: Report, folder: Path, plugins: Plugins) -> None:
    """Check that the plugin files of a run are registered, with the same text.

    The copies in the run's folder are not executed by themselves: a folder may come from anybody.

    Args:
        report: the report of the run.
        folder: the folder of the run.
        plugins: the plugins of this process.

    Raises:
        HarnessError: one of them is missing.
    """
    here = {(file.name, file.sha256) for file in plugins.files}
    for name, sha256 in report.plugin_files.items():
        if (name, sha256) not in here:
            copy = folder / FOLDER / name
            raise HarnessError(
                f"The run {report.id} used the plugin {name}, which is not given here with the "
                "same text.",
                f"Look at the copy in the run's folder, then give it: --plugin {copy}",
            )
