"""A run from Python: ``harness.run``."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.plugins import installed
from harness.errors import HarnessError
from harness.records.run_folder import StoredRun
from harness.running.launch import is_launched
from harness.running.progress import Progress
from harness.running.request import run_spec
from harness.running.trackers import FOLDER, Tracker, find_tracker
from harness.spec.run_spec import RunSpec

if TYPE_CHECKING:
    from harness.training.processes import Processes


class InterruptedRunError(KeyboardInterrupt):
    """Ctrl-C stopped a run; it can be resumed.

    Attributes:
        run: the folder of the run, and its report up to the interruption.
    """

    def __init__(self, run: StoredRun) -> None:
        super().__init__(f"The run was interrupted. Its folder: {run.folder}")
        self.run = run


def run(
    backbone: str | None = None,
    compressor: str | None = None,
    task: str | None = None,
    *,
    spec: str | Path | RunSpec | None = None,
    task_options: Mapping[str, Any] | None = None,
    metrics: str | Iterable[str] | None = None,
    seed: int | None = None,
    preset: str | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    results: str | Path = "results",
    track: Sequence[str] = (),
    snapshot_every: float = 300,
    progress: bool = True,
) -> StoredRun:
    """Fine-tune a backbone with a recipe on a task, and measure speed, memory and quality.

    A run that was interrupted resumes when it is called again with the same arguments. Parts of the
    measurement happen in processes that import the calling script: a script must make this call
    under ``if __name__ == "__main__":``; a notebook needs nothing.

    Args:
        backbone: a registered name, a hub id or a folder; by default ``nano-t5``.
        compressor: the recipe: compressors joined by ``+``; by default ``lora_ff+lprun``.
        task: a registered name, or a file or folder of data; by default ``radiology_demo``.
        spec: a spec file or the ``RunSpec`` of another run; the other arguments replace its
            settings.
        task_options: options of the task, such as ``{"source_column": "article"}``.
        metrics: names of metrics, as a list or separated by commas; by default the task's.
        seed: seeds all generators; by default 0.
        preset: settings to start from: ``paper`` or ``quick``; by default what suits the backbone.
        device: ``auto``, ``cpu`` or ``cuda``.
        settings: any other settings, such as ``{"train.epochs": 3, "test.beams": 1}``.
        results: the results folder; the run gets a folder in it.
        track: trackers to log to: ``tensorboard``, ``mlflow``, ``wandb``.
        snapshot_every: seconds between saves of the training state.
        progress: show progress bars, on a terminal or in a notebook.

    Returns:
        The report and the folder of the run; a notebook shows them as a table. A run that fails
        after its data were read is a result too: see ``report.status`` and ``report.failure``.

    Raises:
        HarnessError: a mistake in the settings or the data, found before anything is measured.
        KeyboardInterrupt: the run was interrupted; its folder holds its results so far.

    Example:
        >>> run = harness.run("nano-t5", "lora_ff", seed=1, settings={"train.max_steps": 60})
        >>> run.report.quality["rouge1"].value
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise HarnessError(
            "harness.run was called while a process that it started imports the script.",
            'Put the call under: if __name__ == "__main__":',
        )
    trackers = [find_tracker(name, Path(results) / FOLDER) for name in dict.fromkeys(track)]
    named = {
        "backbone": backbone,
        "recipe": compressor,
        "task": task,
        "task_options": dict(task_options or {}),
        "metrics": metrics if metrics is None or isinstance(metrics, str) else list(metrics),
        "seed": seed,
        "preset": preset,
        "device": device,
    }
    resolved = run_spec(spec, named, settings)
    observers: list[Progress | Tracker] = [*([Progress()] if progress else []), *trackers]
    if not is_launched():
        return _execute(resolved, Path(results), observers, snapshot_every)
    from harness.running.group import in_group

    return in_group(
        resolved,
        lambda processes: _execute(resolved, Path(results), observers, snapshot_every, processes),
    )


def _execute(
    spec: RunSpec,
    results: Path,
    observers: Sequence[Progress | Tracker],
    snapshot_every: float,
    processes: Processes | None = None,
) -> StoredRun:
    from harness.running.run import Run

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    plugins = installed()
    with ExitStack() as stack:
        for observer in observers:
            stack.enter_context(observer)
            plugins.manager.register(observer)
            stack.callback(plugins.manager.unregister, observer)
        work = Run(spec, plugins, results, save_state_seconds=snapshot_every, processes=processes)
        report, folder = work.execute()
    stored = StoredRun(folder, report, folder.name)
    if report.status == "interrupted":
        raise InterruptedRunError(stored)
    return stored
