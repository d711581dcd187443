"""The profile of all recipes: speed and memory relative to full fine-tuning, on one machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import harness
from harness.errors import HarnessError
from harness.records.atomic import write_text
from harness.records.profile import Profile
from harness.records.run_folder import PROFILE
from harness.reporting.profiled_costs import read_profile
from study.size import BACKBONE

TOGETHER = 4
"""Recipes that are measured beside one process of full fine-tuning, before the file is written."""


def measure(
    folder: Path, recipes: Sequence[str], task: str, on_progress: Callable[[str], None]
) -> None:
    """Profile the recipes that the folder's profile lacks.

    A profile of another machine or of other software is measured again as a whole.

    Args:
        folder: the results folder of the study.
        recipes: the recipes in canonical form.
        task: the task whose examples are trained on.
        on_progress: is called with the name of each recipe before it is measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    so_far = read_profile(folder)
    left = list(recipes)
    while left := [r for r in left if so_far is None or r not in _measured(so_far)]:
        together = left[:TOGETHER]
        try:
            new = _profile(together, task, on_progress)
        except HarnessError:  # One of them cannot train here: find it.
            left = left[len(together) :]
            for recipe in together:
                try:
                    so_far = _joined(so_far, _profile([recipe], task, on_progress))
                except HarnessError as error:
                    on_progress(f"{recipe} is left out: {error.message}")
        else:
            so_far = _joined(so_far, new)
        if so_far is not None:
            write_text(folder / PROFILE, so_far.model_dump_json(indent=1) + "\n")


def _profile(recipes: Sequence[str], task: str, on_progress: Callable[[str], None]) -> Profile:
    return harness.profile(
        BACKBONE,
        recipes,
        task,
        data="own",
        device="cpu",
        settings={"train.batch_size": 16, "probe.steps": 3, "probe.rounds": 2},
        on_progress=on_progress,
    )


def _measured(profile: Profile) -> set[str]:
    return {row.recipe for row in profile.recipes}


def _joined(before: Profile | None, new: Profile) -> Profile:
    # The commit is left out: it changes with any file of the checkout.
    if before is None or _without_commit(before) != _without_commit(new):
        return new
    return new.model_copy(update={"recipes": [*before.recipes, *new.recipes]})


def _without_commit(profile: Profile) -> dict[str, object]:
    return {**profile.fingerprint.model_dump(), "git": None}
