"""The training state on disk: all that a resumed training needs, on a CPU to the same bits.

One safetensors file holds the trained weights, the state of the optimizer and of compressors, and
the states of random generators as tensors, and everything else as JSON in its header. A single file
is replaced atomically, so that the state on disk is always complete and of one step.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from harness import clock
from harness.api.events import Evaluated
from harness.records.report import StructureChange
from harness.records.run_folder import HISTORY, TRAINING_STATE
from harness.records.tensor_file import write_tensors
from harness.training.trainer import Trainer


@dataclass
class Progress:
    """The progress of a training.

    Attributes:
        step: optimizer steps done.
        best: the evaluation with the best weights, None before the first one.
        since_best: evaluations since the best one.
        highest_rate: the highest learning rate of a step so far.
        history_bytes: length of the history file at this step.
        seconds: wall time of the training up to this step; repeated steps count once.
        divisions: (steps done, number of processes) at each change of the number of processes.
    """

    step: int = 0
    best: Evaluated | None = None
    since_best: int = 0
    highest_rate: float = 0.0
    history_bytes: int = 0
    seconds: float = 0.0
    divisions: list[tuple[int, int]] = field(default_factory=list)

    @property
    def processes(self) -> int:
        """Number of processes that took the last step; 1 before the first step."""
        return self.divisions[-1][1] if self.divisions else 1

    def divide(self, processes: int) -> None:
        """Record the number of processes that take the further steps."""
        kept = [division for division in self.divisions if division[0] < self.step]
        if not kept or kept[-1][1] != processes:
            kept.append((self.step, processes))
        self.divisions = kept


class StateSaver:
    """Loads the training state at the beginning, and saves it from time to time.

    Args:
        folder: holds the training state and the history. A state that is there is loaded at once.
        trainer: the model, the optimizer and the engine; a loaded state changes them.
        scheduler: the schedule of the learning rate; a loaded state changes it.
        every_seconds: seconds after which the state is due to be saved again.

    Attributes:
        now: the progress; the training loop must keep it up to date.
        scheduler: the schedule of the learning rate; the training loop may replace it.
    """

    def __init__(
        self, folder: Path, trainer: Trainer, scheduler: LRScheduler, every_seconds: float
    ) -> None:
        self.now = load_state(folder, trainer, scheduler)
        self._folder = folder
        self._trainer = trainer
        self.scheduler = scheduler
        self._every = every_seconds
        self._last = clock.seconds()
        self._began = self._last - self.now.seconds
        # Steps after the saved state are repeated and write their lines again.
        history = folder / HISTORY
        history.touch()
        os.truncate(history, self.now.history_bytes)

    @property
    def due(self) -> bool:
        """True when the state should be saved again."""
        return clock.seconds() - self._last >= self._every

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, including the time before it was resumed."""
        return clock.seconds() - self._began

    def save(self) -> None:
        """Save the state; call it between two optimizer steps only."""
        self.now.seconds = self.seconds
        self.now.history_bytes = (self._folder / HISTORY).stat().st_size
        save_state(self._folder, self._trainer, self.scheduler, self.now)
        self._last = clock.seconds()


def save_state(folder: Path, trainer: Trainer, scheduler: LRScheduler, progress: Progress) -> None:
    """Write the training state; call it between two optimizer steps only.

    Args:
        folder: the run's folder; a state that is there is replaced atomically.
        trainer: holds the trained weights, saved buffers, the optimizer and the compressors.
        scheduler: the schedule of the learning rate.
        progress: the progress of the training at this step.
    """
    optimizer = trainer.optimizer.state_dict()
    tensors = dict(_model_tensors(trainer))
    numbers: dict[str, dict[str, float]] = {}
    for index, values in optimizer["state"].items():
        for key, value in _flat(values):
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                numbers.setdefault(str(index), {})[key] = value
    compressors: dict[str, Any] = {}
    for key, value in _flat({c.name: c.state_dict() for c in trainer.events.compressors}):
        if isinstance(value, Tensor):
            tensors[f"compressors/{key}"] = value
        else:
            compressors[key] = value
    tensors["random/torch"] = torch.get_rng_state()
    if trainer.device.type == "cuda":
        # Of the device in use only: a resumed run may see a different number of devices.
        tensors["random/cuda"] = torch.cuda.get_rng_state(trainer.device)
    numpy_state: Any = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    header = {
        "progress": asdict(progress),
        "groups": optimizer["param_groups"],
        "numbers": numbers,
        "scheduler": scheduler.state_dict(),
        "compressors": compressors,
        "changes": [change.model_dump(mode="json") for change in trainer.changes],
        "python": random.getstate(),
        "numpy": numpy_state,
    }
    write_tensors(
        folder / TRAINING_STATE, tensors, {key: json.dumps(value) for key, value in header.items()}
    )


def load_state(folder: Path, trainer: Trainer, scheduler: LRScheduler) -> Progress:
    """Load the training state and return its progress; without a saved state, change nothing.

    Args:
        folder: the run's folder.
        trainer: its weights, buffers, optimizer and compressors get the saved state. It must have
            the structure of ``saved_changes``.
        scheduler: the schedule of the learning rate; overwritten.
    """
    path = folder / TRAINING_STATE
    if not path.exists():
        return Progress()
    with safe_open(path, framework="pt") as file:
        header = {key: json.loads(text) for key, text in file.metadata().items()}
        with torch.no_grad():
            for name, tensor in _model_tensors(trainer):
                tensor.copy_(file.get_tensor(name))
        compressors: dict[str, Any] = {}
        for key, value in header.get("compressors", {}).items():
            _put(compressors, key, value)
        state: dict[int, dict[str, Any]] = {}
        for index, values in header["numbers"].items():
            for key, value in values.items():
                _put(state.setdefault(int(index), {}), key, value)
        for name in file.keys():  # noqa: SIM118 - a safetensors file is not iterable
            kind, _, rest = name.partition("/")
            if kind == "optimizer":
                index, _, key = rest.partition("/")
                _put(state.setdefault(int(index), {}), key, file.get_tensor(name))
            elif kind == "compressors":
                _put(compressors, rest, file.get_tensor(name).to(trainer.device))
        trainer.optimizer.load_state_dict({"state": state, "param_groups": header["groups"]})
        torch.set_rng_state(file.get_tensor("random/torch"))
        if trainer.device.type == "cuda":
            torch.cuda.set_rng_state(file.get_tensor("random/cuda"), trainer.device)
    scheduler.load_state_dict(header["scheduler"])
    for compressor in trainer.events.compressors:
        compressor.load_state_dict(compressors.get(compressor.name, {}))
    version, words, gauss = header["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = header["numpy"]
    numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], np.uint32)
    np.random.set_state(numpy_state)
    return _progress(header["progress"])


def saved_changes(folder: Path) -> list[StructureChange]:
    """Return the changes of the structure that the folder's training state was saved after."""
    path = folder / TRAINING_STATE
    if not path.exists():
        return []
    with safe_open(path, framework="pt") as file:
        changes = json.loads(file.metadata().get("changes", "[]"))
    return [StructureChange.model_validate(change) for change in changes]


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings, each with its path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}/")
        else:
            yield f"{above}{key}", value


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a path of ``_flat``."""
    *groups, key = path.split("/")
    for group in groups:
        values = values.setdefault(group, {})
    values[key] = value


def training_state(folder: Path) -> bytes:
    """Return the training state as bytes, for other processes; empty if there is none."""
    path = folder / TRAINING_STATE
    return path.read_bytes() if path.exists() else b""


def load_state_bytes(data: bytes, trainer: Trainer, scheduler: LRScheduler) -> Progress:
    """Load a training state of another process; see ``load_state``."""
    with tempfile.TemporaryDirectory() as folder:
        if data:
            (Path(folder) / TRAINING_STATE).write_bytes(data)
        return load_state(Path(folder), trainer, scheduler)


def read_progress(folder: Path) -> Progress:
    """Return the progress of the folder's training state; without a state, that of no step."""
    path = folder / TRAINING_STATE
    if not path.exists():
        return Progress()
    with safe_open(path, framework="pt") as file:
        return _progress(json.loads(file.metadata()["progress"]))


def _progress(values: dict[str, Any]) -> Progress:
    best = values["best"] and Evaluated(**values["best"])
    divisions = [(int(step), int(count)) for step, count in values["divisions"]]
    return Progress(**{**values, "best": best, "divisions": divisions})


def _model_tensors(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors that training changes: trained weights, and buffers that are saved."""
    for name, parameter in trainer.trained.items():
        yield f"weights/{name}", parameter
    saved = trainer.model.state_dict().keys()
    for name, buffer in trainer.model.named_buffers():
        if name in saved:
            yield f"buffers/{name}", buffer
