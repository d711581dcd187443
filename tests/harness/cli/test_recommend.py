"""``harness recommend``: the cheapest recipe that is good enough, and reasons for the others."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from harness import plan, recommend

Harness = Callable[..., Result]

RECIPES = {  # relative speed, GiB, mean score, spread of the scores' difference from full's
    "full": (1.0, 40, 40.0, 0.0),
    "lprun": (1.5, 24, 39.6, 1.0),
    "lora_ff": (1.25, 30, 39.5, 1.0),
    "lora_ff+lprun": (1.8, 17, 37.0, 1.0),
    "lora_qv": (2.5, 20, 40.0, 30.0),
}


@pytest.fixture
def results(tmp_path: Path, write_run: Callable[..., Path]) -> Path:
    difficulty = np.random.default_rng(0).normal(0, 8, 80)
    for number, (recipe, (speed, gib, mean, spread)) in enumerate(RECIPES.items()):
        noise = np.random.default_rng(number + 1).normal(0, 1, 80)
        noise = spread * (noise - noise.mean())
        write_run(
            tmp_path,
            {"rouge1": list(mean + difficulty + noise), "rouge2": list(difficulty + noise + 30)},
            recipe=recipe,
            speed={
                "tokens_per_s": 500.0,
                "samples_per_s": 25.0,
                "relative": speed,
                "baseline": "probe",
                "engine": "packed",
                "schedule_sha256": "cd" * 32,
                "window_seconds": [1.0],
            },
            memory={"peak_bytes": gib * 2**30, "static_bytes": 1},
            parameters={
                "original": 1000,
                "total": 1000,
                "trainable": {"full": 1000, "lprun": 600}.get(recipe, 10),
                "trainable_pct_of_original": 1.0,
                "trainable_pct_of_total": 1.0,
            },
        )
    failure = {"phase": "probe memory", "message": "no memory"}
    write_run(tmp_path, {}, recipe="prefix", status="oom", failure=failure)
    return tmp_path


@pytest.fixture
def decoded(
    tmp_path: Path, write_run: Callable[..., Path], inference_of: Callable[..., dict[str, Any]]
) -> Path:
    """Runs of equal quality that decode at different speeds; the fastest trains slowest."""
    scores = list(np.random.default_rng(0).normal(40, 8, 80))
    for recipe, train, latency in [("full", 1.0, 0.2), ("lora_ff", 1.5, 0.2), ("lprun", 1.2, 0.1)]:
        speed = {
            "tokens_per_s": 500.0,
            "samples_per_s": 25.0,
            "relative": train,
            "baseline": "probe",
            "engine": "packed",
            "schedule_sha256": "cd" * 32,
            "window_seconds": [1.0],
        }
        costs = inference_of(latency=latency, speed=0.2 / latency)
        write_run(tmp_path, {"rouge1": scores}, recipe=recipe, speed=speed, inference=costs)
    return tmp_path


def test_the_latency_of_one_example_can_be_limited_and_decide(
    harness: Harness, decoded: Path
) -> None:
    assert recommended(harness, decoded)["chosen"] == "lora_ff"
    limited = recommended(harness, decoded, "--max-latency", "0.15s")
    assert limited["chosen"] == "lprun"
    assert limited["needs"]["max_latency_seconds"] == 0.15
    slow = "decodes an example in 200 ms, more than 150 ms"
    assert {reasons(limited)[recipe] for recipe in ("full", "lora_ff")} == {slow}
    fastest = recommended(harness, decoded, "--by", "latency")
    assert fastest["chosen"] == "lprun"
    assert "decodes an example in 200 ms, the chosen one in 100 ms" in reasons(fastest)["lora_ff"]
    shown = harness("recommend", str(decoded), "--max-latency", "150 ms").stdout
    assert "decodes an example in 100 ms" in shown
    assert recommended(harness, decoded, "--max-latency", "50ms")["chosen"] is None


def test_a_recipe_whose_latency_is_unknown_is_not_chosen_under_a_limit(
    harness: Harness, decoded: Path, write_run: Callable[..., Path]
) -> None:
    scores = list(np.random.default_rng(0).normal(40, 8, 80))
    write_run(decoded, {"rouge1": scores}, recipe="lora_qv")
    limited = recommended(harness, decoded, "--max-latency", "1s")
    assert "its latency was not measured" in reasons(limited)["lora_qv"]
    assert recommended(harness, decoded, "--by", "latency")["chosen"] == "lprun"


@pytest.mark.parametrize("options", [["--max-latency", "50ms"], ["--by", "latency"]])
def test_latency_that_no_run_measured_is_an_error(
    harness: Harness, results: Path, options: list[str]
) -> None:
    result = harness("recommend", str(results), *options)
    assert result.exit_code == 2
    assert "has measured decoding, so no latency is known" in result.stderr
    assert "--set probe.inference=true" in result.stderr


@pytest.mark.parametrize("text", ["50", "fast", "-5ms", "5 min"])
def test_a_latency_without_a_unit_is_an_error(harness: Harness, decoded: Path, text: str) -> None:
    result = harness("recommend", str(decoded), f"--max-latency={text}")
    assert result.exit_code == 2
    assert "--max-latency 50ms" in result.stderr


def recommended(harness: Harness, results: Path, *options: str) -> dict[str, Any]:
    result = harness("recommend", str(results), "--json", *options)
    recommendation: dict[str, Any]
    (recommendation,) = json.loads(result.stdout)
    assert result.exit_code == (0 if recommendation["chosen"] else 1)
    return recommendation


def reasons(recommendation: dict[str, Any]) -> dict[str, str]:
    return {
        verdict["recipe"]: "; ".join(verdict["reasons"]) for verdict in recommendation["verdicts"]
    }


def test_the_cheapest_good_recipe_is_chosen_and_every_other_has_a_reason(
    harness: Harness, results: Path
) -> None:
    recommendation = recommended(harness, results)
    assert recommendation["chosen"] == "lprun"
    why = reasons(recommendation)
    assert set(why) == {*RECIPES, "prefix"}
    assert why.pop("lprun") == ""
    assert why["lora_ff"].startswith("good enough, but more expensive: trains at 125 %")
    assert why["full"].startswith("good enough, but more expensive: trains at 100 %")
    assert "keeps 92." in why["lora_ff+lprun"]
    assert "may keep less than 95.0 %" in why["lora_ff+lprun"]
    assert why["prefix"] == "seed 0: oom in probe memory"


def test_quality_is_judged_by_the_lower_bound(harness: Harness, results: Path) -> None:
    recommendation = recommended(harness, results)
    (wide,) = [v for v in recommendation["verdicts"] if v["recipe"] == "lora_qv"]
    assert wide["retention"]["value"] == pytest.approx(1, abs=1e-4)
    assert wide["retention"]["low"] < 0.95
    assert not wide["qualifies"]


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["--min-quality", "90%"], "lora_ff+lprun"),
        (["--min-quality", "0.9"], "lora_ff+lprun"),
        (["--min-quality", "99.9 %"], "full"),
        (["--max-memory", "20GiB"], None),
        (["--max-memory", "20GiB", "--min-quality", "90%"], "lora_ff+lprun"),
        (["--max-memory", "25 gb"], None),
        (["--max-memory", "26GB"], "lprun"),
        (["--min-speed", "160%"], None),
        (["--by", "parameters"], "lora_ff"),
        (["--by", "memory"], "lprun"),
    ],
)
def test_requirements_and_criterion_choose_the_recipe(
    harness: Harness, results: Path, options: list[str], chosen: str | None
) -> None:
    assert recommended(harness, results, *options)["chosen"] == chosen


def test_every_unmet_requirement_is_named(harness: Harness, results: Path) -> None:
    recommendation = recommended(harness, results, "--max-memory", "16GiB", "--min-speed", "2")
    why = reasons(recommendation)
    assert "takes 17.00 GiB, more than 16.00 GiB" in why["lora_ff+lprun"]
    assert "trains at 180 %, less than 200 %" in why["lora_ff+lprun"]
    assert why["lora_qv"].count(";") == 1


def test_the_recommendation_is_printed_in_sentences(harness: Harness, results: Path) -> None:
    shown = harness("recommend", str(results)).stdout
    assert shown.startswith("tiny on notes: lprun\n  keeps 99.0 % (")
    assert "lora_ff+lprun: keeps 92." in shown
    assert "One seed" in shown
    without_choice = harness("recommend", str(results), "--max-memory", "1")
    assert without_choice.exit_code == 1
    assert "tiny on notes: no recipe is good enough" in without_choice.stdout


def test_without_full_nothing_is_recommended(
    harness: Harness, tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    write_run(tmp_path, {"rouge1": [40.0, 41.0]}, recipe="lprun")
    recommendation = recommended(harness, tmp_path)
    assert recommendation["chosen"] is None
    assert "no run of full fine-tuning to compare with" in reasons(recommendation)["lprun"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--min-quality", "95"], "Write --min-quality 95%"),
        (["--min-quality", "good"], "is not a share"),
        (["--max-memory", "16 apples"], "--max-memory 16GiB"),
        (["--min-speed", "-1"], "is not a share"),
        (["--metric", "rouge9"], "has the metric 'rouge9'"),
    ],
)
def test_mistakes_are_explained(
    harness: Harness, results: Path, options: list[str], complaint: str
) -> None:
    result = harness("recommend", str(results), *options)
    assert result.exit_code == 2
    assert complaint in result.stderr


@pytest.mark.slow
def test_memory_and_parameters_are_planned_for_another_backbone(results: Path) -> None:
    (answer,) = recommend(results, backbone="nano-t5", device="cpu", by="memory")
    assert answer.planned_for == "nano-t5"
    by_recipe = {verdict.recipe: verdict for verdict in answer.verdicts}
    assert by_recipe["lora_ff"].qualifies
    (expected,) = plan("nano-t5", "lora_ff", device="cpu")
    assert expected.memory
    assert by_recipe["lora_ff"].memory_bytes == expected.memory.peak_bytes
    assert by_recipe["lora_ff"].trainable == expected.parameters.trainable
    assert "planned for nano-t5" in answer.notes[0]
    # Not planned, as its quality does not suffice.
    assert by_recipe["lora_ff+lprun"].memory_bytes is None
    limit = expected.memory.peak_bytes - 1
    (smaller,) = recommend(results, backbone="nano-t5", device="cpu", max_memory_bytes=limit)
    assert "lora_ff" not in [v.recipe for v in smaller.verdicts if v.qualifies]
