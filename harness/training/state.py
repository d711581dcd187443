"""The state of a training on disk: all that it needs to go on, on a CPU to the same bits.

One safetensors file holds the trained weights, the optimizer's state and the generators' states as
tensors, and whatever is no tensor as JSON in its header. One file can be replaced in one step, so
that there is always a whole snapshot, and never two halves of different ones.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from harness import clock
from harness.api.events import Evaluated
from harness.records.run_folder import HISTORY, SNAPSHOT
from harness.records.tensor_file import write_tensors
from harness.training.trainer import Trainer


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        step: optimizer steps done.
        best: the evaluation whose weights are kept.
        since_best: evaluations since a value was the best.
        highest_rate: the highest learning rate of a step.
        history_bytes: length of the history at this step.
        seconds: wall time of all that led here; what was done again does not count twice.
    """

    step: int = 0
    best: Evaluated | None = None
    since_best: int = 0
    highest_rate: float = 0.0
    history_bytes: int = 0
    seconds: float = 0.0


class StateSaver:
    """The snapshots of one training, and how far it has come.

    Args:
        folder: holds the snapshot and the history; what the snapshot says is put back at once.
        trainer: the model.
        scheduler: of the learning rate.
        every_seconds: a snapshot is due that long after the last one.

    Attributes:
        now: to be kept up to date by the training loop.
    """

    def __init__(
        self, folder: Path, trainer: Trainer, scheduler: LRScheduler, every_seconds: float
    ) -> None:
        self.now = load_state(folder, trainer, scheduler)
        self._folder = folder
        self._trainer = trainer
        self._scheduler = scheduler
        self._every = every_seconds
        self._last = clock.seconds()
        self._began = self._last - self.now.seconds
        # Steps after the snapshot will be taken again, and write their lines again.
        history = folder / HISTORY
        history.touch()
        os.truncate(history, self.now.history_bytes)

    @property
    def due(self) -> bool:
        """Whether it is time for another one."""
        return clock.seconds() - self._last >= self._every

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, that before the snapshot included."""
        return clock.seconds() - self._began

    def save(self) -> None:
        """Write one; to be called between two optimizer steps."""
        self.now.seconds = self.seconds
        self.now.history_bytes = (self._folder / HISTORY).stat().st_size
        save_state(self._folder, self._trainer, self._scheduler, self.now)
        self._last = clock.seconds()


def save_state(folder: Path, trainer: Trainer, scheduler: LRScheduler, progress: Progress) -> None:
    """Write the state between two optimizer steps."""
    optimizer = trainer.optimizer.state_dict()
    tensors = dict(_model_tensors(trainer))
    numbers: dict[str, dict[str, float]] = {}
    for index, values in optimizer["state"].items():
        for key, value in _flat(values):
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{key}"] = value
            else:
                numbers.setdefault(str(index), {})[key] = value
    tensors["random/torch"] = torch.get_rng_state()
    if trainer.device.type == "cuda":
        # Of the device in use alone: another start may see others beside it.
        tensors["random/cuda"] = torch.cuda.get_rng_state(trainer.device)
    numpy_state: Any = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    header = {
        "progress": asdict(progress),
        "groups": optimizer["param_groups"],
        "numbers": numbers,
        "scheduler": scheduler.state_dict(),
        "python": random.getstate(),
        "numpy": numpy_state,
    }
    write_tensors(
        folder / SNAPSHOT, tensors, {key: json.dumps(value) for key, value in header.items()}
    )


def load_state(folder: Path, trainer: Trainer, scheduler: LRScheduler) -> Progress:
    """Put everything back as it was; without a snapshot, change nothing."""
    path = folder / SNAPSHOT
    if not path.exists():
        return Progress()
    with safe_open(path, framework="pt") as file:
        header = {key: json.loads(text) for key, text in file.metadata().items()}
        with torch.no_grad():
            for name, tensor in _model_tensors(trainer):
                tensor.copy_(file.get_tensor(name))
        state: dict[int, dict[str, Any]] = {}
        for index, values in header["numbers"].items():
            for key, value in values.items():
                _put(state.setdefault(int(index), {}), key, value)
        for name in file.keys():  # noqa: SIM118 - a safetensors file is not iterable
            kind, _, rest = name.partition("/")
            if kind == "optimizer":
                index, _, key = rest.partition("/")
                _put(state.setdefault(int(index), {}), key, file.get_tensor(name))
        trainer.optimizer.load_state_dict({"state": state, "param_groups": header["groups"]})
        torch.set_rng_state(file.get_tensor("random/torch"))
        if trainer.device.type == "cuda":
            torch.cuda.set_rng_state(file.get_tensor("random/cuda"), trainer.device)
    scheduler.load_state_dict(header["scheduler"])
    version, words, gauss = header["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_state = header["numpy"]
    numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], np.uint32)
    np.random.set_state(numpy_state)
    progress = Progress(**header["progress"])
    if header["progress"]["best"]:
        progress.best = Evaluated(**header["progress"]["best"])
    return progress


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what nested values hold, each with its path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}/")
        else:
            yield f"{above}{key}", value


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    """Put a value where ``_flat`` found it."""
    *groups, key = path.split("/")
    for group in groups:
        values = values.setdefault(group, {})
    values[key] = value


def steps_done(folder: Path) -> int:
    """Return after how many optimizer steps the folder's snapshot was written, 0 without one."""
    path = folder / SNAPSHOT
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        return int(json.loads(file.metadata()["progress"])["step"])


def _model_tensors(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """Yield what training changes in the model: trained weights, and buffers that are saved."""
    for name, parameter in trainer.trained.items():
        yield f"weights/{name}", parameter
    saved = trainer.model.state_dict().keys()
    for name, buffer in trainer.model.named_buffers():
        if name in saved:
            yield f"buffers/{name}", buffer
