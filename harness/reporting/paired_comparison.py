"""Recipes against full fine-tuning on the same test examples, and what of that is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness.records.atomic import write_text
from harness.records.collector import without_collector
from harness.records.run_folder import PREDICTIONS
from harness.reporting.outcome import Outcome, Request

CACHE = ".cache/comparisons.json"
"""File in the results folder."""

_SMALL = 16_000_000
"""Bytes of predictions that are compared before other processes have started."""

_KEPT = TypeAdapter(dict[str, Outcome])


class Comparisons:
    """Compares, and keeps what it found in the results folder: a bootstrap takes its time.

    What is kept is found again by the ids and the times of the runs that it rests on. The folder
    holds a .gitignore of its own; where it cannot be written, nothing is kept.

    Args:
        results: the folder of all runs; ``None`` keeps nothing.
        processes: most processes that compare at the same time.
    """

    def __init__(self, results: Path | None, processes: int = 1) -> None:
        self._file = results / CACHE if results else None
        self._processes = processes
        self._kept: dict[str, Outcome] = {}
        self._failed: dict[str, Outcome] = {}
        self._new = False
        with contextlib.suppress(OSError, ValidationError), without_collector():
            if self._file:
                self._kept = _KEPT.validate_json(self._file.read_bytes())

    def prepare(
        self,
        groups: Iterable[Sequence[Request]],
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Compare all recipes of all groups that were not compared before.

        Args:
            groups: the recipes of each group, which are compared with shared draws.
            on_progress: is called after each recipe.
        """
        pending = []
        for requests in groups:
            new = [r for r in requests if r.key not in self._kept]
            for _ in range(len(requests) - len(new)):
                on_progress()
            if new:
                pending.append(new)
        for requests, outcomes in self._compared(pending) if pending else ():
            for request, outcome in zip(requests, outcomes, strict=True):
                self._add(request, outcome)
                on_progress()

    def of(self, request: Request) -> Outcome:
        """Compare a recipe's seeds with those of full fine-tuning."""
        key = request.key
        if key not in self._kept and key not in self._failed:
            self.prepare([[request]])
        return self._kept[key] if key in self._kept else self._failed[key]

    def keep(self) -> None:
        """Write what was found."""
        if self._file is None or not self._new:
            return
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(exist_ok=True)
            (self._file.parent / ".gitignore").write_text("*\n")
            write_text(self._file, _KEPT.dump_json(self._kept, exclude_defaults=True).decode())

    def _add(self, request: Request, outcome: Outcome | str) -> None:
        key = request.key
        if isinstance(outcome, str):  # Not kept: what could not be read may be mended.
            self._failed[key] = Outcome(reason=outcome)
        else:
            self._kept[key] = outcome
            self._new = True

    def _compared(
        self, groups: Sequence[Sequence[Request]]
    ) -> Iterator[tuple[Sequence[Request], list[Outcome | str]]]:
        """Yield each group with its outcomes, or why there is none, in the order of their ends."""
        from harness.reporting.group_comparison import compare_group

        left = list(groups)
        if self._processes > 1 and len(left) > 1 and _size(left) > _SMALL:
            # A process that dies, as for lack of memory, leaves its groups to this one.
            with contextlib.suppress(BrokenProcessPool):
                for group, outcomes in _in_processes(list(left), self._processes):
                    left.remove(group)
                    yield group, outcomes
        for group in left:
            yield group, compare_group(group)


def _in_processes(
    groups: Sequence[Sequence[Request]], processes: int
) -> Iterator[tuple[Sequence[Request], list[Outcome | str]]]:
    """Yield each group with its outcomes, in the order of their ends.

    Raises:
        BrokenProcessPool: a process died.
    """
    from harness.interrupts import ignore_sigint_in_children
    from harness.reporting.group_comparison import compare_group

    context = get_context("spawn")  # A fork would copy the threads of a progress bar.
    others = set(active_children())
    pool = ProcessPoolExecutor(processes, mp_context=context)
    try:
        with ignore_sigint_in_children():  # All processes start with the first group.
            running = {pool.submit(compare_group, group): group for group in groups}
        for done in as_completed(running):
            yield running[done], done.result()
    except BaseException:
        # Ctrl-C, maybe twice: no process may be left that the end of this one would wait for.
        for process in set(active_children()) - others:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _size(groups: Sequence[Sequence[Request]]) -> int:
    """Return the bytes of all predictions that are to be read."""
    folders = {
        run.folder
        for group in groups
        for request in group
        for seed in request.seeds
        for run in seed
        if run is not None
    }
    size = 0
    for folder in folders:
        with contextlib.suppress(OSError):
            size += (folder / PREDICTIONS).stat().st_size
    return size
