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
from collections.abc import Iterator
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
from harness.training.exchange import bytes_from_main
from harness.training.nested import flat, put
from harness.training.parallel.trained_state import EMPTY_STATE, TrainedState, divide_state
from harness.training.parallel.whole import trained_state
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
        trainer: the model, the optimizer and the engine; a loaded state changes them, in the
            other processes too.
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
        """True when the state should be saved again; all processes agree on it."""
        due = clock.seconds() - self._last >= self._every
        return self._trainer.processes.decision(due) if self._trainer.shards else due

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, including the time before it was resumed."""
        return clock.seconds() - self._began

    def save(self) -> TrainedState:
        """Save the state, and return what was gathered; call it between two steps only."""
        self.now.seconds = self.seconds
        self.now.history_bytes = (self._folder / HISTORY).stat().st_size
        state = save_state(self._folder, self._trainer, self.scheduler, self.now)
        self._last = clock.seconds()
        return state


def save_state(
    folder: Path, trainer: Trainer, scheduler: LRScheduler, progress: Progress
) -> TrainedState:
    """Write the training state; call it between two optimizer steps only.

    Args:
        folder: the run's folder; a state that is there is replaced atomically.
        trainer: holds the trained weights, saved buffers, the optimizer and the compressors. If
            its model is sharded, the other processes must call ``trained_state`` meanwhile.
        scheduler: the schedule of the learning rate.
        progress: the progress of the training at this step.

    Returns:
        The trained weights, and the state of the optimizer.
    """
    state = trained_state(trainer)
    optimizer = state.optimizer
    tensors = {f"weights/{name}": weight for name, weight in state.weights.items()}
    tensors |= dict(_buffers(trainer))
    numbers: dict[str, dict[str, float]] = {}
    for index, values in optimizer["state"].items():
        for key, value in flat(values):
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                numbers.setdefault(str(index), {})[key] = value
    compressors: dict[str, Any] = {}
    for key, value in flat({c.name: c.state_dict() for c in trainer.events.compressors}):
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
    return state


def load_state(folder: Path, trainer: Trainer, scheduler: LRScheduler) -> Progress:
    """Load the training state and return its progress; without a saved state, change nothing.

    The other processes of the training call ``load_state_of_main``.

    Args:
        folder: the run's folder.
        trainer: its weights, buffers, optimizer and compressors get the saved state. It must have
            the structure of ``saved_changes``.
        scheduler: the schedule of the learning rate; overwritten.
    """
    path = folder / TRAINING_STATE
    if trainer.processes.size > 1:
        # A sharded training gets tensors one by one, and the others only their shards.
        share = _header if trainer.shards else Path.read_bytes
        bytes_from_main(trainer.processes, share(path) if path.exists() else b"")
    return _load(path, trainer, scheduler) if path.exists() else Progress()


def load_state_of_main(trainer: Trainer, scheduler: LRScheduler) -> Progress:
    """Load the training state of the main process, in another one; see ``load_state``."""
    data = bytes_from_main(trainer.processes)
    if not data:
        return Progress()
    if trainer.shards is not None:
        divide_state(EMPTY_STATE, trainer.trained, trainer.optimizer)
        header = json.loads(data)
        scheduler.load_state_dict(header["scheduler"])
        return _progress(header["progress"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, TRAINING_STATE)
        path.write_bytes(data)
        return _load(path, trainer, scheduler)


def _load(path: Path, trainer: Trainer, scheduler: LRScheduler) -> Progress:
    with safe_open(path, framework="pt") as file:
        header = {key: json.loads(text) for key, text in file.metadata().items()}
        compressors: dict[str, Any] = {}
        for key, value in header.get("compressors", {}).items():
            put(compressors, key, value)
        state: dict[int, dict[str, Any]] = {}
        for index, values in header["numbers"].items():
            for key, value in values.items():
                put(state.setdefault(int(index), {}), key, value)
        for name in file.keys():  # noqa: SIM118 - a safetensors file is not iterable
            kind, _, rest = name.partition("/")
            if kind == "optimizer":
                index, _, key = rest.partition("/")
                put(state.setdefault(int(index), {}), key, file.get_tensor(name))
            elif kind == "compressors":
                put(compressors, rest, file.get_tensor(name).to(trainer.device))
        _load_weights(file, trainer, {"state": state, "param_groups": header["groups"]})
        torch.set_rng_state(file.get_tensor("random/torch"))
        if trainer.device.type == "cuda":
            torch.cuda.set_rng_state(file.get_tensor("random/cuda"), trainer.device)
    for compressor in trainer.events.compressors:
        compressor.load_state_dict(compressors.get(compressor.name, {}))
    version, words, gauss = header["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = header["numpy"]
    numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], np.uint32)
    np.random.set_state(numpy_state)
    scheduler.load_state_dict(header["scheduler"])
    return _progress(header["progress"])


@torch.no_grad()
def _load_weights(file: Any, trainer: Trainer, optimizer: dict[str, Any]) -> None:
    """Load weights and buffers from a state's file, and the optimizer's state."""
    for name, buffer in _buffers(trainer):
        buffer.copy_(file.get_tensor(name))
    if trainer.shards is not None:
        weights = {name: file.get_tensor(f"weights/{name}") for name in trainer.trained}
        divide_state(TrainedState(weights, optimizer), trainer.trained, trainer.optimizer)
        return
    for name, parameter in trainer.trained.items():
        parameter.copy_(file.get_tensor(f"weights/{name}"))
    trainer.optimizer.load_state_dict(optimizer)


def _header(path: Path) -> bytes:
    """Return what a state's file holds beside tensors, as JSON."""
    with safe_open(path, framework="pt") as file:
        return json.dumps({key: json.loads(t) for key, t in file.metadata().items()}).encode()


def saved_changes(folder: Path) -> list[StructureChange]:
    """Return the changes of the structure that the folder's training state was saved after."""
    path = folder / TRAINING_STATE
    if not path.exists():
        return []
    with safe_open(path, framework="pt") as file:
        changes = json.loads(file.metadata().get("changes", "[]"))
    return [StructureChange.model_validate(change) for change in changes]


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


def _buffers(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers that are saved, which compressors may change in training."""
    saved = trainer.model.state_dict().keys()
    for name, buffer in trainer.model.named_buffers():
        if name in saved:
            yield f"buffers/{name}", buffer
