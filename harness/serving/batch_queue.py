"""The queue of texts, which are grouped into batches that can be decoded at once."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.spec.decoding import DecodingSettings


class Group(NamedTuple):
    """All that texts of one batch have in common.

    Attributes:
        adapter: name of the adapter; None is the model without adapters.
        settings: settings of the search.
    """

    adapter: str | None
    settings: DecodingSettings


@dataclass(eq=False)
class Item:
    """One text that waits for its prediction.

    Attributes:
        source: its token ids.
        group: its adapter and settings.
        arrived: the time at which it arrived.
        prediction: the prediction, once it is there.
    """

    source: list[int]
    group: Group
    arrived: float
    prediction: Future[str] = field(default_factory=Future)

    @property
    def tokens(self) -> int:
        """The tokens that count towards the budget of a batch."""
        settings = self.group.settings
        return len(self.source) + settings.beams * settings.max_new_tokens


class BatchQueue:
    """Texts in the order of their arrival, by group. It knows no time and no threads.

    Args:
        budget: token budget of a batch; every text counts as much as the longest one.
        max_wait: seconds that a text waits for others to share its batch.

    Attributes:
        tokens: tokens of all waiting texts.
    """

    def __init__(self, budget: int, max_wait: float) -> None:
        self.tokens = 0
        self._budget = budget
        self._max_wait = max_wait
        # Dictionaries keep the order, and an item is removed from its middle at once.
        self._groups: dict[Group, dict[Item, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def add(self, items: Iterable[Item]) -> None:
        """Add texts."""
        for item in items:
            self._groups.setdefault(item.group, {})[item] = None
            self.tokens += item.tokens

    def remove(self, items: Iterable[Item]) -> list[Item]:
        """Remove texts, and return those that were still waiting."""
        removed = []
        for item in items:
            group = self._groups.get(item.group, {})
            if item not in group:
                continue
            del group[item]
            self.tokens -= item.tokens
            removed.append(item)
            if not group:
                del self._groups[item.group]
        return removed

    def clear(self) -> None:
        """Remove all texts."""
        self._groups.clear()
        self.tokens = 0

    def take(self, now: float) -> list[Item]:
        """Remove and return the next batch; it is empty if there is none yet.

        The batch begins with the oldest text. Others of its group follow in the order of their
        arrival while the budget lasts. A batch is due when no other text fits, or when its oldest
        text has waited long enough.

        Args:
            now: the present time.
        """
        if not self._groups:
            return []
        group = self._oldest_group()
        batch, full = self._batch(group)
        if not full and now - batch[0].arrived < self._max_wait:
            return []
        return self.remove(batch)

    def due(self, now: float) -> float | None:
        """Return the seconds until a batch is due at the latest; None if no text waits.

        Args:
            now: the present time.
        """
        if not self._groups:
            return None
        oldest = next(iter(self._oldest_group()))
        return max(0.0, oldest.arrived + self._max_wait - now)

    def _oldest_group(self) -> dict[Item, None]:
        return min(self._groups.values(), key=lambda group: next(iter(group)).arrived)

    def _batch(self, group: dict[Item, None]) -> tuple[list[Item], bool]:
        """Return the next batch of a group, and whether no other text would fit."""
        batch: list[Item] = []
        longest = 0
        for item in group:
            longest = max(longest, item.tokens)
            if batch and longest * (len(batch) + 1) > self._budget:
                return batch, True
            batch.append(item)
        return batch, longest * (len(batch) + 1) > self._budget
