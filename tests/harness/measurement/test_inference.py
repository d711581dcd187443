"""Decoding against known sleeps and allocations, and by layers; nothing is mocked."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import T5Config

from harness import HarnessError
from harness.api.plugins import installed
from harness.costs.inference_profile import NO_MEMORY, add_inference
from harness.errors import OutOfMemoryError
from harness.measurement.decoding_work import FrozenDecoding, freeze_decoding
from harness.measurement.inference import measure_inference
from harness.measurement.probe import NOT_TOGETHER, freeze
from harness.model.composition import compose, count_parameters
from harness.records.inference import Inference, Timing
from harness.records.profile import ProfiledRecipe
from harness.spec.run_spec import RunSpec
from harness.training.schedule import Schedule

pytestmark = pytest.mark.usefixtures("known_costs")
LAYERS = 6
SLEPT = 0.5
SLOW = f"slow_layers:seconds={SLEPT}"
MIB = 2**20


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 with several layers."""
    folder = tmp_path_factory.mktemp("backbones") / "deep"
    T5Config(
        vocab_size=48,
        d_model=8,
        d_kv=4,
        d_ff=8,
        num_heads=2,
        num_layers=LAYERS,
        decoder_start_token_id=0,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def measure(
    deep: Path, make_spec: Callable[..., RunSpec], schedule: Schedule
) -> Callable[..., Inference]:
    """Measure a recipe beside another, or alone."""

    def call(recipe: str, baseline: str | None, budget: float = 1e4, **test: Any) -> Inference:
        def spec_of(recipe: str) -> RunSpec:
            spec = make_spec(recipe).model_copy(update={"backbone": str(deep)})
            return spec.model_copy(update={"test": spec.test.model_copy(update=test)})

        spec = spec_of(recipe)
        work = freeze_decoding(freeze(schedule, spec.probe), spec.test)
        full = spec_of(baseline) if baseline else None
        return measure_inference(spec, work, full, budget, lambda: None)

    return call


def decoder_layers(deep: Path, recipe: str) -> int:
    backbone = installed().backbone(str(deep))
    model = compose(backbone.skeleton(), backbone, installed().recipe(recipe))
    return len(backbone.layers(model, "decoder"))


def relatives(inference: Inference) -> list[Timing]:
    assert inference.per_token
    assert inference.throughput
    return [inference.latency, inference.prefill, inference.per_token, inference.throughput]


def test_a_pruned_decoder_takes_the_time_of_the_layers_that_are_left(
    measure: Callable[..., Inference], deep: Path
) -> None:
    left = decoder_layers(deep, "lprun")
    assert 0 < left < LAYERS
    found = measure(f"{SLOW}+lprun", SLOW, budget=800, batch_size=3, beams=2)
    tokens = found.output_tokens
    assert (tokens, found.beams, found.rounds) == (3, 2, 2)
    assert 5 <= found.examples < 32
    assert found.per_token
    assert found.throughput
    # All that takes time is a call of a decoder layer: one for each layer and token.
    assert found.latency.seconds == pytest.approx(SLEPT * left * tokens)
    assert found.latency.median_seconds == pytest.approx(SLEPT * left * tokens)
    assert found.latency.p95_seconds == pytest.approx(SLEPT * left * tokens)
    assert found.prefill.seconds == pytest.approx(SLEPT * left)
    assert found.per_token.seconds == pytest.approx(SLEPT * left)
    # A batch takes the time of one example.
    assert found.throughput.batch_size == 3
    assert found.throughput.examples_per_s == pytest.approx(3 / (SLEPT * left * tokens))
    assert found.throughput.output_tokens_per_s == pytest.approx(3 / (SLEPT * left))
    for timing in relatives(found):
        assert timing.relative == pytest.approx(LAYERS / left)
        assert timing.relative_ci == pytest.approx((LAYERS / left, LAYERS / left))
        assert timing.noise_floor == pytest.approx(1)
    assert "interleaved" in found.baseline


def test_lora_merged_decodes_as_fast_as_full_fine_tuning(
    measure: Callable[..., Inference], deep: Path
) -> None:
    found = measure(f"lora_ff:r=2+{SLOW}", SLOW, budget=800, batch_size=2, beams=1)
    for timing in relatives(found):
        assert timing.relative == pytest.approx(1)
        assert timing.noise_floor == pytest.approx(1)
    # The merged model has the parameters of the backbone; the run saves the adapter alone.
    backbone = installed().backbone(str(deep))
    full = count_parameters(backbone.load("random"))
    adapted = compose(backbone.load("random"), backbone, installed().recipe("lora_ff:r=2"))
    size = found.size
    assert (size.model_bytes, size.model_relative) == (full.total_bytes, 1)
    assert size.trained_bytes == count_parameters(adapted).trainable_bytes
    assert size.trained_relative == pytest.approx(size.trained_bytes / full.total_bytes)


def test_without_a_baseline_ratios_are_null_with_a_reason(
    measure: Callable[..., Inference],
) -> None:
    found = measure("lprun", None, beams=1, max_new_tokens=1)
    assert found.throughput
    for timing in (found.latency, found.prefill, found.throughput):
        assert {timing.relative, timing.relative_ci, timing.noise_floor} == {None}
        assert timing.not_measured["noise_floor"] == "no baseline: off"
    assert found.memory.not_measured == {"relative": "no baseline: off"}
    assert set(found.size.not_measured) == {"model_relative", "trained_relative"}
    assert found.not_measured == {"per_token": "every example generates one token"}


def test_without_time_the_least_is_measured_and_no_batch(
    measure: Callable[..., Inference],
) -> None:
    found = measure(SLOW, None, budget=0, beams=1)
    assert (found.rounds, found.examples, found.throughput) == (2, 1, None)
    assert found.not_measured == {"throughput": "a batch would have taken too long"}
    assert found.latency.not_measured["p95_seconds"] == "4 timed examples are fewer than 20"
    assert found.latency.seconds == pytest.approx(SLEPT * LAYERS * found.output_tokens)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_processes")
def test_what_cannot_be_merged_decodes_as_it_is(measure: Callable[..., Inference]) -> None:
    plain, prompted = measure("full", None), measure("houlsby:size=4", None)
    assert prompted.size.model_bytes > plain.size.model_bytes


def test_a_known_allocation_reads_as_the_right_peak(measure: Callable[..., Inference]) -> None:
    found = measure("slow_layers:mebibytes=256", "slow_layers", budget=0, beams=1, batch_size=1)
    memory = found.memory
    assert memory.relative
    full = memory.peak_bytes / memory.relative
    assert memory.peak_bytes - full == pytest.approx(256 * MIB, rel=0.05)
    assert memory.static_bytes < memory.peak_bytes - 200 * MIB


def work_of(spec: RunSpec, schedule: Schedule) -> FrozenDecoding:
    return freeze_decoding(freeze(schedule, spec.probe), spec.test)


def test_a_recipe_that_does_not_fit_beside_full_is_measured_alone(
    make_spec: Callable[..., RunSpec], schedule: Schedule
) -> None:
    # No machine has as much memory as the baseline allocates.
    spec, full = make_spec("lora_qv"), make_spec(f"slow_layers:mebibytes={2**40}")
    found = measure_inference(spec, work_of(spec, schedule), full, 0, lambda: None)
    assert found.baseline == NOT_TOGETHER
    assert found.latency.not_measured["relative"] == f"no baseline: {NOT_TOGETHER}"
    assert multiprocessing.active_children() == []


def test_a_users_mistake_is_raised_here_and_no_process_is_left(
    make_spec: Callable[..., RunSpec], schedule: Schedule
) -> None:
    spec = make_spec("refusing")
    with pytest.raises(HarnessError, match="It has no such layers"):
        measure_inference(spec, work_of(spec, schedule), make_spec("full"), 0, lambda: None)
    assert multiprocessing.active_children() == []


def test_a_process_that_is_killed_ran_out_of_memory(
    make_spec: Callable[..., RunSpec], schedule: Schedule
) -> None:
    spec = make_spec("killed")
    with pytest.raises(OutOfMemoryError, match="killed was killed"):
        measure_inference(spec, work_of(spec, schedule), None, 0, lambda: None)
    assert multiprocessing.active_children() == []


def test_a_profile_goes_on_after_a_recipe_that_cannot_decode(
    make_spec: Callable[..., RunSpec], schedule: Schedule
) -> None:
    spec = make_spec("full")
    recipes = [f"slow_layers:mebibytes={2**40}", "failing+lora_ff", "lora_ff"]
    rows = [ProfiledRecipe(recipe=recipe, status="ok") for recipe in recipes]
    messages: list[str] = []
    add_inference(rows, spec, freeze(schedule, spec.probe), messages.append, budget=0)
    huge, broken, good = rows
    assert huge.inference is None
    assert huge.not_measured["inference"] == NO_MEMORY
    assert broken.not_measured["inference"].startswith("error: KeyError")
    # It is compared again, although full fine-tuning had to make room.
    assert good.inference
    assert good.inference.latency.relative
    assert good.not_measured == {}
    assert messages == ["decoding: full, the baseline", *(f"decoding: {r}" for r in recipes)]
    assert multiprocessing.active_children() == []
