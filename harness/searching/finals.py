"""Finals: the most promising recipes, measured, and trained anew with fresh seeds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.api.plugins import Plugins
from harness.costs.entry import profile
from harness.data.hashing import data_hash
from harness.errors import HarnessError
from harness.records.atomic import write_text
from harness.records.profile import Profile, ProfiledRecipe
from harness.records.run_folder import PROFILE
from harness.reporting.profiled_costs import read_profile
from harness.searching.candidates import Candidate, distinct
from harness.searching.needs import Needs
from harness.searching.racing import Track
from harness.searching.rungs import Standing, ranked
from harness.spec.run_spec import BASELINE, RunSpec


def promising(
    finished: Mapping[Candidate, Sequence[float | None]],
    track: Track,
    costs: Mapping[Candidate, tuple[float, float]],
) -> list[Candidate]:
    """Order the candidates that were trained to the end, each recipe with its best learning rate.

    The recipe with the best quality comes first, then the one that is fastest by its operations
    among those that keep enough quality, then the others as ``ranked`` orders them.

    Args:
        finished: candidate -> its scores at all rungs.
        track: the rungs.
        costs: speed and memory of each candidate.
    """
    by_quality = sorted(finished, key=lambda c: -(track.share(finished[c]) or 0.0))
    best = distinct(by_quality)
    standings = [Standing(n, track.share(finished[c]), *costs[c]) for n, c in enumerate(best)]
    order = ranked(standings, track.min_quality)
    if not order:
        return []
    enough = [s for s in order if (s.quality or 0.0) >= track.min_quality]
    first = sorted(enough or order, key=lambda s: -(s.quality or 0.0))[:1]
    fastest = sorted(enough, key=lambda s: -s.speed)[:1]
    return distinct([best[standing.number] for standing in (*first, *fastest, *order)])


def measure(
    candidates: Sequence[Candidate],
    base: RunSpec,
    results: Path,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Measure speed and memory of candidates beside full fine-tuning, or read what was measured.

    Args:
        candidates: the candidates.
        base: the settings of the search's runs.
        results: the folder of the finals, which keeps the profile.
        on_progress: is called with the name of each recipe before it is measured.
    """
    recipes = [BASELINE, *(candidate.recipe for candidate in candidates)]
    with contextlib.suppress(HarnessError):
        stored = read_profile(results)
        if stored and set(recipes) <= {row.recipe for row in stored.recipes}:
            return stored
    probe = base.probe.model_dump(include={"warmup_steps", "steps", "memory_steps"})
    train = base.train.model_dump(exclude_none=True)
    measured = profile(
        base.backbone,
        recipes,
        base.task,
        task_options=base.task_options,
        device=base.device,
        settings={"train": train, "probe": probe},
        on_progress=on_progress,
    )
    results.mkdir(parents=True, exist_ok=True)
    write_text(results / PROFILE, measured.model_dump_json(indent=2) + "\n")
    return measured


def affordable(candidates: Sequence[Candidate], measured: Profile, needs: Needs) -> list[Candidate]:
    """Return the candidates in their order, those last whose measured costs exceed the limits."""
    by_recipe = {row.recipe: row for row in measured.recipes}
    return sorted(candidates, key=lambda c: _exceeds(by_recipe.get(c.recipe), needs))


def _exceeds(row: ProfiledRecipe | None, needs: Needs) -> bool:
    if row is None or row.speed is None or row.memory is None or row.speed.relative is None:
        return True
    excess = needs.excess(row.speed.relative, row.memory.relative, 0.0)
    return any(share > 0 for share in excess)


def check_unseen(base: RunSpec, seeds: Sequence[int], plugins: Plugins) -> None:
    """Check that the splits are the same for all seeds.

    Raises:
        HarnessError: they are drawn anew for each seed, so that a fresh seed would test on what
            the search has seen.
    """
    task = plugins.task(base.task, base.task_options)
    hashes = set()
    for seed in (base.seed, *seeds):
        splits = task.splits(seed)
        hashes.add(data_hash(splits.train, splits.eval, splits.test))
    if len(hashes) > 1:
        raise HarnessError(
            f"The splits of {task.name} are drawn anew for each seed, so that a run with a fresh "
            "seed would be tested on examples that the search has seen.",
            "Fix them: --set task_options.split_seed=0",
        )
