"""Trackers: observers that log a run to TensorBoard, MLflow or Weights & Biases.

Nothing leaves the machine: TensorBoard and MLflow write into a folder, and Weights & Biases runs
offline unless its own environment variables change that.
"""

from __future__ import annotations

import importlib.util
import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from harness.api.hookspecs import hookimpl
from harness.errors import HarnessError, did_you_mean
from harness.records.phase import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.api.events import Evaluated, PhaseStarted, StepDone
    from harness.records.report import Report
    from harness.spec.run_spec import RunSpec


FOLDER = ".trackers"
"""Name of the folder that trackers write to, in the results folder."""


class Tracker(ABC):
    """An observer that logs a run; register it with the plugin manager.

    Args:
        folder: the folder to write to.
    """

    name: ClassVar[str]
    module: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._training = False
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A mistake in the spec or the data ends a run without calling run_finished.
        if self._open:
            self.finish({}, "error")

    @abstractmethod
    def begin(self, title: str, settings: Mapping[str, Any]) -> None:
        """Start a record of a run."""

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers at an optimizer step."""

    @abstractmethod
    def finish(self, values: Mapping[str, float], status: str) -> None:
        """Add the final numbers and close the record."""

    @hookimpl
    def run_started(self, spec: RunSpec) -> None:
        """Start the record with all settings."""
        title = f"{spec.backbone} {spec.recipe} {spec.task} s{spec.seed}"
        self.begin(title, flat(spec.model_dump(mode="json")))
        self._open = True

    @hookimpl
    def phase_started(self, event: PhaseStarted) -> None:
        """Note whether the next steps are training steps."""
        self._training = event.phase == Phase.TRAIN

    @hookimpl
    def step_done(self, event: StepDone) -> None:
        """Add the loss and the learning rate."""
        if self._training and event.values:
            self.log({f"train/{name}": value for name, value in event.values.items()}, event.step)

    @hookimpl
    def evaluated(self, event: Evaluated) -> None:
        """Add the eval split's scores."""
        self.log({f"eval/{name}": value for name, value in event.values.items()}, event.step)

    @hookimpl
    def run_finished(self, report: Report) -> None:
        """Add speed, memory, parameters and the test split's scores."""
        self._open = False
        self.finish(headline(report), report.status)


class TensorBoard(Tracker):
    """Writes TensorBoard event files, one folder for each run."""

    name = "tensorboard"
    module = "tensorboard"

    def begin(self, title: str, settings: Mapping[str, Any]) -> None:
        """Open an event file."""
        from torch.utils.tensorboard import SummaryWriter

        place = self.folder / "tensorboard" / f"{title.replace('/', '-')} {os.getpid()}"
        self._writer: Any = SummaryWriter(str(place))
        lines = "\n".join(f"    {name} = {value}" for name, value in settings.items())
        self._writer.add_text("settings", lines)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, values: Mapping[str, float], status: str) -> None:
        """Add scalars and the status."""
        self.log(values, 0)
        self._writer.add_text("status", status)
        self._writer.close()


class MLflow(Tracker):
    """Writes an MLflow run, to a SQLite file unless ``MLFLOW_TRACKING_URI`` names another store."""

    name = "mlflow"
    module = "mlflow"

    def begin(self, title: str, settings: Mapping[str, Any]) -> None:
        """Start a run of the experiment seq2seq-harness."""
        import mlflow

        self._mlflow = mlflow
        if "MLFLOW_TRACKING_URI" not in os.environ:
            self.folder.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(f"sqlite:///{(self.folder / 'mlflow.db').resolve()}")
        mlflow.set_experiment("seq2seq-harness")
        mlflow.start_run(run_name=title)
        mlflow.log_params({name: str(value)[:500] for name, value in settings.items()})

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add metrics."""
        self._mlflow.log_metrics(dict(values), step=step)

    def finish(self, values: Mapping[str, float], status: str) -> None:
        """Add metrics and end the run, as failed unless its status is ok."""
        self._mlflow.log_metrics(dict(values))
        self._mlflow.set_tag("status", status)
        self._mlflow.end_run("FINISHED" if status == "ok" else "FAILED")


class WandB(Tracker):
    """Writes a run of Weights & Biases, offline unless ``WANDB_MODE`` names another mode."""

    name = "wandb"
    module = "wandb"

    def begin(self, title: str, settings: Mapping[str, Any]) -> None:
        """Start a run of the project seq2seq-harness."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project="seq2seq-harness",
            name=title,
            config=dict(settings),
            dir=str(self.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers; one step may be logged several times."""
        self._run.log({**values, "step": step})

    def finish(self, values: Mapping[str, float], status: str) -> None:
        """Add the summary and end the run, as failed unless its status is ok."""
        self._run.summary.update({**values, "status": status})
        self._run.finish(exit_code=int(status != "ok"))


TRACKERS: dict[str, type[Tracker]] = {kind.name: kind for kind in (TensorBoard, MLflow, WandB)}


def find_tracker(name: str, folder: Path) -> Tracker:
    """Return the tracker of this name, which writes to a folder.

    Raises:
        HarnessError: no tracker has this name, or its package is not installed.
    """
    if name not in TRACKERS:
        raise HarnessError(f"Unknown tracker {name!r}.", did_you_mean(name, TRACKERS))
    kind = TRACKERS[name]
    if importlib.util.find_spec(kind.module) is None:
        raise HarnessError(
            f"The tracker {name} needs the package {kind.module}.",
            f"Install it: pip install 'seq2seq-harness[{name}]'",
        )
    return kind(folder)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            settings |= flat(value, f"{prefix}{name}.")
        else:
            settings[prefix + name] = value
    return settings


def headline(report: Report) -> dict[str, float]:
    """Return the main numbers of a report: time, parameters, speed, memory, decoding and scores."""
    values: dict[str, float | None] = {"seconds": report.seconds}
    if report.parameters:
        values["trainable_parameters"] = report.parameters.trainable
    if report.speed:
        values["speed/tokens_per_s"] = report.speed.tokens_per_s
        values["speed/relative"] = report.speed.relative
    if report.memory:
        values["memory/peak_bytes"] = report.memory.peak_bytes
        values["memory/relative"] = report.memory.relative
    if report.inference:
        latency = report.inference.latency
        values["inference/latency_seconds"] = latency.median_seconds
        values["inference/latency_relative"] = latency.relative
    values |= {f"test/{name}": value.value for name, value in report.quality.items()}
    return {name: float(value) for name, value in values.items() if value is not None}
