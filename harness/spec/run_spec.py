"""The specification of a run: everything that can change its result, and how it is written."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from harness.api.backbone import Weights
from harness.api.options import Options, validate
from harness.api.parts import split_parts
from harness.errors import HarnessError
from harness.spec.decoding import DecodingSettings
from harness.spec.presets import PRESETS

BASELINE = "full"
"""The recipe that every other one is compared with."""

VARIED = frozenset({"backbone", "recipe", "task", "seed", "device", "probe", "preset", "metrics"})
"""Settings that runs of one table may differ in."""

Precision = Literal["auto", "float32", "bfloat16"]
Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
]

Optimizer = Literal["adamw", "adafactor", "adamw_8bit"]


def _whole_or_share(steps: float) -> float:
    if steps >= 1 and steps != int(steps):
        raise ValueError("is neither a whole number of steps nor a share below 1")
    return int(steps) if steps >= 1 else steps


class TrainSettings(Options):
    """How a recipe is trained. Defaults are the paper's (Zhu et al. 2023, section 4.2)."""

    batch_size: int = Field(8, ge=1)
    """Examples that go through the model at a time."""
    accumulation: int = Field(1, ge=1)
    """Such batches to one optimizer step."""
    epochs: float = Field(10, gt=0)
    """Passes over the training split."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many optimizer steps, if that comes first."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate of recipes that train the backbone's own weights."""
    adapter_learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of recipes with an adapter."""
    warmup_steps: Annotated[int | float, AfterValidator(_whole_or_share)] = Field(1000, ge=0)
    """Optimizer steps over which the learning rate rises from 0; a number below 1 is a share of the
    training's steps. As in transformers, a training that is shorter never reaches the peak."""
    scheduler: Scheduler = "linear"
    """Of the learning rate after the warm-up, by transformers' names; constant has no warm-up."""
    optimizer: Optimizer = "adamw"
    """adamw, adafactor (T5's own, which keeps a row and a column for each matrix; its rate is the
    learning rate), or adamw_8bit (needs the package bitsandbytes). Each as transformers' Trainer
    sets it up."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW; the paper prints 0.1, its released code uses 0.9."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW."""
    epsilon: float = Field(1e-8, gt=0)
    """AdamW."""
    weight_decay: float = Field(0.01, ge=0)
    """Of every optimizer: a weight loses so much of itself, times the learning rate, each step."""
    decay: Literal["all", "matrices"] = "all"
    """What decays: all trained weights, or all but norms and biases, as with transformers'
    Trainer."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of a target token's probability that is spread evenly over the vocabulary, in training
    alone; the reported loss includes it."""
    clip_norm: float = Field(1.0, gt=0)
    """Gradients of a larger norm are scaled down to it."""
    precision: Precision = "auto"
    """What matrix products are computed in; auto is bfloat16 where the device has it, but float32
    for narrow models on a CPU, which gain nothing from it."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Put the sequences of a batch end to end without padding, where the backbone says how."""
    checkpointing: Literal["auto", "on", "off"] = "off"
    """Recompute the layers' activations in the backward pass instead of keeping them: the same
    results in a fraction of the memory and about a third more time. auto does so where the
    predicted peak is more than the memory that is free."""
    best_metric: str | None = None
    """Keep the weights with which this metric is best on the eval split; by default the task's
    primary one, which is the first column of its metrics. In the metric's own direction."""
    eval_every_epochs: float = Field(0.3, gt=0)
    """Score the eval split that often."""
    eval_examples: int | None = Field(None, ge=1)
    """Score at most so many examples of the eval split; by default the task's share of it."""
    patience: int = Field(20, ge=1)
    """Stop after so many evaluations without a better one."""


class GreedySettings(DecodingSettings):
    """How the eval split is predicted during training: greedy and short."""

    # Defaults of fields, not one default object: a setting given alone leaves the others as here.
    beams: int = Field(1, ge=1)
    """Hypotheses kept for each example; 1 is greedy search."""
    max_new_tokens: int = Field(50, ge=1)
    """Longest prediction in tokens, with its closing token."""
    no_repeat_ngram: int = Field(0, ge=0)
    """No n-gram of this many tokens occurs twice in a prediction; 0 allows all."""
    batch_size: int = Field(32, ge=1)
    """Examples decoded at once; changes speed and memory, not the search."""


class ScoringSettings(DecodingSettings):
    """How the test split is predicted and scored."""

    decoder: Literal["harness", "ctranslate2"] = "harness"
    """Whose search predicts; ctranslate2 is an extra, faster, and now and then predicts otherwise.
    Numbers of unlike decoders are not compared."""
    examples: int | None = Field(None, ge=1)
    """Score only so many examples of the test split, the same ones in every run."""

    @field_validator("decoder")
    @classmethod
    def _can_search_so(cls, value: str, info: ValidationInfo) -> str:
        if value == "ctranslate2" and info.data.get("early_stopping") == "never":
            raise ValueError(
                "it ends an example as soon as as many hypotheses have ended as there are beams, "
                "and so does not have test.early_stopping=never"
            )
        return value


class ProbeSettings(Options):
    """The short baseline probe: the recipe and full fine-tuning on the same batches."""

    baseline: str = "probe"
    """``probe`` measures full fine-tuning beside the recipe, ``off`` measures the recipe alone. The
    folder of an earlier run of ``full`` takes that run's numbers, if its fingerprint is equal."""
    warmup_steps: int = Field(3, ge=1)
    """Optimizer steps before the clock starts."""
    steps: int = Field(8, ge=1)
    """Optimizer steps to a timed window."""
    rounds: int = Field(3, ge=2)
    """Rounds of four windows: full, recipe, recipe, full."""
    memory_steps: int = Field(3, ge=3)
    """Optimizer steps to the memory window, each on the longest batch."""


class RunSpec(Options):
    """One backbone x recipe x task x seed, with all settings resolved."""

    backbone: str = "nano-t5"
    """Registered name, hub id or folder."""
    recipe: str = "lora_ff+lprun"
    """Compressors joined by +."""
    task: str = "radiology_demo"
    """Registered name, or a file or folder of your own."""
    task_options: dict[str, Any] = Field(default_factory=dict)
    """Options of the task."""
    weights: Weights = "pretrained"
    """Start from the published weights or from random ones."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""
    metrics: Annotated[
        list[str] | None,
        BeforeValidator(lambda value: split_parts(value) if isinstance(value, str) else value),
    ] = None
    """Score with these, by their registered names, with options as in ``rouge:tokenizer=unicode``
    (harness list metrics NAME); by default with the task's suite. One that
    cannot be computed here is an error before anything is trained, where one of the suite is
    reported as not computed."""
    seed: int = Field(0, ge=0)
    """Seeds the initial adapter, the order of the examples, dropout, and splits made here."""
    preset: str | None = None
    """The settings to start from; by default what suits the backbone."""
    train: TrainSettings = TrainSettings()
    """Training."""
    greedy: GreedySettings = GreedySettings()
    """Predictions during training."""
    test: ScoringSettings = ScoringSettings()
    """Predictions of the test split."""
    probe: ProbeSettings = ProbeSettings()
    """Speed and memory."""

    def to_toml(self) -> str:
        """Write the spec; ``read_toml`` of it gives the same spec."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    def settings_digest(self) -> str:
        """Return a short hash of what runs must share to be averaged or compared.

        That is everything but what a table varies, and what the report holds measured.
        """
        text = json.dumps(self.model_dump(mode="json", exclude=set(VARIED)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def digest(self, *more: str) -> str:
        """Return a short hash of the spec and of whatever else can change the result."""
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
            "A run stores its own as spec.toml in its folder: copy one and edit it.",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise HarnessError(f"The spec file {str(path)!r} cannot be read: {error}.") from error


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Read ``train.batch_size=4`` and the like into nested values.

    Values are read as TOML where they are TOML (numbers, booleans, lists), else as text.

    Raises:
        HarnessError: no equals sign, or a setting within what is itself a value.
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
                    f"--set {setting!r} cannot be read: {group!r} is given a value of its own.",
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
