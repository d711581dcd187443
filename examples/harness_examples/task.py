"""Commit messages (Jiang et al. 2017): write the first line of a message from the diff."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from harness import HarnessError, Metric, Options, Splits, Task, find_metrics, usable_pairs


class CommitOptions(Options):
    """Options of ``commit_messages``."""

    path: Path = Path()
    """Folder of a git repository; by default the current one."""
    max_source_length: int = Field(512, ge=1)
    """Tokens; longer diffs are cut, and counted."""


class CommitMessages(Task[CommitOptions]):
    """Write the first line of a commit's message, given its diff."""

    Options = CommitOptions
    max_target_length = 32

    def __init__(self, reference: str, options: CommitOptions) -> None:
        super().__init__(reference, options)
        self.max_source_length = options.max_source_length

    def splits(self, seed: int) -> Splits:
        """Read all commits; the newest tenth is the test split, and the tenth before it eval."""
        from datasets import Dataset

        git = ["git", "-C", str(self.options.path), "log", "--reverse", "--no-merges"]
        command = [*git, "--patch", "--unified=0", "--format=%x00%H%n%s"]
        log = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        commits = [record.split("\n", 2) for record in log.stdout.split("\0")[1:]]
        if len(commits) < 10:
            raise HarnessError(
                f"{self.options.path} has {len(commits)} commits. {log.stderr}".strip(),
                "Name a repository of at least 10: --set task_options.path=FOLDER",
            )
        ids, targets, diffs = zip(*commits, strict=True)
        kept, skipped = usable_pairs(ids, diffs, targets)
        rows = Dataset.from_dict(kept)
        tenth = max(1, len(rows) // 10)
        ends = [0, len(rows) - 2 * tenth, len(rows) - tenth, len(rows)]
        train, evaluation, test = (rows.select(range(*ends[i : i + 2])) for i in range(3))
        return Splits(train, evaluation, test, dict(skipped))

    def metrics(self) -> Sequence[Metric]:
        """Return the suite; rouge1 chooses the best weights unless the task names another."""
        return find_metrics("rouge", "bleu")
