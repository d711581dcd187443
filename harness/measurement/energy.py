"""Energy read from counters of the device; it is never estimated from a nominal power."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from harness import clock
from harness.errors import NotMeasurableError
from harness.records.measurements import Energy
from harness.records.reasons import explain_nulls

if TYPE_CHECKING:
    import torch

Source = Literal["nvml", "rapl"]

POWERCAP = Path("/sys/class/powercap")
"""Folder in which Linux shows RAPL, the energy counters of x86 processors."""

IDLE_SECONDS = 2.0
"""Time for which idle power is sampled; a GPU's counter is updated ten times a second."""

_LARGEST_PACKAGE_WATTS = 600
"""Upper bound of a processor package's power. It gives the time after which a counter may have
wrapped more than once, and nothing else."""


class Counter(Protocol):
    """A counter of energy.

    Attributes:
        source: its kind.
    """

    source: ClassVar[Source]

    def start(self) -> None:
        """Read the counter.

        Raises:
            NotMeasurableError: it cannot be read.
        """

    def stop(self) -> float:
        """Return the joules since ``start``.

        Raises:
            NotMeasurableError: it cannot be read.
        """


class Rapl:
    """The counters of all processor packages of this machine: cores and caches, not memory.

    Args:
        powercap: the folder of Linux's powercap framework.

    Raises:
        NotMeasurableError: there are none, or this user may not read them.
    """

    source: ClassVar[Source] = "rapl"

    def __init__(self, powercap: Path = POWERCAP) -> None:
        # A package includes its parts (intel-rapl:0:0), and psys includes all packages.
        zones = [z for z in sorted(powercap.glob("intel-rapl:*")) if z.name.count(":") == 1]
        self._packages = [z for z in zones if _text(z / "name").startswith("package")]
        if not self._packages:
            raise NotMeasurableError(f"no RAPL counter of a processor package in {powercap}")
        self._ranges = [int(_text(zone / "max_energy_range_uj")) for zone in self._packages]
        self.start()

    def start(self) -> None:
        """Read all counters."""
        self._before = self._read()
        self._began = clock.seconds()

    def stop(self) -> float:
        """Return the joules of all packages since ``start``; each counter may have wrapped once."""
        passed = zip(self._read(), self._before, self._ranges, strict=True)
        longest = min(self._ranges) / 1e6 / _LARGEST_PACKAGE_WATTS
        if clock.seconds() - self._began > longest:
            raise NotMeasurableError(
                f"in more than {longest:.0f} s the RAPL counter may go round more than once"
            )
        return sum(now - old + (most if now < old else 0) for now, old, most in passed) / 1e6

    def _read(self) -> list[int]:
        """Return the counters in microjoules."""
        return [int(_text(zone / "energy_uj")) for zone in self._packages]


class Nvml:
    """The counter of a CUDA device, its memory included, not the processor.

    Args:
        device: the device.

    Raises:
        NotMeasurableError: it has none, or NVML does not answer.
    """

    source: ClassVar[Source] = "nvml"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.start()

    def start(self) -> None:
        """Read the counter."""
        self._before = self._read()

    def stop(self) -> float:
        """Return the joules since ``start``."""
        return self._read() - self._before

    def _read(self) -> float:
        from harness.measurement.nvml import joules_since_driver_load

        return joules_since_driver_load(self._device)


def open_counter(device: torch.device) -> Counter:
    """Return the energy counter of the GPU on CUDA, else of the processor.

    Raises:
        NotMeasurableError: there is none that can be read.
    """
    return Nvml(device) if device.type == "cuda" else Rapl()


class Meter:
    """Adds up the energy of windows, above idle power.

    The counters are those of the machine, so the energy of other programs is counted as well.

    Args:
        counter: counter to read; idle power is sampled at once.
        idle_seconds: seconds for which idle power is sampled.

    Raises:
        NotMeasurableError: the counter cannot be read, or stands still.
    """

    def __init__(self, counter: Counter, idle_seconds: float = IDLE_SECONDS) -> None:
        self._counter = counter
        self._joules = self._seconds = 0.0
        self._why: str | None = None
        with self.window():
            clock.sleep(idle_seconds)
        if self._why is None and not self._joules:
            self._why = "the energy counter stands still"
        if self._why is not None:
            raise NotMeasurableError(self._why)
        self.idle_watts = self._joules / self._seconds
        self._joules = self._seconds = 0.0

    @contextmanager
    def window(self) -> Iterator[None]:
        """Count the energy used within the block; if the counter fails, the block still runs."""
        began = clock.seconds()
        with self._reason():
            self._counter.start()
        yield
        with self._reason():
            self._joules += self._counter.stop()
            self._seconds += clock.seconds() - began

    def energy(self, tokens: int) -> Energy:
        """Return the energy of all windows.

        Args:
            tokens: number of tokens in the windows.
        """
        above_idle = self._joules - self.idle_watts * self._seconds
        if self._why is None and above_idle <= 0:
            self._why = "the windows took no more power than was drawn before them, idle"
        if self._why is not None:
            return no_energy(self._why)
        return Energy(
            source=self._counter.source,
            joules=above_idle,
            joules_per_1000_tokens=1000 * above_idle / tokens,
            idle_watts=self.idle_watts,
        )

    @contextmanager
    def _reason(self) -> Iterator[None]:
        try:
            yield
        except NotMeasurableError as error:
            self._why = str(error)


def no_energy(why: str) -> Energy:
    """Return the record of energy that could not be measured."""
    energy = Energy(source="none")
    explain_nulls(energy, why, "joules", "joules_per_1000_tokens", "idle_watts")
    return energy


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except PermissionError as error:
        raise NotMeasurableError(
            f"reading {path} is not permitted: sudo chmod a+r {POWERCAP}/intel-rapl:*/energy_uj"
        ) from error
    except OSError as error:
        raise NotMeasurableError(f"{path} cannot be read: {error.strerror}") from error
