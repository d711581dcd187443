"""All hooks that a plugin can implement.

A plugin is a module named by an entry point of the group ``harness``. It implements any of these
hooks with ``harness.hookimpl``. The module must be fast to import: name classes by
``"package.module:Class"``, and they are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from harness.api.events import DataRead, Evaluated, PhaseStarted, StepDone
    from harness.api.registry import Register
    from harness.records.report import Report
    from harness.spec.run_spec import RunSpec

hookspec = pluggy.HookspecMarker("harness")
hookimpl = pluggy.HookimplMarker("harness")


# --- What there is -------------------------------------------------------------------------------


@hookspec
def register_backbones(register: Register) -> None:
    """Register backbones: ``register(name, "module:Backbone subclass", summary)``."""


@hookspec
def register_compressors(register: Register) -> None:
    """Register compressors: ``register(name, "module:Compressor subclass", summary)``."""


@hookspec
def register_tasks(register: Register) -> None:
    """Register tasks: ``register(name, "module:Task subclass", summary)``."""


@hookspec
def register_metrics(register: Register) -> None:
    """Register metrics: ``register(name, "module:Metric subclass", summary)``.

    The class is built without arguments. One metric may have several scores.
    """


@hookspec
def register_executors(register: Register) -> None:
    """Register executors of sweeps: ``register(name, "module:Executor subclass", summary)``."""


# --- What happens in a run -----------------------------------------------------------------------


@hookspec
def run_started(spec: RunSpec) -> None:
    """A run with this resolved spec begins."""


@hookspec
def data_read(event: DataRead) -> None:
    """The task's data are read, before training; notes say what was guessed or left out."""


@hookspec
def phase_started(event: PhaseStarted) -> None:
    """A phase of the run begins (load, probe speed, train, ...)."""


@hookspec
def step_done(event: StepDone) -> None:
    """A step of the current phase is done."""


@hookspec
def evaluated(event: Evaluated) -> None:
    """The eval split was scored during training."""


@hookspec
def run_finished(report: Report) -> None:
    """The run is over, whatever its status; the report is final."""
