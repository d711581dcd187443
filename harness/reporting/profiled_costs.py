"""Speed and memory of a profile, for runs that did not measure their own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from harness.errors import HarnessError, first_line
from harness.records.measurements import Fingerprint
from harness.records.profile import Profile, ProfiledRecipe
from harness.records.run_folder import PROFILE
from harness.reporting.mean_speed import mean_speed
from harness.reporting.summary import Group, RecipeRow

NOTE = (
    f"Speed and memory are those of {PROFILE}, measured apart from the runs: on one machine, with "
    "random weights and other batches."
)


def read_profile(results: Path) -> Profile | None:
    """Read the profile that lies in a results folder; None if there is none.

    Raises:
        HarnessError: it is not a profile.
    """
    path = results / PROFILE
    try:
        return Profile.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise HarnessError(
            f"{str(path)!r} is not a profile: {first_line(error)}.",
            f"Write it again with harness profile --out {path}, or remove it.",
        ) from error


def add_profiled_costs(group: Group, profile: Profile) -> None:
    """Fill in the speed and memory of rows whose runs measured neither.

    The fingerprints of the group become those that its speed and memory depend on.

    Args:
        group: the group; a profile of another backbone or task changes nothing.
        profile: the profile.
    """
    if (profile.backbone, profile.task) != (group.backbone, group.task):
        return
    by_recipe = {row.recipe: row for row in profile.recipes}
    own = [row for row in group.rows if _has_costs(row)]
    lacking = [row for row in group.rows if row.status == "ok" and not _has_costs(row)]
    filled = [row for row in lacking if _fill(row, by_recipe.get(row.recipe))]
    if not filled:
        return
    group.notes.append(NOTE)
    group.fingerprints = _distinct([*(group.fingerprints if own else ()), profile.fingerprint])
    floors = [r.speed.noise_floor for r in profile.recipes if r.speed and r.speed.noise_floor]
    group.noise_floor = max([*floors, *filter(None, [group.noise_floor])], default=None)


def _has_costs(row: RecipeRow) -> bool:
    return row.tokens_per_s is not None or row.memory_bytes is not None


def _fill(row: RecipeRow, profiled: ProfiledRecipe | None) -> bool:
    """Copy the costs of a recipe into its row; return whether there are any."""
    if profiled is None or profiled.speed is None or profiled.memory is None:
        return False
    speed, memory = profiled.speed, profiled.memory
    row.speed = mean_speed([(speed.relative, speed.relative_ci)])
    row.tokens_per_s = speed.tokens_per_s
    row.memory_bytes, row.memory_relative = memory.peak_bytes, memory.relative
    for name, value in (("speed", row.speed), ("memory_relative", row.memory_relative)):
        if value is not None:
            row.not_measured.pop(name, None)
    return True


def _distinct(fingerprints: Iterable[Fingerprint]) -> list[Fingerprint]:
    distinct: list[Fingerprint] = []
    for fingerprint in fingerprints:
        if fingerprint not in distinct:
            distinct.append(fingerprint)
    return distinct
