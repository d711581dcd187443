"""The lead baseline: retention above the score of the first words of the source."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from harness import Metric, Score
from harness.records.run_folder import StoredRun, read_report, read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.documents import markdown, table_csv
from harness.reporting.lead_baseline import lead, score_lead_baseline
from harness.reporting.paired_comparison import Comparisons
from harness.reporting.scores import RunScores
from harness.reporting.summary import RecipeRow, Summary
from harness.reporting.table import table
from harness.statistics.intervals import compare
from tasks.metrics.bleu import Bleu
from tasks.metrics.rouge import Rouge

WriteRun = Callable[..., Path]

WORDS = ["mass", "lung", "left", "right", "small", "large", "new", "seen", "in", "the", "heart"]


def texts(seed: int, count: int = 40) -> list[dict[str, str]]:
    """Return sources of thirty words; references of eight words share some of the first ten."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        source = rng.choice(WORDS, 30)
        reference = [*rng.choice(source[:10], 4), *rng.choice(WORDS, 4)]
        rows.append(
            {"id": f"t{number}", "source": " ".join(source), "reference": " ".join(reference)}
        )
    return rows


def predicted(rows: list[dict[str, str]], right: float, seed: int) -> list[dict[str, str]]:
    """Return the rows with predictions; each word is right with this probability."""
    rng = np.random.default_rng(seed)
    predictions = []
    for row in rows:
        words = [
            w if rng.random() < right else str(rng.choice(WORDS)) for w in row["reference"].split()
        ]
        predictions.append({**row, "prediction": " ".join(words)})
    return predictions


def write(
    results: Path, write_run: WriteRun, rows: list[dict[str, str]], **changes: Any
) -> dict[str, Score]:
    """Write a run with predictions and their scores, one of a metric that needs a model."""
    columns = [[row[text] for row in rows] for text in ("source", "prediction", "reference")]
    scores: dict[str, Score] = {}
    metrics: list[Metric] = [Rouge(), Bleu()]
    for metric in metrics:
        scores |= metric.score(*columns)
    scores["bertscore"] = Score.mean([80.0 + i for i in range(len(rows))], "bertscore|some")
    folder = write_run(results, {name: score.examples for name, score in scores.items()}, **changes)
    lines = [
        {**row, "scores": {name: score.examples[at] for name, score in scores.items()}}
        for at, row in enumerate(rows)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    report = read_report(folder)
    for name, score in scores.items():
        report.quality[name].value = score.value
        report.quality[name].signature = score.signature
    (folder / "report.json").write_text(report.model_dump_json())
    return scores


def summary_of(results: Path) -> Summary:
    return summarize(read_runs(results)[0], Comparisons(results))


def lprun(summary: Summary) -> RecipeRow:
    (group,) = summary.groups
    return next(row for row in group.rows if row.recipe == "lprun")


def test_the_lead_has_as_many_words_as_the_reference() -> None:
    assert lead("One  two\nthree four", ["a b c"]) == "One two three"
    assert lead("One two", ["a b c"]) == "One two"
    assert lead("One two", [""]) == ""
    # With several references the lead has their mean length.
    assert lead("One two three four", ["a", "a b c"]) == "One two"
    # Chinese words are not separated by white space.
    chinese = "患者主诉胸痛三天，伴有呼吸困难，既往有高血压病史，否认药物过敏。"
    assert lead(chinese, [chinese[5:30]]) == chinese[:25]


def test_the_lead_baseline_is_the_score_of_the_leads(tmp_path: Path, write_run: WriteRun) -> None:
    rows = predicted(texts(0), 0.8, 1)
    write(tmp_path, write_run, rows)
    (run,), _ = read_runs(tmp_path)
    floor = score_lead_baseline(run)
    scorer = RougeScorer(["rouge2"], use_stemmer=True)
    leads = [" ".join(row["source"].split()[:8]) for row in rows]
    f1 = [
        100 * scorer.score(row["reference"], text)["rouge2"].fmeasure
        for row, text in zip(rows, leads, strict=True)
    ]
    assert floor.ids == [row["id"] for row in rows]
    assert floor.scores["rouge2"].examples == pytest.approx(f1)
    assert floor.missing.keys() == {"bertscore"}


def test_retention_above_the_lead_baseline_is_that_of_the_statistics(
    tmp_path: Path, write_run: WriteRun
) -> None:
    rows = texts(0)
    full = [write(tmp_path, write_run, predicted(rows, 0.9, s), seed=s) for s in (0, 1)]
    pruned = [
        write(tmp_path, write_run, predicted(rows, 0.7, s + 9), seed=s, recipe="lprun")
        for s in (0, 1)
    ]
    summary = summary_of(tmp_path)
    row = lprun(summary)
    leads = [lead(text["source"], [text["reference"]]) for text in rows]
    references = [text["reference"] for text in rows]
    for metric, name in ((Rouge(), "rouge1"), (Bleu(), "bleu")):
        floor = metric.score([], leads, references)[name]
        comparison = compare([s[name] for s in pruned], [s[name] for s in full], floor)
        quality = row.quality[name]
        assert quality.floor == pytest.approx(floor.value)
        assert quality.retention_above_floor
        assert comparison.retention_above_floor
        assert quality.retention
        above = quality.retention_above_floor
        assert (above.value, above.low, above.high) == pytest.approx(
            comparison.retention_above_floor, abs=1e-3
        )
        # Computed by hand from the means.
        means = [np.mean([s[name].value for s in seeds]) - floor.value for seeds in (pruned, full)]
        assert above.value == pytest.approx(means[0] / means[1], abs=1e-3)
        # Plain retention is higher: training adds only what is above the baseline.
        assert above.value < quality.retention.value
    assert row.quality["bertscore"].retention
    assert row.quality["bertscore"].retention_above_floor is None
    assert "may take a model" in row.no_floor["bertscore"]


def test_the_lead_baseline_is_scored_once_and_cached(
    tmp_path: Path, write_run: WriteRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = texts(0)
    for recipe, right in (("full", 0.9), ("lprun", 0.7), ("lora_ff", 0.8)):
        write(tmp_path, write_run, predicted(rows, right, 1), recipe=recipe)
    scored = []

    def counting(run: StoredRun) -> RunScores:
        scored.append(run)
        return score_lead_baseline(run)

    monkeypatch.setattr("harness.reporting.group_comparison.score_lead_baseline", counting)
    comparisons = Comparisons(tmp_path)
    summary = summarize(read_runs(tmp_path)[0], comparisons)
    comparisons.keep()
    assert len(scored) == 1
    assert summarize(read_runs(tmp_path)[0], Comparisons(tmp_path)) == summary
    assert len(scored) == 1


def test_the_lead_baseline_is_shown_and_explained(tmp_path: Path, write_run: WriteRun) -> None:
    rows = texts(0)
    write(tmp_path, write_run, predicted(rows, 0.9, 1))
    write(tmp_path, write_run, predicted(rows, 0.7, 2), recipe="lprun")
    summary = summary_of(tmp_path)
    quality = lprun(summary).quality["rouge1"]
    assert quality.retention_above_floor
    share = 100 * quality.retention_above_floor.value
    notes = " ".join(summary.groups[0].notes)
    assert f"as many as the reference has, and scores R-1 {quality.floor:.2f}" in notes
    assert "Above Lead-N: no BERT (the lead baseline is not scored" in notes
    shown = table(summary, 200).partition("kept above Lead-N (")[2]
    assert f"{share:.1f}" in shown
    assert f"{share:.1f} %" in markdown(summary)
    assert "R-1 kept above Lead-N" in markdown(summary)
    assert "rouge1_retention_above_floor" in table_csv(summary).splitlines()[0]


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("low", "full fine-tuning is not clearly above the lead baseline"),
        ("own examples", "the seeds have different test examples"),
        ("no sources", "the sources are not stored"),
        ("other signature", "the lead baseline would be scored as"),
    ],
)
def test_without_a_lead_baseline_there_is_a_reason(
    tmp_path: Path, write_run: WriteRun, case: str, why: str
) -> None:
    for seed in (0, 1):
        rows = texts(seed if case == "own examples" else 0)
        if case == "own examples":
            rows = [{**row, "id": f"{row['id']}-{seed}"} for row in rows]
        for recipe, right in (("full", 0.0 if case == "low" else 0.9), ("lprun", 0.6)):
            predictions = predicted(rows, right, seed)
            write(tmp_path, write_run, predictions, recipe=recipe, seed=seed)
    for folder in [run.folder for run in read_runs(tmp_path)[0]]:
        if case == "no sources":
            path = folder / "predictions.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            without = [{k: v for k, v in line.items() if k != "source"} for line in lines]
            path.write_text("".join(json.dumps(line) + "\n" for line in without))
        if case == "other signature":
            report = read_report(folder)
            report.quality["rouge1"].signature = "rouge1|mine"
            (folder / "report.json").write_text(report.model_dump_json())
    row = lprun(summary_of(tmp_path))
    assert row.quality["rouge1"].retention
    assert row.quality["rouge1"].retention_above_floor is None
    assert why in row.no_floor["rouge1"]
