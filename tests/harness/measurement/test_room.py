"""Recipes that fit on a device alone, but not together with the process of full fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.api.plugins import installed
from harness.api.recipe import parse
from harness.costs import profile as profiling
from harness.errors import OutOfMemoryError
from harness.measurement import probe
from harness.measurement.energy import no_energy
from harness.measurement.probe import FrozenSchedule, freeze, probe_memory, probe_speed
from harness.records.measurements import Memory, MemoryParts, TimeParts
from harness.records.profile import ProfiledRecipe
from harness.records.report import LayersKept, Parameters
from harness.spec.run_spec import RunSpec
from harness.training.schedule import Schedule, Step

MakeSpec = Callable[..., RunSpec]
SMALL, MEDIUM = "lora_qv", "lora_ff"
TOGETHER = "full and this recipe do not fit into memory together"


class Card:
    """A device whose memory processes share.

    Args:
        capacity: the memory of the device.
        needs: recipe -> memory that its process holds from start to end.
        peaks: recipe -> peak memory of its process, reached in the longest batch.
    """

    def __init__(self, capacity: int, needs: dict[str, int], peaks: dict[str, int]) -> None:
        self.capacity = capacity
        self.needs = needs
        self.peaks = peaks
        self.held: dict[object, int] = {}
        self.started: list[str] = []

    def take(self, owner: object, size: int) -> None:
        if sum(self.held.values()) + size > self.capacity:
            raise OutOfMemoryError("CUDA out of memory.")
        self.held[owner] = self.held.get(owner, 0) + size


class Process:
    """Replaces a measured process; its memory is the card's, and its speed is 1."""

    engine, attention = "packed", "flash"
    layers_kept = LayersKept(encoder=[1], decoder=[1])
    parameters = Parameters(
        original=2, total=2, trainable=1, trainable_pct_of_original=50, trainable_pct_of_total=50
    )

    def __init__(self, card: Card, spec: RunSpec) -> None:
        self.recipe = spec.recipe
        self.card = card
        card.started.append(self.recipe)
        card.take(self, card.needs[self.recipe])

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.card.held.pop(self, None)

    def kill(self) -> None:
        self.close()

    def window(self, first: int, count: int) -> float:
        assert self in self.card.held, "the process has ended"
        return 1.0

    def start_meter(self) -> None: ...

    def energy(self, tokens: int) -> Any:
        return no_energy("no counter")

    def time_parts(self, first: int, count: int) -> TimeParts:
        return TimeParts(data=0, forward=1, backward=1, optimizer=1)

    def memory(self, steps: int) -> Memory:
        peak = self.card.peaks.get(self.recipe, self.card.needs[self.recipe])
        self.card.take(self, peak - self.card.needs[self.recipe])
        return Memory(peak_bytes=peak, static_bytes=1)

    def memory_parts(self) -> MemoryParts:
        return MemoryParts(weights=1, gradients=1, optimizer=1, activations=1, logits=1, other=1)


@pytest.fixture
def make_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Card]]:
    cards: list[Card] = []

    def make(capacity: int, peaks: dict[str, int] | None = None, **needs: int) -> Card:
        card = Card(capacity, needs, peaks or {})
        cards.append(card)

        def start(spec: RunSpec, steps: list[Step], longest: Step, *rest: object) -> Process:
            return Process(card, spec)

        monkeypatch.setattr(probe, "MeasuredProcess", start)
        monkeypatch.setattr(profiling, "MeasuredProcess", start)
        return card

    yield make
    assert [card.held for card in cards] == [{}]  # Every process has ended.


@pytest.fixture
def spec(make_spec: MakeSpec) -> RunSpec:
    return make_spec("full")


@pytest.fixture
def frozen(spec: RunSpec, schedule: Schedule) -> FrozenSchedule:
    return freeze(schedule, spec.probe)


def profiled(spec: RunSpec, frozen: FrozenSchedule, *recipes: str) -> list[ProfiledRecipe]:
    backbone = installed().backbone(spec.backbone)
    parsed = [parse(recipe, installed().compressors) for recipe in recipes]
    return profiling.profile_recipes(spec, backbone, parsed, frozen, lambda message: None)


def test_a_profile_measures_a_recipe_alone_that_does_not_fit_beside_full(
    make_card: Callable[..., Card], spec: RunSpec, frozen: FrozenSchedule
) -> None:
    card = make_card(capacity=8, full=6, lora_ff=3, lora_qv=1)
    medium, full, small = profiled(spec, frozen, MEDIUM, "full", SMALL)
    for alone in (medium, full):
        assert alone.status == "ok"
        assert alone.speed
        assert alone.speed.relative is None
        assert alone.speed.baseline == TOGETHER
        assert alone.speed.not_measured["relative"] == f"no baseline: {TOGETHER}"
    # Peaks are measured one process at a time, so they can still be compared.
    assert medium.memory
    assert medium.memory.relative == 3 / 6
    # The next recipe fits beside full, and is compared again.
    assert small.speed
    assert small.speed.relative == 1
    assert small.memory
    assert small.memory.relative == 1 / 6
    assert card.started.count("full") > 1


def test_a_profile_continues_after_a_recipe_that_does_not_fit_at_all(
    make_card: Callable[..., Card], spec: RunSpec, frozen: FrozenSchedule
) -> None:
    card = make_card(capacity=8, full=6, lora_ff=9, lora_qv=1)
    large, small = profiled(spec, frozen, MEDIUM, SMALL)
    assert large.status == "oom"
    assert card.started.count(MEDIUM) == 2  # Beside full, then alone.
    assert small.speed
    assert small.speed.relative == 1


def test_a_profile_keeps_the_ratio_of_speed_where_only_the_longest_batch_does_not_fit(
    make_card: Callable[..., Card], spec: RunSpec, frozen: FrozenSchedule
) -> None:
    make_card(capacity=8, full=6, lora_qv=1, peaks={SMALL: 3})
    (row,) = profiled(spec, frozen, SMALL)
    assert row.status == "ok"
    assert row.speed
    assert row.speed.relative == 1
    assert row.memory
    assert (row.memory.peak_bytes, row.memory.relative) == (3, 3 / 6)


def test_where_full_does_not_fit_at_all_recipes_are_measured_once(
    make_card: Callable[..., Card], spec: RunSpec, frozen: FrozenSchedule
) -> None:
    card = make_card(capacity=8, full=9, lora_ff=3)
    (row,) = profiled(spec, frozen, MEDIUM)
    assert row.speed
    assert row.memory
    assert row.speed.baseline == "full ran out of memory"
    assert row.memory.not_measured["relative"] == "no baseline: full ran out of memory"
    assert card.started == ["full", MEDIUM, MEDIUM]


@pytest.mark.parametrize(
    ("full", "reason", "ratio"), [(6, None, 0.5), (9, "no baseline: full ran out of memory", None)]
)
def test_a_run_is_measured_alone_where_it_does_not_fit_beside_full(
    make_card: Callable[..., Card],
    make_spec: MakeSpec,
    frozen: FrozenSchedule,
    full: int,
    reason: str | None,
    ratio: float | None,
) -> None:
    make_card(capacity=8, full=full, lora_ff=3)
    recipe, baseline = make_spec(MEDIUM), make_spec("full")
    speed = probe_speed(recipe, frozen, baseline, lambda: None)
    assert (speed.relative, speed.baseline, len(speed.window_seconds)) == (None, TOGETHER, 4)
    memory = probe_memory(recipe, frozen, baseline)
    assert memory.relative == ratio
    assert memory.not_measured.get("relative") == reason


def test_a_run_that_does_not_fit_alone_is_out_of_memory(
    make_card: Callable[..., Card], make_spec: MakeSpec, frozen: FrozenSchedule
) -> None:
    card = make_card(capacity=8, full=6, lora_ff=9)
    with pytest.raises(OutOfMemoryError):
        probe_speed(make_spec(MEDIUM), frozen, make_spec("full"), lambda: None)
    assert card.started == [MEDIUM, MEDIUM]
