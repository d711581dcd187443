"""Notes on a training whose steps were taken by different numbers of processes."""

from __future__ import annotations

from itertools import pairwise

from harness.training.state import Progress


def division_notes(progress: Progress) -> list[str]:
    """Return a note if the number of processes changed, which says what changed with it."""
    if len(progress.divisions) < 2:
        return []
    ends = [*progress.divisions, (progress.step, 0)]
    parts = [
        f"steps {first + 1:,} to {last:,} by {count}"
        for (first, count), (last, _) in pairwise(ends)
    ]
    return [
        f"The number of processes changed: {', '.join(parts)}. The examples and their order are "
        "those of one process. Each process draws its own dropout, so that its masks are not those "
        "of a training whose number of processes did not change."
    ]
