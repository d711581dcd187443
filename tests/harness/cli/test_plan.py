"""``harness plan``: offline, without weights, in seconds."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

Harness = Callable[..., Result]

SMALL = ("--batch-size", "1")
"""Options of plans whose memory is not looked at: the estimate of a large step takes longer."""


FLAGSHIP = ["plan", "--backbone", "t5-large", "--compressor", "lora_ff+lprun", "--json"]


@pytest.mark.slow
def test_the_flagship_recipe_is_planned_in_seconds() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    result = subprocess.run(
        [sys.executable, "-m", "harness", *FLAGSHIP], capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")
    # CPU seconds; the target is ten, and the bound leaves room for a shared core.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 30
    check_flagship(json.loads(result.stdout))


def test_the_flagship_recipe_has_the_numbers_of_the_paper(harness: Harness) -> None:
    result = harness(*FLAGSHIP, "--batch-size", "1")
    assert (result.exit_code, result.stderr) == (0, "")
    check_flagship(json.loads(result.stdout))


def check_flagship(plan: dict[str, Any]) -> None:
    layers = [1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 24]  # Zhu et al. 2023, table 2
    assert plan["layers_kept"] == {"encoder": layers, "decoder": layers}
    assert plan["parameters"]["original"] == 737_668_096
    assert plan["parameters"]["trainable"] == 4_587_520
    assert plan["parameters"]["trainable_pct_of_original"] == pytest.approx(0.622, abs=0.001)
    assert plan["flop_limit_relative_speed"] == pytest.approx(2.47, abs=0.03)
    assert plan["storage"]["tasks"] == 4


def test_the_table_shows_each_recipe_in_a_column(harness: Harness) -> None:
    recipes = "full,lora_ff:r=8,alpha=16,lprun"
    result = harness("plan", "--backbone", "t5-small", "--compressor", recipes, *SMALL)
    assert result.exit_code == 0
    cells = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()]
    rows = {label: values for label, *values in cells}
    assert "lora_ff:alpha=16.0,r=8" in result.stdout
    assert rows["encoder layers kept"] == ["1-6", "1-6", "1-3 5 6"]
    assert rows["trainable parameters"] == ["60,506,624", "491,520", "53,164,032"]
    assert rows["FLOP limit of speed"][0] == "1.00x"


def test_several_recipes_are_a_list_in_json(harness: Harness) -> None:
    command = ["--backbone", "t5-small", "--compressor", "full,lprun", "--json", "--tasks", "7"]
    plans = json.loads(harness("plan", *command, *SMALL).stdout)
    assert [plan["recipe"] for plan in plans] == ["full", "lprun"]
    assert plans[0]["storage"]["total_bytes"] == 7 * 4 * 60_506_624


def test_lengths_come_from_the_task(harness: Harness) -> None:
    command = ["plan", "--backbone", "t5-small", "--compressor", "lprun", "--json", *SMALL]
    plain = json.loads(harness(*command).stdout)
    words = ("--task", "radiology_demo", "--data", "lengths")
    task = json.loads(harness(*command, *words).stdout)
    assert (plain["source_tokens"], plain["target_tokens"]) == (512, 128)
    assert (task["source_tokens"], task["target_tokens"]) != (512, 128)
    assert task["flop_limit_relative_speed"] != plain["flop_limit_relative_speed"]


@pytest.mark.slow
def test_the_batches_are_the_requested_ones(harness: Harness) -> None:
    def plan_of(*more: str) -> dict[str, Any]:
        command = ["--backbone", "nano-t5", "--compressor", "lprun", "--json", *more]
        printed: dict[str, Any] = json.loads(harness("plan", *command).stdout)
        return printed

    task = ["--task", "radiology_demo"]
    own, drawn, auto = (plan_of(*task, "--data", data) for data in ("own", "lengths", "auto"))
    assert (own["batches"], own["why_no_data"]) == ("the task's own data", None)
    assert drawn["batches"] == "drawn from the task's length profile"
    assert drawn["why_no_data"] == "lengths were requested"
    assert auto == own
    assert own["memory"]["source_tokens"] != drawn["memory"]["source_tokens"]
    longer = plan_of(*task, "--source-tokens", "240")
    assert longer["batches"] == drawn["batches"]
    assert longer["source_tokens"] > 1.2 * drawn["source_tokens"]
    assert plan_of()["batches"] is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"--backbone": "t5-lage"}, "Unknown backbone 't5-lage'.\nDid you mean 't5-large'"),
        ({"--backbone": "./nowhere"}, "There is no model in the folder 'nowhere'"),
        ({"--compressor": "lora_f"}, "Unknown compressor 'lora_f'."),
        ({"--compressor": "lora_ff:rank=4"}, "has no option 'rank'"),
        ({"--compressor": "full+lprun"}, "'full' cannot be combined with 'lprun'"),
        ({"--compressor": "lprun:drop=2"}, "Leave them out, or choose select=importance"),
        ({"--compressor": "lprun:encoder=1-9"}, "does not fit a stack of 6 layers"),
        ({"--task": "radiology"}, "Unknown task 'radiology'"),
        ({"--data": "own"}, "Add --task NAME"),
    ],
)
def test_errors_suggest_the_right_option(
    harness: Harness, change: dict[str, str], complaint: str
) -> None:
    options = {"--backbone": "t5-small", "--compressor": "lprun", **change}
    result = harness("plan", *(word for option in options.items() for word in option))
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
