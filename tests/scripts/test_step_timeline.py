"""The picture of a step, drawn from the stored profile of a card."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("vl_convert")
import step_timeline

KERNELS = Path(__file__).parents[2] / "results" / "gpu" / "nvidia-h200" / "kernels.json"


@pytest.mark.parametrize("case", step_timeline.CASES)
@pytest.mark.parametrize("who", step_timeline.WHO)
def test_the_lane_of_the_gpu_is_as_long_as_the_step(case: str, who: str) -> None:
    profile = json.loads(KERNELS.read_text("utf-8"))["cases"][f"{case} {who}"]
    processor, *bars = step_timeline.lanes(who, profile)
    assert processor["to"] == profile["host_ms"]
    assert bars[0]["from"] == 0
    for bar, following in pairwise(bars):
        assert bar["to"] == following["from"]
    assert bars[-1]["to"] == pytest.approx(profile["device_ms"] + profile["idle_ms"])
    assert bars[-1]["to"] == pytest.approx(profile["step_ms"], rel=1e-6)
    lengths = {bar["work"]: bar["to"] - bar["from"] for bar in bars}
    kinds = profile["device_ms_by_kind"]
    assert lengths["products"] / lengths["copies"] == pytest.approx(
        kinds["products"] / kinds["copies"]
    )


def test_the_picture_shows_both_programs_on_each_backbone() -> None:
    picture = step_timeline.draw(json.loads(KERNELS.read_text("utf-8")))
    for case in step_timeline.CASES:
        assert f"One step of {case}" in picture
    for who in step_timeline.WHO.values():
        assert f"{who}: GPU" in picture
