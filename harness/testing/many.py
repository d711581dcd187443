"""Checks of many plugins, in one process or several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import Literal

from harness.api.plugin_files import PluginFile
from harness.interrupts import ignore_sigint_in_children, process_pool
from harness.testing.result import CheckReport
from harness.testing.runner import OnResult

Kind = Literal["compressor", "backbone", "task", "metric"]
CHOSEN = {"lprun": "lprun:strategy=top,drop=1", "peft": "peft:type=unilora"}
"""Compressor -> how it is checked where no options are given: its defaults suit no tiny model."""
_MOST = 8
"""Processes at most, unless more are asked for: each holds PyTorch and transformers."""


@dataclass(frozen=True)
class Request:
    """A plugin to check.

    Attributes:
        kind: its kind.
        name: its name, with options as on the command line.
        quick: check a compressor on T5 alone, and a backbone with one recipe.
    """

    kind: Kind
    name: str
    quick: bool = False

    def run(self, on_result: OnResult = lambda _: None) -> CheckReport:
        """Check the plugin in this process.

        Args:
            on_result: is called with each result.

        Raises:
            HarnessError: there is no such plugin.
        """
        from harness import testing

        name = self.name
        if self.kind == "compressor" and self.quick:
            return testing.check_compressor(
                name, families=("t5",), pruned=(False,), on_result=on_result
            )
        if self.kind == "compressor":
            return testing.check_compressor(name, on_result=on_result)
        if self.kind == "backbone":
            recipes = ["lora:targets=all"] if self.quick else None
            return testing.check_backbone(name, recipes=recipes, on_result=on_result)
        if self.kind == "task":
            return testing.check_task(name, on_result=on_result)
        return testing.check_metric(name, on_result=on_result)


def usual_processes() -> int:
    """Return a process for each core, but not so many that their memory matters."""
    return min(os.cpu_count() or 1, _MOST)


def check_many(
    requests: Sequence[Request],
    processes: int,
    files: Sequence[PluginFile],
    on_done: Callable[[Request, int], None],
) -> Iterator[CheckReport]:
    """Check plugins in several processes; yield the reports in the order of the requests.

    Args:
        requests: the plugins.
        processes: number of processes.
        files: plugins that are single files, which each process registers.
        on_done: is called with each plugin that was checked, and the number of those so far.

    Raises:
        HarnessError: there is no such plugin.
        BrokenProcessPool: a process died.
    """
    threads = max(1, (os.cpu_count() or 1) // processes)
    with process_pool(processes, _start, list(files), threads) as pool:
        with ignore_sigint_in_children():
            futures = {pool.submit(_run, request): request for request in requests}
        reports: dict[Request, CheckReport] = {}
        waiting = list(requests)
        for future in as_completed(futures):
            reports[futures[future]] = future.result()
            on_done(futures[future], len(reports))
            while waiting and waiting[0] in reports:
                yield reports[waiting.pop(0)]


def _start(files: Sequence[PluginFile], threads: int) -> None:
    from harness.api.file_plugins import add_file
    from harness.api.plugins import installed

    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # PyTorch is not imported yet.
    for file in files:
        add_file(installed(), file)


def _run(request: Request) -> CheckReport:
    return request.run()
