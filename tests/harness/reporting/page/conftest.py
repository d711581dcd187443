"""A folder of runs whose texts all try to inject code, and the page of these runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records.run_folder import read_runs
from harness.reporting.aggregation import summarize
from harness.reporting.page.render import page
from harness.reporting.paired_comparison import Comparisons

HOSTILE = (
    "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\"'`${1}{{7*7}}"
)


@pytest.fixture(scope="session")
def hostile_results(
    tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]
) -> Path:
    """Runs on two backbones; on one of them all names, texts and metric labels are hostile."""
    results = tmp_path_factory.mktemp("hostile")
    metric = f"m[0].x{HOSTILE}"
    failure = {"phase": HOSTILE, "message": HOSTILE}
    speed = {
        "tokens_per_s": 500.0,
        "samples_per_s": 25.0,
        "relative": 1.5,
        "relative_ci": [1.4, 1.6],
        "baseline": HOSTILE,
        "engine": HOSTILE,
        "schedule_sha256": HOSTILE,
        "window_seconds": [1.0],
    }
    for number, recipe in enumerate(["full", f"lprun{HOSTILE}"]):
        names = {"recipe": recipe, "backbone": f"b{HOSTILE}", "task": f"t{HOSTILE}"}
        scores = {metric: [1.0 + number, 3.0, 5.5], "rouge1": [20.0, 30.0 - number, 41.0]}
        folder = write_run(
            results, scores, id=f"run{number}", decoding=HOSTILE, speed=speed, **names
        )
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        for row in rows:
            for field in ("id", "source", "reference", "prediction"):
                row[field] += HOSTILE
            row["scores"][HOSTILE] = HOSTILE
        (folder / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        history = [
            {"step": 1, "loss": 3.0},
            {"step": 2, "loss": 2.5},
            {"step": 2, "eval": {"rouge1": 20.0, metric: 1.0}},
        ]
        (folder / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in history))
    write_run(
        results, {}, id="run2", status="oom", failure=failure, **{**names, "recipe": "lora_ff"}
    )
    write_run(
        results, {"rouge1": [20.0, 30.0]}, id="run3", backbone="plain", task="z", recipe="lora_qv"
    )
    return results


@pytest.fixture(scope="session")
def hostile_page(hostile_results: Path) -> str:
    runs = read_runs(hostile_results)[0]
    return page(summarize(runs, Comparisons(None)), runs)
