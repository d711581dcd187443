"""Energy, measured on files like those of Linux, whose counters move by known amounts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import clock
from harness.clock import ManualClock
from harness.errors import NotMeasurableError
from harness.measurement.energy import Meter, Rapl, no_energy, open_counter

RANGE = 65_532_610_987
"""Microjoules at which the counter of many processors wraps around to zero."""


def set_counter(zone: Path, microjoules: int) -> None:
    """Set a counter by an atomic rename: a reader sees the old value or the new one."""
    aside = zone / "aside"
    aside.write_text(f"{microjoules}\n")
    aside.replace(zone / "energy_uj")


def add_zone(powercap: Path, number: str, name: str, microjoules: int = 0) -> Path:
    zone = powercap / f"intel-rapl:{number}"
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
    set_counter(zone, microjoules)
    return zone


def test_only_packages_are_added_up_not_their_parts_nor_the_platform(tmp_path: Path) -> None:
    first = add_zone(tmp_path, "0", "package-0", 7_000_000)
    second = add_zone(tmp_path, "1", "package-1", 90_000_000)
    others = [
        add_zone(tmp_path, "0:0", "core"),
        add_zone(tmp_path, "0:1", "dram"),
        add_zone(tmp_path, "2", "psys"),
    ]
    counter = Rapl(tmp_path)
    counter.start()
    set_counter(first, 9_500_000)
    set_counter(second, 90_250_000)
    for zone in others:
        set_counter(zone, 1_000_000_000)
    assert counter.stop() == pytest.approx(2.75)
    counter.start()
    assert counter.stop() == 0


@given(st.integers(0, RANGE), st.integers(0, RANGE - 1))
def test_a_counter_that_wraps_around_loses_nothing(before: int, used: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        zone = add_zone(Path(folder), "0", "package-0", before)
        counter = Rapl(Path(folder))
        counter.start()
        after = before + used
        set_counter(zone, after if after <= RANGE else after - RANGE)
        assert counter.stop() == pytest.approx(used / 1e6)


def test_a_window_in_which_the_counter_may_wrap_around_twice_has_no_energy(
    tmp_path: Path, manual_clock: ManualClock
) -> None:
    zone = add_zone(tmp_path, "0", "package-0")
    (zone / "max_energy_range_uj").write_text("1000000")  # 1 J: a thousandth of a second.
    counter = Rapl(tmp_path)
    counter.start()
    manual_clock.sleep(0.05)
    with pytest.raises(NotMeasurableError, match="may go round more than once"):
        counter.stop()


@pytest.mark.parametrize("zones", [[], [("0", "psys"), ("0:0", "package-0")]])
def test_a_machine_without_counters_of_packages_says_so(
    tmp_path: Path, zones: list[tuple[str, str]]
) -> None:
    for number, name in zones:
        add_zone(tmp_path, number, name)
    with pytest.raises(NotMeasurableError, match="no RAPL counter of a processor package"):
        Rapl(tmp_path)
    with pytest.raises(NotMeasurableError, match="no RAPL counter"):
        Rapl(tmp_path / "nowhere")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Drop the rights of root, who may read any file."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_counter_that_may_not_be_read_names_the_command_that_mends_it() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # pytest's own folders are closed to others.
        zone = add_zone(Path(folder), "0", "package-0")
        (zone / "energy_uj").chmod(0o400 if os.geteuid() == 0 else 0)
        with as_nobody(), pytest.raises(NotMeasurableError, match="not permitted: sudo chmod a"):
            Rapl(Path(folder))


class Package(ManualClock):
    """A manual clock that also moves a processor's counter, at ``watts``."""

    def __init__(self, zone: Path, watts: float) -> None:
        super().__init__()
        self.zone = zone
        self.watts = watts
        self._joules = 0.0

    def sleep(self, seconds: float) -> None:
        """Advance the clock and the counter."""
        super().sleep(seconds)
        self._joules += self.watts * seconds
        if (self.zone / "energy_uj").exists():
            set_counter(self.zone, round(1e6 * self._joules))


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Package]:
    package_clock = Package(add_zone(tmp_path, "0", "package-0"), watts=20)
    previous = clock.use(package_clock)
    yield package_clock
    clock.use(previous)


def test_windows_are_added_up_less_idle_power(tmp_path: Path, package: Package) -> None:
    meter = Meter(Rapl(tmp_path), idle_seconds=0.5)
    assert meter.idle_watts == pytest.approx(20)
    for _ in range(2):
        package.watts = 120
        with meter.window():
            package.sleep(0.4)
        package.watts = 1000  # Energy between windows does not count.
        package.sleep(0.1)
    energy = meter.energy(tokens=500)
    assert energy.source == "rapl"
    assert energy.joules == pytest.approx(100 * 2 * 0.4)
    assert energy.joules_per_1000_tokens == pytest.approx(2 * 100 * 2 * 0.4)
    assert energy.idle_watts == meter.idle_watts
    assert energy.not_measured == {}


def test_no_more_than_idle_power_is_no_energy(tmp_path: Path, package: Package) -> None:
    meter = Meter(Rapl(tmp_path), idle_seconds=0.2)
    package.watts = 1
    with meter.window():
        package.sleep(0.2)
    energy = meter.energy(tokens=500)
    assert energy == no_energy("the windows took no more power than was drawn before them, idle")
    assert (energy.source, energy.joules, energy.idle_watts) == ("none", None, None)
    assert set(energy.not_measured) == {"joules", "joules_per_1000_tokens", "idle_watts"}


def test_a_counter_that_stands_still_is_not_used(tmp_path: Path) -> None:
    add_zone(tmp_path, "0", "package-0", 42)
    with pytest.raises(NotMeasurableError, match="stands still"):
        Meter(Rapl(tmp_path), idle_seconds=0)


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_counter_that_fails_spoils_the_energy_and_not_the_window(
    tmp_path: Path, package: Package, when: str
) -> None:
    meter = Meter(Rapl(tmp_path), idle_seconds=0.1)
    window_finished = False
    if when == "before":
        (package.zone / "energy_uj").unlink()
    with meter.window():
        (package.zone / "energy_uj").unlink(missing_ok=True)
        window_finished = True
    assert window_finished
    energy = meter.energy(tokens=1)
    assert energy.source == "none"
    assert "energy_uj cannot be read: No such file" in energy.not_measured["joules"]


def test_the_counter_of_this_machine_moves_or_says_why_there_is_none() -> None:
    try:
        counter = open_counter(torch.device("cpu"))
    except NotMeasurableError:
        with pytest.raises(NotMeasurableError, match=r"no RAPL counter|chmod a\+r|cannot be read"):
            open_counter(torch.device("cpu"))
        return
    counter.start()
    for _ in range(100):
        torch.ones(500, 500) @ torch.ones(500, 500)
    assert counter.stop() > 0
