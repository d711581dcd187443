"""Compare recipes with full fine-tuning on the same test examples, with a cache on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness.records.atomic import write_text
from harness.records.collector import without_collector
from harness.records.run_folder import PREDICTIONS
from harness.reporting.outcome import Outcome, Request

CACHE = ".cache/comparisons.json"
"""Path of the cache, relative to the results folder."""

_SMALL = 16_000_000
"""Size of predictions, in bytes, below which other processes would start too late to help."""

_OUTCOMES = TypeAdapter(dict[str, Outcome])


class Comparisons:
    """Compares recipes with full fine-tuning, and caches the outcomes in the results folder.

    A cached outcome is identified by the ids and times of its runs. The cache's folder has its own
    .gitignore. If the folder cannot be written, nothing is cached.

    Args:
        results: the results folder; ``None`` caches nothing.
        processes: largest number of processes that compare at the same time.
    """

    def __init__(self, results: Path | None, processes: int = 1) -> None:
        self._file = results / CACHE if results else None
        self._processes = processes
        self._cached: dict[str, Outcome] = {}
        self._failed: dict[str, Outcome] = {}
        self._is_changed = False
        with contextlib.suppress(OSError, ValidationError), without_collector():
            if self._file:
                self._cached = _OUTCOMES.validate_json(self._file.read_bytes())

    def prepare(
        self,
        groups: Iterable[Sequence[Request]],
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """Compare all recipes of all groups, except those in the cache.

        Args:
            groups: the requests of each group; the recipes of a group share their draws.
            on_progress: is called after each recipe.
        """
        pending = []
        for requests in groups:
            new = [r for r in requests if r.key not in self._cached]
            for _ in range(len(requests) - len(new)):
                on_progress()
            if new:
                pending.append(new)
        for requests, outcomes in self._compared(pending) if pending else ():
            for request, outcome in zip(requests, outcomes, strict=True):
                self._add(request, outcome)
                on_progress()

    def of(self, request: Request) -> Outcome:
        """Return the comparison of a recipe, computed first if it is not cached."""
        key = request.key
        if key not in self._cached and key not in self._failed:
            self.prepare([[request]])
        return self._cached[key] if key in self._cached else self._failed[key]

    def keep(self) -> None:
        """Write the cache if it has changed."""
        if self._file is None or not self._is_changed:
            return
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(exist_ok=True)
            (self._file.parent / ".gitignore").write_text("*\n")
            write_text(
                self._file, _OUTCOMES.dump_json(self._cached, exclude_defaults=True).decode()
            )

    def _add(self, request: Request, outcome: Outcome | str) -> None:
        key = request.key
        if isinstance(outcome, str):  # Not cached: a file that could not be read may be repaired.
            self._failed[key] = Outcome(reason=outcome)
        else:
            self._cached[key] = outcome
            self._is_changed = True

    def _compared(
        self, groups: Sequence[Sequence[Request]]
    ) -> Iterator[tuple[Sequence[Request], list[Outcome | str]]]:
        """Yield each group with an outcome or a reason for each recipe, as the groups finish."""
        from harness.reporting.group_comparison import compare_group

        left = list(groups)
        if self._processes > 1 and len(left) > 1 and _size(left) > _SMALL:
            # If a process dies, as for lack of memory, this one compares the remaining groups.
            with contextlib.suppress(BrokenProcessPool):
                for group, outcomes in _in_processes(list(left), self._processes):
                    left.remove(group)
                    yield group, outcomes
        for group in left:
            yield group, compare_group(group)


def _in_processes(
    groups: Sequence[Sequence[Request]], processes: int
) -> Iterator[tuple[Sequence[Request], list[Outcome | str]]]:
    """Compare groups in several processes; yield each with its outcomes as it finishes.

    Raises:
        BrokenProcessPool: a process died.
    """
    from harness.interrupts import ignore_sigint_in_children, process_pool
    from harness.reporting.group_comparison import compare_group

    with process_pool(processes) as pool:
        with ignore_sigint_in_children():  # All processes start with the first group.
            running = {pool.submit(compare_group, group): group for group in groups}
        for done in as_completed(running):
            yield running[done], done.result()


def _size(groups: Sequence[Sequence[Request]]) -> int:
    """Return the size of all predictions of the groups, in bytes."""
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
