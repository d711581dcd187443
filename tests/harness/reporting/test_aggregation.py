"""Aggregation of runs to rows: means over seeds, comparisons, and runs that are never mixed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from scipy import stats

from harness import HarnessError, Score
from harness.records.report import Report
from harness.records.run_folder import StoredRun, read_report, read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.scores import read_scores
from harness.reporting.summary import Group, RecipeRow, Summary
from harness.reporting.table import table
from harness.statistics.holm import holm
from harness.statistics.intervals import compare
from tasks.metrics.bleu import Bleu

WriteRun = Callable[..., Path]
RNG = np.random.default_rng


def summary_of(results: Path, **options: Any) -> Summary:
    runs, skipped = read_runs(results)
    assert not skipped
    return summarize(runs, Comparisons(None), **options)


def group_of(results: Path) -> Group:
    (group,) = summary_of(results).groups
    return group


def row_of(group: Group, recipe: str) -> RecipeRow:
    (row,) = [row for row in group.rows if row.recipe == recipe]
    return row


def scores(mean: float, seed: int, count: int = 60) -> list[float]:
    difficulty = RNG(99).normal(0, 10, count)
    return [round(v, 4) for v in mean + difficulty + RNG(seed).normal(0, 3, count)]


@pytest.fixture
def three_recipes(tmp_path: Path, write_run: WriteRun) -> dict[str, list[list[float]]]:
    """Write three seeds each of full fine-tuning and two recipes; recipe -> seed -> scores."""
    scores_of = {}
    for number, (recipe, mean) in enumerate({"full": 40, "lprun": 39.5, "lora_ff": 35}.items()):
        scores_of[recipe] = [scores(mean, 10 * number + seed) for seed in range(3)]
        for seed, values in enumerate(scores_of[recipe]):
            write_run(tmp_path, {"rouge1": values}, recipe=recipe, seed=seed)
    return scores_of


def test_rows_are_means_over_seeds_and_full_comes_first(
    tmp_path: Path, three_recipes: dict[str, list[list[float]]]
) -> None:
    group = group_of(tmp_path)
    assert [row.recipe for row in group.rows] == ["full", "lora_ff", "lprun"]
    for row in group.rows:
        assert row.seeds == [0, 1, 2]
        assert row.quality["rouge1"].value.value == pytest.approx(
            np.mean(three_recipes[row.recipe])
        )
    assert row_of(group, "full").quality["rouge1"].retention is None


def test_comparisons_are_those_of_the_statistics_with_holm_adjustment(
    tmp_path: Path, three_recipes: dict[str, list[list[float]]]
) -> None:
    def as_scores(recipe: str) -> list[Score]:
        return [Score.mean(v, "rouge1|measure:f1") for v in three_recipes[recipe]]

    expected = {r: compare(as_scores(r), as_scores("full")) for r in ("lprun", "lora_ff")}
    adjusted = holm({recipe: comparison.p_value for recipe, comparison in expected.items()})
    group = group_of(tmp_path)
    for recipe, comparison in expected.items():
        quality = row_of(group, recipe).quality["rouge1"]
        assert quality.difference
        assert quality.retention
        assert comparison.retention
        for name in ("value", "low", "high"):
            for shown, computed in (
                (quality.difference, comparison.difference),
                (quality.retention, comparison.retention),
            ):
                assert getattr(shown, name) == pytest.approx(getattr(computed, name))
        assert quality.p_value == pytest.approx(adjusted[recipe])
    assert row_of(group, "lora_ff").quality["rouge1"].significant
    assert not row_of(group, "lprun").quality["rouge1"].significant


def test_another_recipe_can_be_the_baseline_of_quality(
    tmp_path: Path, three_recipes: dict[str, list[list[float]]]
) -> None:
    def as_scores(recipe: str) -> list[Score]:
        return [Score.mean(v, "rouge1|measure:f1") for v in three_recipes[recipe]]

    summary = summary_of(tmp_path, baseline="lora_ff")
    (group,) = summary.groups
    assert [row.recipe for row in group.rows] == ["lora_ff", "full", "lprun"]
    expected = {r: compare(as_scores(r), as_scores("lora_ff")) for r in ("lprun", "full")}
    adjusted = holm({recipe: comparison.p_value for recipe, comparison in expected.items()})
    for recipe, comparison in expected.items():
        quality = row_of(group, recipe).quality["rouge1"]
        assert quality.difference
        assert quality.retention
        assert quality.difference.value == pytest.approx(comparison.difference[0])
        assert quality.retention.value > 1
        assert quality.p_value == pytest.approx(adjusted[recipe])
    text = click.unstyle(table(summary))
    assert "quality kept, % of lora_ff's:" in text
    assert "*: differs from lora_ff (paired" in text
    assert "lprun: R-1 is higher than lora_ff's by 4." in text
    assert "differs from full" not in text
    # The cache of one baseline's comparisons does not answer for another.
    runs, _ = read_runs(tmp_path)
    cached = Comparisons(None)
    summarize(runs, cached)
    again = summarize(runs, cached, baseline="lora_ff").groups[0]
    assert row_of(again, "lprun").quality == row_of(group, "lprun").quality


def test_a_seed_that_the_baseline_lacks_is_named(tmp_path: Path, write_run: WriteRun) -> None:
    for recipe, seeds in (("lprun", [0]), ("lora_ff", [0, 1])):
        for seed in seeds:
            write_run(tmp_path, {"rouge1": scores(40, seed)}, recipe=recipe, seed=seed)
    (group,) = summary_of(tmp_path, baseline="lprun").groups
    assert row_of(group, "lora_ff").not_compared == "lprun lacks seed 1"


def test_with_one_seed_the_p_value_is_that_of_the_paired_t_test_and_the_notes_say_so(
    tmp_path: Path, write_run: WriteRun
) -> None:
    full, lora = scores(40, 1), scores(39, 2)
    write_run(tmp_path, {"rouge1": full})
    write_run(tmp_path, {"rouge1": lora}, recipe="lora_ff")
    group = group_of(tmp_path)
    quality = row_of(group, "lora_ff").quality["rouge1"]
    assert quality.p_value == pytest.approx(stats.ttest_rel(lora, full).pvalue, rel=0.2)
    assert (quality.value.low, quality.value.high) == pytest.approx(
        (np.mean(lora) - 1, np.mean(lora) + 1)
    )
    assert any("One seed" in note and "test examples only" in note for note in group.notes)


def test_where_less_is_better_retention_is_full_over_recipe(
    tmp_path: Path, write_run: WriteRun
) -> None:
    for recipe, mean in (("full", 40), ("lprun", 50)):
        values = {"error": scores(mean, 3)}
        write_run(tmp_path, values, recipe=recipe, lower_is_better=["error"])
    quality = row_of(group_of(tmp_path), "lprun").quality["error"]
    full, pruned = np.mean(scores(40, 3)), np.mean(scores(50, 3))
    assert quality.difference
    assert quality.difference.value == pytest.approx(pruned - full)
    assert quality.retention
    assert quality.retention.value == pytest.approx(full / pruned)
    assert quality.significant


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"decoding": "greedy"}, "decoded with greedy, full fine-tuning with beam_search|beams:6"),
        ({"data": {"sha256": "00" * 32}}, "the data are not those of full fine-tuning"),
    ],
)
def test_different_decoding_or_data_are_not_compared_and_the_notes_say_why(
    tmp_path: Path, write_run: WriteRun, changes: dict[str, Any], reason: str
) -> None:
    folder = write_run(tmp_path, {"rouge1": scores(40, 1)})
    if "data" in changes:
        data = json.loads((folder / "report.json").read_text())["data"]
        changes = {"data": {**data, **changes["data"]}}
    write_run(tmp_path, {"rouge1": scores(39, 2)}, recipe="lprun", **changes)
    group = group_of(tmp_path)
    row = row_of(group, "lprun")
    assert row.quality["rouge1"].difference is None
    assert row.quality["rouge1"].value.value == pytest.approx(np.mean(scores(39, 2)))
    assert row.not_compared == reason
    assert f"lprun: {reason}." in group.notes


def test_other_test_examples_are_not_compared(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, {"rouge1": scores(40, 1)})
    write_run(tmp_path, {"rouge1": scores(39, 2)[:-1]}, recipe="lprun")
    row = row_of(group_of(tmp_path), "lprun")
    assert row.not_compared == "the test examples are not those of full fine-tuning"


def test_different_signatures_are_not_compared(tmp_path: Path, write_run: WriteRun) -> None:
    write_run(tmp_path, {"rouge1": scores(40, 1)})
    folder = write_run(tmp_path, {"rouge1": scores(39, 2)}, recipe="lprun")
    text = (folder / "report.json").read_text()
    (folder / "report.json").write_text(text.replace("rouge1|measure:f1", "rouge1|measure:recall"))
    group = group_of(tmp_path)
    assert row_of(group, "lprun").quality["rouge1"].difference is None
    assert any("lprun, rouge1: Different metrics" in note for note in group.notes)


def test_missing_or_damaged_predictions_are_a_note_not_a_failure(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, {"rouge1": scores(40, 1)})
    for recipe, content in (("lprun", None), ("lora_ff", "{"), ("lora_qv", "[1]\n")):
        path = write_run(tmp_path, {"rouge1": scores(39, 2)}, recipe=recipe) / "predictions.jsonl"
        path.unlink() if content is None else path.write_text(content)
    group = group_of(tmp_path)
    for recipe, word in (
        ("lprun", "is missing"),
        ("lora_ff", "damaged"),
        ("lora_qv", "no predictions"),
    ):
        row = row_of(group, recipe)
        assert row.quality["rouge1"].value.value == pytest.approx(np.mean(scores(39, 2)))
        assert row.not_compared
        assert word in row.not_compared


def test_runs_with_different_settings_are_separate_groups(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, {"rouge1": scores(40, 1)}, settings="aa", id="one")
    write_run(tmp_path, {"rouge1": scores(30, 2)}, settings="bb", recipe="lprun", id="two")
    groups = summary_of(tmp_path).groups
    assert [(g.settings, [r.recipe for r in g.rows]) for g in groups] == [
        ("aa", ["full"]),
        ("bb", ["lprun"]),
    ]
    assert any("repeat the same command with --compressor full" in n for n in groups[1].notes)


def test_of_runs_of_one_seed_the_last_good_one_counts(tmp_path: Path, write_run: WriteRun) -> None:
    failure = {"phase": "train", "message": "no memory"}
    times = [f"2024-05-0{day}T00:00:00+00:00" for day in (1, 2, 3)]
    write_run(tmp_path, {"rouge1": [1.0, 2.0]}, id="first", started=times[0])
    write_run(tmp_path, {"rouge1": [3.0, 4.0]}, id="second", started=times[1])
    failed = write_run(tmp_path, {"rouge1": [0.0, 0.0]}, id="third", started=times[2])
    report = read_report(failed).model_copy(update={"status": "oom"})
    values = {**report.model_dump(mode="json"), "failure": failure, "quality": {}}
    (failed / "report.json").write_text(json.dumps(values))
    group = group_of(tmp_path)
    (row,) = group.rows
    assert (row.runs, row.status, row.failures) == (["second"], "ok", {})
    assert any("2 runs were left out" in note for note in group.notes)


def test_failed_seeds_are_named_and_the_others_count(tmp_path: Path, write_run: WriteRun) -> None:
    failure = {"phase": "train", "message": "no memory"}
    write_run(tmp_path, {"rouge1": scores(40, 1)}, seed=0)
    write_run(tmp_path, {}, seed=1, status="oom", failure=failure)
    write_run(tmp_path, {}, recipe="lprun", status="nan", failure=failure)
    group = group_of(tmp_path)
    full, lprun = group.rows
    assert (full.status, full.seeds, full.failures) == ("ok", [0], {1: "oom in train"})
    assert (lprun.status, lprun.seeds, lprun.quality) == ("nan", [], {})
    assert "full, seed 1: oom in train." in group.notes


def test_a_seed_that_full_lacks_counts_in_the_mean_only(
    tmp_path: Path, write_run: WriteRun
) -> None:
    full, pruned = scores(40, 1), [scores(38, 2), scores(39, 3)]
    write_run(tmp_path, {"rouge1": full})
    for seed, values in enumerate(pruned):
        write_run(tmp_path, {"rouge1": values}, recipe="lprun", seed=seed)
    row = row_of(group_of(tmp_path), "lprun")
    quality = row.quality["rouge1"]
    assert quality.value.value == pytest.approx(np.mean(pruned))
    assert quality.difference
    assert quality.difference.value == pytest.approx(np.mean(pruned[0]) - np.mean(full))
    assert row.not_compared == "full fine-tuning lacks seed 1"


def test_several_processes_are_noted(
    tmp_path: Path, write_run: WriteRun, make_report: Callable[..., Report]
) -> None:
    training = make_report().training
    assert training
    write_run(tmp_path, {"rouge1": scores(40, 1)})
    together = training.model_copy(update={"processes": 2}).model_dump()
    write_run(tmp_path, {"rouge1": scores(39, 2)}, recipe="lprun", training=together)
    group = group_of(tmp_path)
    assert [row.processes for row in group.rows] == [[1], [2]]
    (note,) = [note for note in group.notes if "processes" in note]
    assert note.startswith("lprun was trained in 2 processes")


def test_different_fingerprints_are_noted_and_there_is_no_front(
    tmp_path: Path, write_run: WriteRun
) -> None:
    folder = write_run(tmp_path, {"rouge1": scores(40, 1)})
    fingerprint = json.loads((folder / "report.json").read_text())["fingerprint"]
    changed = {
        **fingerprint,
        "threads": 7,
        "versions": {**fingerprint["versions"], "torch": "2.12"},
    }
    write_run(tmp_path, {"rouge1": scores(40, 2)}, recipe="lprun", fingerprint=changed)
    group = group_of(tmp_path)
    (note,) = [note for note in group.notes if "not comparable" in note]
    assert "threads (2, 7)" in note
    assert "torch (2.12, 2.13.0)" in note
    assert "transformers" not in note
    assert {row.on_front for row in group.rows} == {None}


def test_bleu_is_computed_again_from_the_texts(tmp_path: Path, write_run: WriteRun) -> None:
    rows = [
        {
            "id": str(n),
            "source": "s",
            "reference": f"the small nodule number {n} in the left lung has not grown",
            "prediction": f"the nodule number {n} in the {side} lung has not grown since",
        }
        for n, side in enumerate(["left", "right", "left", "upper"])
    ]
    computed = Bleu().score(
        *([row[f] for row in rows] for f in ("source", "prediction", "reference"))
    )
    bleu = computed["bleu"]
    folder = write_run(tmp_path, {"bleu": bleu.examples})
    lines = [{**row, "scores": {"bleu": e}} for row, e in zip(rows, bleu.examples, strict=True)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    report = read_report(folder)
    report.quality["bleu"].value = bleu.value
    report.quality["bleu"].signature = bleu.signature
    assert bleu.value != pytest.approx(np.mean(bleu.examples), abs=0.1)
    read = read_scores(folder, report, ["bleu"])
    assert np.array_equal(read.scores["bleu"].statistics, bleu.statistics)
    assert read.scores["bleu"].value == bleu.value

    report.quality["bleu"].signature = "bleu|another version"
    read = read_scores(folder, report, ["bleu"])
    assert read.scores == {}
    assert "computed as bleu|another version" in read.missing["bleu"]

    report.quality["bleu"].signature = bleu.signature
    report.quality["bleu"].value = bleu.value + 5
    assert "do not have the reported score" in read_scores(folder, report, ["bleu"]).missing["bleu"]


def test_comparisons_are_cached_until_a_run_changes(
    tmp_path: Path, write_run: WriteRun, three_recipes: dict[str, list[list[float]]]
) -> None:
    def summarized() -> Summary:
        comparisons = Comparisons(tmp_path)
        summary = summarize(read_runs(tmp_path)[0], comparisons)
        comparisons.keep()
        return summary

    first = summarized()
    cache = tmp_path / ".cache"
    assert (cache / ".gitignore").read_text() == "*\n"
    for path in tmp_path.glob("*/predictions.jsonl"):
        path.unlink()
    assert summarized() == first
    write_run(
        tmp_path,
        {"rouge1": scores(20, 50)},
        recipe="lora_ff",
        started="2025-01-01T00:00:00+00:00",
    )
    after = row_of(summarized().groups[0], "lora_ff")
    assert after.not_compared
    assert "predictions.jsonl is missing" in after.not_compared
    (cache / "comparisons.json").write_text("no JSON")
    assert row_of(summarized().groups[0], "lprun").not_compared


def test_predictions_that_could_not_be_read_are_read_again(
    tmp_path: Path, write_run: WriteRun
) -> None:
    def compared() -> RecipeRow:
        comparisons = Comparisons(tmp_path)
        (group,) = summarize(read_runs(tmp_path)[0], comparisons).groups
        comparisons.keep()
        return row_of(group, "lprun")

    write_run(tmp_path, {"rouge1": scores(40, 1)})
    path = write_run(tmp_path, {"rouge1": scores(39, 2)}, recipe="lprun") / "predictions.jsonl"
    elsewhere = path.rename(tmp_path / "elsewhere.jsonl")
    assert compared().not_compared
    elsewhere.rename(path)
    assert not compared().not_compared
    assert compared().quality["rouge1"].difference


def test_metrics_can_be_chosen_and_those_of_plugins_come_last(
    tmp_path: Path, write_run: WriteRun
) -> None:
    write_run(tmp_path, {"zeta": [1.0, 2.0], "alpha": [1.0, 2.0], "rougeL": [3.0, 4.0]})
    assert summary_of(tmp_path).metrics == ["rougeL", "alpha", "zeta"]
    chosen = summary_of(tmp_path, metrics=["alpha"])
    assert list(chosen.groups[0].rows[0].quality) == ["alpha"]


def test_a_missing_run_is_an_error(tmp_path: Path, write_run: WriteRun) -> None:
    folder = write_run(tmp_path, {"rouge1": [1.0, 2.0]})
    stored = StoredRun(tmp_path / "gone", read_report(folder))
    with pytest.raises(HarnessError, match=r"predictions\.jsonl is missing"):
        read_scores(stored.folder, stored.report, ["rouge1"])


def test_groups_with_different_settings_name_the_differences(
    tmp_path: Path, write_run: WriteRun
) -> None:
    for settings, steps in (("aa", 4), ("bb", 100)):
        folder = write_run(tmp_path, {"rouge1": [1.0, 2.0]}, settings=settings, id=settings)
        spec = f"seed = {steps}\n[train]\nmax_steps = {steps}\nepochs = 3\n"
        (folder / "spec.toml").write_text(spec)
    first, second = summary_of(tmp_path).groups
    assert not any("other settings" in note for note in first.notes)
    (note,) = [note for note in second.notes if "other settings" in note]
    assert note.endswith("other settings (train.max_steps 4 there, 100 here).")
