"""Parts of the pages of all studies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.reporting.summary import Estimate, Group
from harness.reporting.wording import bounds, percent
from study.store import TRIALS, Store


def mixed(store: Store, group: Group) -> str:
    """Return a warning if different code trained the runs of the table, or nothing."""
    names = {Path(folder).name for row in group.rows for folder in row.folders}
    codes = {record["code"] for name, record in store.records().items() if name in names}
    if len(codes) < 2:
        return ""
    return (
        f"\nThe runs are of {len(codes)} versions of the training code; `make study` repeats those "
        "of older ones.\n"
    )


def edges(store: Store) -> dict[str, str]:
    """Return, by recipe, the highest learning rate that was tried."""
    highest: dict[str, float] = {}
    for tried in store.read(TRIALS).values():
        recipe: Any = tried["recipe"]
        highest[recipe] = max(highest.get(recipe, 0.0), float(tried["learning_rate"]))
    return {recipe: f"{rate:.3g}" for recipe, rate in highest.items()}


def share_of(share: Estimate) -> str:
    """Write a share with its interval, in percent."""
    interval = bounds(share, 100)
    return f"{percent(share.value)}{f' ({interval})' if interval else ''}"


def listed(recipes: Iterable[str]) -> str:
    """Write recipes in one line of Markdown."""
    return ", ".join(f"`{recipe}`" for recipe in recipes)


def in_bytes(size: int) -> str:
    """Write a size with its unit."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"
