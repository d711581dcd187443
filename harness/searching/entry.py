"""A search from Python: ``harness.search``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from harness.api.plugins import Plugins, installed
from harness.errors import BusyError, HarnessError
from harness.records.atomic import write_text
from harness.searching.baseline import train_baseline
from harness.searching.budget import Budget
from harness.searching.candidates import Candidate, eval_metric
from harness.searching.course import Course, Shape, fresh_seeds
from harness.searching.estimate import Finals
from harness.searching.finals import check_unseen
from harness.searching.fresh_runs import run_finals
from harness.searching.needs import Needs
from harness.searching.record import SearchResult
from harness.searching.result import FILE, result_of
from harness.searching.rounds import race_candidates
from harness.searching.runs import Runs
from harness.searching.screen import Screen
from harness.searching.settings import SearchSettings
from harness.searching.space import TEMPLATES, Space, read_space, split_templates
from harness.searching.study import Study, import_optuna
from harness.searching.trials import Trials
from harness.spec.run_spec import BASELINE, RunSpec, overlay, resolve
from harness.spec.settings import nested_settings
from harness.sweeps.executor import open_executor
from harness.sweeps.preview import plan_cells

RUNS = "runs"
"""Folder of the runs of the search before its finals, in the search's folder."""


def search(
    backbone: str = "nano-t5",
    compressor: str | Iterable[str] | None = None,
    task: str = "radiology_demo",
    *,
    budget: float = 7200,
    min_speed: float | None = None,
    max_memory: float | None = None,
    min_quality: float = 0.95,
    seeds: int = 3,
    finalists: int = 3,
    rates: int = 3,
    round_size: int = 8,
    seed: int = 0,
    preset: str | None = None,
    task_options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    folder: str | Path = "search",
    executor: str = "local",
    progress: bool = True,
    on_message: Callable[[str], None] = lambda _: None,
) -> SearchResult:
    """Search recipes, options and learning rates within a budget, and test the best anew.

    The search compares candidates on the eval split. The finals train the best recipes with fresh
    seeds, and only they use the test split. Call it again with the same arguments to resume a
    search that was stopped, or with a larger budget to go on with one that has ended.

    Args:
        backbone: a registered name, a hub id or a folder.
        compressor: recipes with alternatives in braces, such as ``lora_ff:r={8|16}+lprun``, as a
            list or separated by commas; by default LoRA, pruning of layers and neurons, and both.
        task: a registered name, a file or a folder.
        budget: wall time in seconds, over all starts and with the finals.
        min_speed: least training speed relative to full fine-tuning, such as 1.5.
        max_memory: largest share of full fine-tuning's peak memory, such as 0.5.
        min_quality: least share of full fine-tuning's quality.
        seeds: number of fresh seeds of the finals.
        finalists: number of recipes of the finals, beside full fine-tuning.
        rates: number of learning rates of each recipe, full fine-tuning too: the recipe's own, and
            as many lower as higher ones by factors of 2.
        round_size: largest number of candidates that start together.
        seed: seeds the choice of candidates, and is the seed of all runs before the finals.
        preset: settings to start from: ``paper`` or ``quick``; by default what suits the backbone.
        task_options: options of the task.
        settings: settings of all runs, such as ``{"train.epochs": 3}``.
        folder: the search's folder.
        executor: executor of the runs, such as ``local:jobs=2``.
        progress: show a line for each run.
        on_message: is called with a sentence at each stage.

    Returns:
        What was tried, the Pareto front of the finals, the recommended recipe and its command.

    Raises:
        HarnessError: a mistake in the arguments, missing data, a budget that is too small, or no
            recipe that can meet the limits.
        KeyboardInterrupt: the search was interrupted; its runs saved their states.

    Example:
        >>> found = harness.search(budget=7200, min_speed=1.5, max_memory=0.8)
        >>> found.command
    """
    place, plugins = Path(folder), installed()
    if seeds < 1 or finalists < 1 or round_size < 2:
        raise HarnessError(
            "A search needs at least one fresh seed, one finalist and two candidates a round.",
            "See: harness search --help",
        )
    needs = Needs(min_quality=min_quality, min_speed=min_speed, max_memory=max_memory)
    texts = split_templates(compressor) if isinstance(compressor, str) else compressor
    space = read_space(list(TEMPLATES if texts is None else texts), rates)
    given: dict[str, Any] = {"preset": preset} if preset else {}
    given = overlay(given, {"task_options": dict(task_options)} if task_options else {})
    given = overlay(given, nested_settings(settings or {}))
    base = _base(given, backbone, task, seed, plugins)
    workers = open_executor(executor, plugins)
    import_optuna()
    check_unseen(base, fresh_seeds(seed, seeds), plugins)
    spec = Candidate(BASELINE).spec(base, plugins, seed)
    (reference,) = plan_cells([spec], plugins, place / RUNS)
    asked = SearchSettings(
        backbone=backbone,
        task=task,
        templates=[template.text for template in space.templates],
        rates=rates,
        seed=seed,
        needs=needs,
        settings=given,
        reference=reference.cell.id,
    )
    console = Console(stderr=True, highlight=False) if progress else None
    with _locked(place):
        asked.keep(place)
        clocked = Budget(place, budget)
        try:
            screen = Screen(base, plugins, needs)
            metric = eval_metric(base, plugins)
            runs = Runs(base, plugins, place / RUNS, workers, metric, clocked, console)
            trials = Trials(Study(place, space, seed), space, screen, plugins, seed)
            shape = Shape(rates // 2, round_size, Finals(finalists, seeds))
            course = Course(place, reference, runs, trials, clocked, shape, needs, on_message)
            result = _run(course, space, given)
        finally:
            clocked.save()
        write_text(place / FILE, result.model_dump_json(indent=2) + "\n")
    return result


def _run(course: Course, space: Space, given: Mapping[str, Any]) -> SearchResult:
    """Run all stages within the budget."""
    baseline = train_baseline(course)
    size = baseline.seconds.affordable_finals(course.shape.finals, course.budget.seconds)
    notes = list(race_candidates(course, baseline, size))
    fresh = run_finals(course, baseline, size)
    fresh.notes[:0] = notes
    return result_of(course, baseline, fresh, space, given)


def _base(
    given: Mapping[str, Any], backbone: str, task: str, seed: int, plugins: Plugins
) -> RunSpec:
    """Return the settings of all runs.

    Raises:
        HarnessError: an unknown name or setting, or one that the search chooses by itself.
    """
    plugins.tasks.find(task)
    chosen = {"backbone": backbone, "recipe": BASELINE, "task": task, "seed": seed}
    base = resolve(overlay(given, chosen), plugins.backbone(backbone).preset)
    if base.train.tuned_learning_rate is not None:
        raise HarnessError(
            "The search chooses the learning rates by itself.",
            "Leave out --set train.tuned_learning_rate; --rates N is their number.",
        )
    return base


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the search's folder.

    Raises:
        BusyError: another search holds it.
        HarnessError: the folder cannot be written.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise BusyError(
            f"Another search is at work in {str(folder)!r}.", "Wait for it, or name another --out."
        ) from error
    except OSError as error:
        raise HarnessError(
            f"The folder {str(folder)!r} cannot be written: {error.strerror}.",
            "Name another one with --out FOLDER",
        ) from error
    try:
        yield
    finally:
        lock.release()
