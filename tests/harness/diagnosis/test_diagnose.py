"""The whole command on the embedded model, its proposal and its page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import Result

import harness as api
from harness import HarnessError, Role
from harness.api.plugins import installed
from harness.diagnosis.page import page
from harness.diagnosis.proposal import RANKS, adapter_for, layer_list
from harness.diagnosis.record import (
    Diagnosis,
    LayerRemoval,
    Proposal,
    QualityBin,
    QualityLoss,
    RoleChange,
)
from harness.reporting.summary import Estimate

Harness = Callable[..., Result]


@pytest.fixture(scope="module")
def before_training() -> Diagnosis:
    """The diagnosis of the embedded model on few examples."""
    return api.diagnose(backbone="nano-t5", task="radiology_demo", examples=6, device="cpu")


def change(role: Role, share: float, ranks: dict[int, float]) -> RoleChange:
    """Return what training changed in the modules of a role."""
    return RoleChange(
        stack="encoder",
        role=role,
        modules=1,
        relative=0.1,
        energy_share=share,
        rank_shares=ranks,
        rank_90=1,
        effective_rank=1,
    )


@pytest.mark.slow
def test_the_backbone_before_training(before_training: Diagnosis) -> None:
    assert before_training.examples == 6
    assert before_training.run is None
    assert before_training.not_measured.keys() == {"changes", "lost"}
    kept = api.plan("nano-t5", "full")[0].layers_kept.model_dump()
    places = [(layer.stack, layer.number) for layer in before_training.layers]
    assert places == [(stack, number) for stack, numbers in kept.items() for number in numbers]


@pytest.mark.slow
def test_the_proposal_can_be_trained(before_training: Diagnosis) -> None:
    proposal = before_training.proposal
    assert proposal is not None
    [plan] = api.plan("nano-t5", proposal.recipe)
    [pattern] = api.plan("nano-t5", "lprun")
    depths = [
        {stack: len(kept) for stack, kept in each.layers_kept.model_dump().items()}
        for each in (plan, pattern)
    ]
    assert depths[0] == depths[1]
    assert plan.parameters.trainable < plan.parameters.total / 2
    assert "squared gradient" in proposal.evidence[0]


@pytest.mark.parametrize(
    ("changes", "recipe"),
    [
        ([change("ffn.in", 0.8, {4: 0.95}), change("self_attn.q", 0.2, {4: 0.1})], "lora_ff:r=4"),
        (
            [change("ffn.in", 0.2, {8: 0.9}), change("self_attn.q", 0.8, {4: 0.5, 8: 0.91})],
            "lora:targets=attn,r=8",
        ),
        (
            [change(role, 0.5, dict.fromkeys(RANKS, 0.5)) for role in ("ffn.in", "self_attn.q")],
            "lora:targets=all,r=64",
        ),
    ],
)
def test_targets_and_rank_follow_what_training_changed(
    changes: list[RoleChange], recipe: str
) -> None:
    adapter, evidence = adapter_for([], changes)
    assert adapter == recipe
    assert installed().recipe(adapter)
    assert ("No rank up to 64" in " ".join(evidence)) == (recipe == "lora:targets=all,r=64")


def test_lists_of_layers_are_those_of_lprun() -> None:
    assert layer_list([1, 2, 3, 5, 7, 8]) == "1-3.5.7-8"
    assert layer_list([4]) == "4"


def test_the_page_has_charts_and_no_script() -> None:
    pytest.importorskip("vl_convert")
    estimate = Estimate(value=-10, low=-12, high=-8)
    one = QualityBin(
        low=1, high=9, examples=20, value=30, against=40, difference=estimate, p_value=0.001
    )
    diagnosis = Diagnosis(
        backbone="tiny",
        task="<i>notes</i>",
        examples=20,
        tokens=200,
        loss=estimate,
        layers=[
            LayerRemoval(stack="encoder", number=i, loss_increase=estimate, influence=0.1)
            for i in (1, 2)
        ],
        gradients=[],
        changes=[change("ffn.in", 1.0, {1: 0.5, 2: 1.0})],
        lost=[QualityLoss(metric="rouge1", by="<b>words</b> & more", bins=[one, one])],
        proposal=Proposal(recipe="lora_ff:r=4", evidence=["It is so."]),
    )
    text = page(diagnosis)
    assert text.count("<svg") == 4
    for tag in ("<script", "<b>words", "<i>notes"):
        assert tag not in text
    for svg in text.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + svg.split("</svg>")[0] + "</svg>")
    assert re.search(r'<path [^>]*stroke="#888" [^>]*stroke-dasharray', text), "no line in a legend"
    assert "lora_ff:r=4" in text
    assert "-10.0 ±2.0 *" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "results/x"], "A comparison needs two runs"),
        (["no-such-folder"], "no-such-folder"),
        (["--backbone", "no-such-model-at-all"], "no-such-model-at-all"),
        (["--task", "no-such-task"], "no-such-task"),
    ],
)
def test_errors_name_what_is_wrong(harness: Harness, arguments: list[str], message: str) -> None:
    result = harness("diagnose", *arguments)
    assert result.exit_code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_two_trained_runs(harness: Harness, tmp_path: Path) -> None:
    settings = {
        "train.max_steps": 4,
        "train.eval_examples": 4,
        "test.examples": 20,
        "test.beams": 1,
        "probe.baseline": "off",
        "probe.rounds": 2,
    }
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    for recipe in ("full", "lora_ff"):
        folder = tmp_path / recipe
        ran = harness("run", "--compressor", recipe, "--out", str(folder), *options)
        assert ran.exit_code == 0, ran.stderr
    full, cheap = str(tmp_path / "full"), str(tmp_path / "lora_ff")
    result = harness("diagnose", full, "--examples", "8", "--json")
    assert result.exit_code == 0, result.stderr
    own = Diagnosis.model_validate(json.loads(result.stdout))
    assert own.changes
    assert sum(one.energy_share for one in own.changes) == pytest.approx(1)
    out = tmp_path / "page.html"
    result = harness("diagnose", cheap, "--against", full, "--examples", "8", "--out", str(out))
    assert result.exit_code == 0, result.stderr
    assert "rouge1 by words of the source" in result.stdout
    assert out.read_text().count("<svg") >= 3
    with pytest.raises(HarnessError, match="names its backbone"):
        api.diagnose(full, backbone="nano-t5")
