"""The forecast of a sweep: memory and time of each run, and how they are known."""

from __future__ import annotations

import io
import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from harness import clock
from harness.api.plugins import installed
from harness.cli.sweep_preview import show
from harness.costs.estimate_process import MemoryEstimator
from harness.costs.fit import total_bytes
from harness.costs.parallel_estimate import estimate_parallel
from harness.data.tokenizing import tokenize
from harness.records.report import Report
from harness.records.run_folder import RunFolder
from harness.spec.run_spec import RunSpec, read_toml, resolve
from harness.sweeps.forecast import Forecast, forecast
from harness.sweeps.preview import plan_cells
from harness.sweeps.probes import (
    LIMIT_SECONDS,
    Costs,
    ProbeBatches,
    Probes,
    batches_of,
    probe,
    run_seconds,
)
from harness.sweeps.sweep import SweepCell
from harness.training.resolved_run import resolve_run


@pytest.fixture(scope="module")
def spec(finished_run: Any) -> RunSpec:
    return resolve(read_toml(finished_run.folder / "spec.toml"), "paper")


def seeds_of(spec: RunSpec, recipe: str, *seeds: int) -> list[RunSpec]:
    return [spec.model_copy(update={"recipe": recipe, "seed": seed}) for seed in seeds]


def test_each_kind_of_cell_is_estimated_and_probed_once(spec: RunSpec, tmp_path: Path) -> None:
    specs = [*seeds_of(spec, "lprun", 0, 1), *seeds_of(spec, "lora_ff:r=1000", 0)]
    cell_plans = plan_cells(specs, installed(), tmp_path)
    messages: list[str] = []
    forecasts = forecast(
        cell_plans, tmp_path, here=True, unprobed=None, on_progress=messages.append
    )
    assert [line.split(" on ")[0] for line in messages] == [
        "estimating the memory of lprun",
        "estimating the memory of lora_ff:r=1000",
        "probing lprun",
        "probing lora_ff:r=1000",
    ]
    first, second, wide = (forecasts[plan.cell.id] for plan in cell_plans)
    assert first == second
    assert not first.measured
    assert first.seconds is not None
    assert first.seconds > 0
    assert first.peak_bytes
    assert wide.peak_bytes
    # The wide adapter has 1,000 columns in each of 24 pairs of matrices, with gradients and
    # optimizer state. The other recipe trains all weights of a model with four layers less.
    assert wide.peak_bytes - first.peak_bytes > 16 * 1_000 * (32 + 48) * 12
    assert first.available
    assert first.peak_bytes < first.available
    assert not first.too_large


def test_no_probe_starts_after_the_time_for_probes(spec: RunSpec, tmp_path: Path) -> None:
    (plan,) = plan_cells(seeds_of(spec, "lprun", 0), installed(), tmp_path)
    messages: list[str] = []
    late = Probes(clock.seconds() - 1, messages.append)
    with pytest.raises(TimeoutError, match="the time for probes was over"):
        late.costs(plan.cell.spec, batches_of(plan))
    assert messages == []


def test_an_earlier_run_is_used_instead_of_a_probe(
    finished_run: Any, spec: RunSpec, tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    results = finished_run.folder.parent
    cell_plans = plan_cells(seeds_of(spec, spec.recipe, 0, 1), installed(), results)
    assert [plan.cell.done for plan in cell_plans] == [True, False]
    messages: list[str] = []
    forecasts = forecast(
        cell_plans, results, here=False, unprobed=None, on_progress=messages.append
    )
    assert [line.split(" on ")[0] for line in messages] == [
        f"estimating the memory of {spec.recipe}"
    ]
    (earlier,) = forecasts.values()
    assert cell_plans[1].cell.id in forecasts
    assert earlier.measured
    report = Report.model_validate_json((finished_run.folder / "report.json").read_text())
    assert earlier.seconds == report.seconds
    assert earlier.available is None
    # A run of another task does not count.
    of_another_task = report.model_copy(update={"task": "another"})
    RunFolder(tmp_path, of_another_task.id).finish(of_another_task)
    forecasts = forecast(
        cell_plans, tmp_path, here=True, unprobed="asked not to", on_progress=messages.append
    )
    assert [(f.seconds, f.no_time) for f in forecasts.values()] == [(None, "asked not to")]


def test_the_longest_step_is_searched_in_all_the_data(spec: RunSpec, tmp_path: Path) -> None:
    random, words = Random(0), ["cyst", "liver", "normal", "a", "hepatobiliary", "7.5"]
    texts = [" ".join(random.choices(words, k=random.randint(1, 60))) for _ in range(1000)]
    file = tmp_path / "long.jsonl"
    rows = [json.dumps({"source": text, "target": text[:9]}) + "\n" for text in set(texts)]
    file.write_text("".join(rows))
    (plan,) = plan_cells([spec.model_copy(update={"task": str(file)})], installed(), tmp_path)
    examples = tokenize(plan.splits.train, plan.backbone.tokenizer(), plan.task).examples
    assert len(examples) > 500
    by_length = sorted(len(e.source) + len(e.target) for e in examples)
    longest = batches_of(plan).longest
    assert longest.examples == 4
    assert longest.source_tokens + longest.target_tokens == sum(by_length[-4:])


COSTS = Costs(start=5.0, step=0.5, greedy=0.1, test=2.0)


@pytest.mark.parametrize("baseline", [None, Costs(7.0, 2.0, 0.0, 0.0)])
def test_a_run_takes_the_sum_of_its_parts(
    spec: RunSpec, tmp_path: Path, baseline: Costs | None
) -> None:
    (plan,) = plan_cells(seeds_of(spec, "lprun", 0), installed(), tmp_path)
    batches = batches_of(plan)
    equal = ProbeBatches([batches.longest], batches.longest)

    def seconds(steps: int) -> float:
        cell = replace(plan.cell, steps=steps)
        return run_seconds(plan._replace(cell=cell), spec, equal, COSTS, baseline)

    evals, tests = 6, 6
    # An epoch has twelve steps and four evaluations.
    assert seconds(24) - seconds(12) == pytest.approx(12 * 0.5 + 4 * evals * 0.1)
    # Speed: 3 warm-ups of 1 step, 2 rounds of 2 windows of 1 step. Memory: 1 + 3 + 2 steps.
    probed = (3 + 4) + 6
    full = 2 * 7 + probed * 2.0 if baseline else 0
    expected = 5 + 2 * 5 + probed * 0.5 + full + 12 * 0.5 + 4 * evals * 0.1 + tests * 2
    assert seconds(12) == pytest.approx(expected)


def cells(*recipes: str) -> list[SweepCell]:
    return [
        SweepCell(
            RunSpec(recipe=recipe, seed=seed), f"{recipe}-{seed}", recipe, 120, recipe == "full"
        )
        for seed in (0, 1)
        for recipe in recipes
    ]


def printed(width: int, shown_cells: list[SweepCell], forecasts: dict[str, Forecast]) -> list[str]:
    file = io.StringIO()
    show(Console(file=file, width=width, highlight=False), shown_cells, forecasts)
    return file.getvalue().splitlines()


FORECASTS = {
    "lora_ff+lprun-0": Forecast(seconds=65, peak_bytes=2**29, available=2**33),
    "lora_ff+lprun-1": Forecast(seconds=70, measured=True, peak_bytes=2**29, available=2**33),
    "lprun-0": Forecast(no_time="it does not fit", peak_bytes=2**34, available=2**33),
    "lprun-1": Forecast(no_time="it does not fit", no_memory="looks at values"),
}


def test_the_table_shows_forecasts_and_reasons_for_missing_ones() -> None:
    lines = printed(80, cells("full", "lora_ff+lprun", "lprun"), FORECASTS)
    assert [line.split() for line in lines[:7]] == [
        ["nano-t5", "on", "radiology_demo", "steps", "time", "GiB"],
        ["full,", "seed", "0", "120", "done"],
        ["lora_ff+lprun,", "seed", "0", "120", "~1:05", "0.50"],
        ["lprun,", "seed", "0", "120", "?", "16.00", "!"],
        ["full,", "seed", "1", "120", "done"],
        ["lora_ff+lprun,", "seed", "1", "120", "1:10", "0.50"],
        ["lprun,", "seed", "1", "120", "?", "?"],
    ]
    text = "\n".join(lines)
    assert "6 runs, 2 of them done. 2 of the others take about 2:15 together." in text
    assert "! is more than the 8.00 GiB" in text
    assert "? time of lprun, seed 0; lprun, seed 1: it does not fit" in text
    assert "? GiB of lprun, seed 1: looks at values" in text


NAMES = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=60)


@given(st.integers(40, 120), NAMES)
def test_no_line_of_the_table_is_wider_than_the_terminal(width: int, name: str) -> None:
    renamed = [
        replace(cell, recipe=name) if cell.recipe == "lprun" else cell
        for cell in cells("full", "lora_ff+lprun", "lprun")
    ]
    lines = printed(width, renamed, FORECASTS)
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("6 runs, "))]
    assert all(cell_len(line) <= width for line in table)
    assert "".join(lines).count("120") >= 6


def test_several_processes_have_the_memory_of_each_and_are_not_probed(
    spec: RunSpec, tmp_path: Path
) -> None:
    (plan,) = plan_cells(seeds_of(spec, "full", 0), installed(), tmp_path, processes=2)
    messages: list[str] = []
    forecasts = forecast(
        [plan], tmp_path, here=True, unprobed=None, on_progress=messages.append, processes=2
    )
    (found,) = forecasts.values()
    assert found.no_time == "a probe is one process, and the run will be several"
    assert [line.split(" on ")[0] for line in messages] == ["estimating the memory of full"]
    run = resolve_run(spec.model_copy(update={"recipe": "full"}), plan.backbone, plan.recipe)
    run = run.with_checkpointing("off")
    planned = estimate_parallel(run, batches_of(plan).longest, 2, 10**12)
    assert (planned.parallel, found.divided) == ("ddp", False)
    assert found.peak_bytes
    # The rest is the process beside its tensors.
    assert 2**26 < found.peak_bytes - planned.tensor_bytes < 2**31
    total = total_bytes(torch.device("cpu"))
    assert total
    assert found.available == total // 2


def test_the_table_says_whose_memory_it_is_and_which_models_are_divided() -> None:
    two = Forecast(no_time="", peak_bytes=2**30, processes=2)
    forecasts = {"a-0": two, "a-1": replace(two, divided=True)}
    text = " ".join(printed(200, cells("a"), forecasts))
    assert "GiB: peak memory of training, of each of 2 processes, estimated" in text
    assert "The processes divide the model of a, seed 1, if a device has 80 GB." in text
    assert "processes" not in " ".join(printed(200, cells("a"), {"a-0": Forecast(peak_bytes=1)}))


def test_notes_appear_only_where_they_apply() -> None:
    lines = printed(80, cells("full"), {})
    assert lines[-1] == "2 runs, 2 of them done."
    assert len(lines) == 4


def test_cells_that_differ_in_the_seed_only_are_of_one_kind(spec: RunSpec, tmp_path: Path) -> None:
    texts = ["lprun", "lora_ff + lprun", "lprun+lora_ff"]
    specs = [s for text in texts for s in seeds_of(spec, text, 0, 3)]
    kinds = [plan.kind for plan in plan_cells(specs, installed(), tmp_path)]
    assert len(set(kinds)) == 2
    assert kinds[0] == kinds[1]
    assert kinds[2] == kinds[3] == kinds[4] == kinds[5]


@pytest.mark.usefixtures("any_processes")
def test_an_estimate_or_probe_that_times_out_or_dies_has_a_reason(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plan,) = plan_cells(seeds_of(spec, "lprun", 0), installed(), tmp_path)
    longest = batches_of(plan).longest
    with MemoryEstimator(timeout=0.01) as estimate:  # No process starts this fast.
        late = estimate(plan.cell.spec, longest)
        assert (late.peak_bytes, late.reason) == (
            None,
            "estimating it took longer than 0.01 seconds",
        )
        estimate.timeout = LIMIT_SECONDS
        finished = estimate(plan.cell.spec, longest)
        assert finished.peak_bytes
        assert multiprocessing.active_children()
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        dead = estimate(plan.cell.spec, longest)
        assert (dead.peak_bytes, dead.reason) == (None, "the process that estimated it died")
        again = estimate(plan.cell.spec, longest)
        assert again.peak_bytes == pytest.approx(finished.peak_bytes, rel=0.05)
    assert multiprocessing.active_children() == []
    monkeypatch.setattr("harness.sweeps.probes.LIMIT_SECONDS", 0.001)
    with pytest.raises(TimeoutError, match=r"a probe took longer than 0\.001 seconds"):
        probe(plan.cell.spec, batches_of(plan))
