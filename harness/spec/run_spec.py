"""The specification of a run: every setting that can change its result, and its TOML form."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BeforeValidator, Field

from harness.api.backbone import Weights
from harness.api.options import Options, validate
from harness.api.parts import split_parts
from harness.errors import HarnessError
from harness.spec.presets import PRESETS
from harness.spec.setting_groups import (
    GreedySettings,
    ProbeSettings,
    ScoringSettings,
    TrainSettings,
)

BASELINE = "full"
"""The recipe that every other one is compared with."""

VARIED = frozenset({"backbone", "recipe", "task", "seed", "device", "probe", "preset", "metrics"})
"""Settings that may differ between the runs of one table."""

TUNED = "tuned_learning_rate"
"""The setting of training that may differ between the runs of one table."""


class RunSpec(Options):
    """One backbone x recipe x task x seed, with all settings resolved."""

    backbone: str = "nano-t5"
    """Model to fine-tune: a registered name, a hub id or a folder."""
    recipe: str = "lora_ff+lprun"
    """Compressors joined by +."""
    task: str = "radiology_demo"
    """Task: a registered name, or your own file or folder."""
    task_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the task; ``harness list tasks NAME`` shows them."""
    weights: Weights = "pretrained"
    """Initial weights: the published ones or random ones."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device that trains; auto is cuda if there is one."""
    metrics: Annotated[
        list[str] | None,
        BeforeValidator(lambda value: split_parts(value) if isinstance(value, str) else value),
    ] = None
    """Metrics to score with, by registered name and with options as in ``rouge:tokenizer=unicode``
    (``harness list metrics NAME`` shows them); by default the task's suite. A named metric that
    cannot be computed is an error before training. A metric of the suite that cannot be computed
    is reported as not computed."""
    seed: int = Field(0, ge=0)
    """Seeds the initial adapter, the order of the examples, dropout, and splits that are drawn."""
    preset: str | None = None
    """Preset to start from: paper or quick; by default the backbone's."""
    train: TrainSettings = TrainSettings()
    """Settings of training."""
    greedy: GreedySettings = GreedySettings()
    """Settings of predictions during training."""
    test: ScoringSettings = ScoringSettings()
    """Settings of predictions on the test split."""
    probe: ProbeSettings = ProbeSettings()
    """Settings of the measurement of speed and memory."""

    def with_micro_batch(self, micro_batch: int) -> RunSpec:
        """Return the spec with smaller micro-batches and as many examples in an optimizer step.

        Raises:
            ValueError: the batch size is not a multiple of ``micro_batch``.
        """
        pieces, rest = divmod(self.train.batch_size, micro_batch)
        if rest:
            raise ValueError(f"{self.train.batch_size} is no multiple of {micro_batch}.")
        accumulation = self.train.accumulation * pieces
        settings = {"batch_size": micro_batch, "accumulation": accumulation}
        return self.model_copy(update={"train": self.train.model_copy(update=settings)})

    def to_toml(self) -> str:
        """Write the spec; ``read_toml`` of it gives the same spec."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def settings_digest(self) -> str:
        """Return a short hash of the settings that runs must share to be averaged or compared.

        These are all settings except those of ``VARIED`` and ``TUNED``.
        """
        left_out: dict[str, Any] = {**dict.fromkeys(VARIED, True), "train": {TUNED}}
        text = json.dumps(self.model_dump(mode="json", exclude=left_out), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def digest(self, *more: str) -> str:
        """Return a short hash of the spec and of ``more``, which also changes the result."""
        text = json.dumps([self.model_dump(mode="json"), *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a spec file as nested values, not yet validated.

    Raises:
        HarnessError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise HarnessError(
            f"There is no spec file {str(path)!r}.",
            "Every run stores a spec.toml in its folder: copy one and edit it.",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise HarnessError(f"The spec file {str(path)!r} cannot be read: {error}.") from error


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Read settings such as ``train.batch_size=4`` into nested values.

    A value that is TOML (a number, a boolean, a list) is read as TOML, any other as text.

    Raises:
        HarnessError: no equals sign, or a setting inside another setting's value.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.strip():
            raise HarnessError(
                f"--set {setting!r} cannot be read.", "Write --set train.batch_size=4"
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        *groups, name = path.strip().split(".")
        inner: Any = values
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise HarnessError(
                    f"--set {setting!r} cannot be read: {group!r} is a group of settings and was "
                    "given a value.",
                    "Set a group's settings one by one: --set train.batch_size=4",
                )
        inner[name] = value
    return values


def resolve(values: Mapping[str, Any], default_preset: str) -> RunSpec:
    """Lay the user's values over a preset and validate the whole.

    Args:
        values: nested values from a spec file and the command line.
        default_preset: the preset if ``values`` name none.

    Raises:
        HarnessError: an unknown preset, an unknown key, or a value that does not fit.
    """
    name = values.get("preset") or default_preset
    if not isinstance(name, str) or name not in PRESETS:
        raise HarnessError(f"Unknown preset {name!r}.", f"Known: {', '.join(PRESETS)}.")
    merged = overlay(overlay(PRESETS[name], values), {"preset": name})
    return validate(RunSpec, merged, "A run")


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with the values of ``above`` in its place, group by group."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        nested = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = overlay(old, value) if nested else value  # type: ignore[arg-type]
    return merged
