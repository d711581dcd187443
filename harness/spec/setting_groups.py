"""Groups of a run's settings: training, predictions, and the probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from harness.api.options import Options
from harness.spec.decoding import DecodingSettings

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
EngineName = Literal["auto", "graph", "compiled", "packed", "padded"]
"""Engines of a training, the fastest first; ``auto`` never compiles."""


def _whole_or_share(steps: float) -> float:
    if steps >= 1 and steps != int(steps):
        raise ValueError("is neither a whole number of steps nor a share below 1")
    return int(steps) if steps >= 1 else steps


class TrainSettings(Options):
    """Settings of training. Defaults are the paper's (Zhu et al. 2023, section 4.2)."""

    batch_size: int = Field(8, ge=1)
    """Examples per micro-batch."""
    accumulation: int = Field(1, ge=1)
    """Gradient accumulation: micro-batches per optimizer step."""
    epochs: float = Field(10, gt=0)
    """Passes over the training split."""
    max_steps: int | None = Field(None, ge=1)
    """Largest number of optimizer steps; training ends earlier if the epochs are over."""
    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate of recipes that train the backbone's own weights."""
    adapter_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate of recipes with an adapter. By default each method has its own, which
    docs/methods.md lists; a recipe of several adapters takes the lowest of theirs."""
    default_adapter_learning_rate: float = Field(1e-4, gt=0)
    """Peak learning rate of adapters that have none of their own, such as lora_ff and lora_qv."""
    tuned_learning_rate: float | None = Field(None, gt=0)
    """Peak learning rate that was chosen for this recipe alone, in place of all others. Recipes
    whose rates were chosen by the same rule are comparable, so that runs of one table may differ in
    it, as in nothing else of their training."""
    warmup_steps: Annotated[int | float, AfterValidator(_whole_or_share)] = Field(1000, ge=0)
    """Optimizer steps over which the learning rate rises from 0. A number below 1 is a share of all
    training steps. A shorter training never reaches the peak, as in transformers."""
    scheduler: Scheduler = "linear"
    """Schedule of the learning rate after the warm-up, by transformers' names; constant has no
    warm-up."""
    optimizer: Optimizer = "adamw"
    """Optimizer: adamw, adafactor (stores a row and a column per matrix; used to pre-train T5) or
    adamw_8bit (needs the package bitsandbytes). Each is set up as in transformers' Trainer."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's beta1. The paper prints 0.1, its released code uses 0.9."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """AdamW's beta2."""
    epsilon: float = Field(1e-8, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of every optimizer: each step subtracts this factor times the learning
    rate times the weight."""
    decay: Literal["all", "matrices"] = "all"
    """Weights that decay. all: every trained weight; matrices: all except norms and biases, as in
    transformers' Trainer."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Label smoothing in training: this share of a target token's probability is spread evenly over
    the vocabulary. The reported training loss includes it."""
    clip_norm: float = Field(1.0, gt=0)
    """Gradient clipping: a larger global norm is scaled down to this value."""
    precision: Precision = "auto"
    """Precision of matrix products. auto is bfloat16 if the device supports it, except float32 for
    narrow models on a CPU, which do not get faster."""
    engine: EngineName = "auto"
    """Engine that computes steps. graph: packed, and recorded as a CUDA graph per shape of batch;
    packed: the sequences of a batch end to end, without padding; padded: as in transformers. auto
    is the first of these that is possible; naming one that is not is an error. compiled: packed,
    and layers are compiled by torch.compile before training; if that fails, training is packed and
    the report says why."""
    check_engine: Literal["auto", "on", "off"] = "auto"
    """Compare the engine's loss and gradients on the first batch with those of padded batches in
    float32. If they differ or cannot be computed, training uses the next simpler engine, and the
    report says why. auto checks on a GPU."""
    checkpointing: Literal["auto", "on", "off"] = "off"
    """Activation checkpointing: recompute the layers' activations in the backward pass instead of
    storing them. It gives the same results with less memory and about a third more time. auto
    turns it on if the estimated peak is larger than the free memory."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """Parallel training in several processes: ddp holds the model in each, fsdp divides its weights
    among them. auto divides them if the estimated peak is larger than a device's free memory."""
    cpu_offload: bool = False
    """With fsdp: keep weights, gradients and the optimizer's state in the CPU's memory. It is slow,
    and for models that do not fit on all devices together."""
    best_metric: str | None = None
    """Metric on the eval split that selects the best weights; by default the first metric of the
    task. Whether higher or lower is better follows from the metric."""
    eval_every_epochs: float = Field(0.3, gt=0)
    """Epochs between two evaluations on the eval split."""
    eval_examples: int | None = Field(None, ge=1)
    """Largest number of eval examples to score; by default the task's share of the eval split."""
    patience: int = Field(20, ge=1)
    """Early stopping: evaluations without improvement before training stops."""

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, values: Any) -> Any:
        return _with_engine(values) if isinstance(values, Mapping) else values


_OLD = {"packing": ("auto", "on", "off"), "cuda_graphs": ("auto", "on", "off")}
"""Settings that ``engine`` replaced, and their values."""


def _with_engine(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which ``engine`` stands for ``packing`` and ``cuda_graphs``."""
    old = {name: values[name] for name in _OLD if name in values}
    for name, value in old.items():
        if value not in _OLD[name]:
            raise ValueError(f"{name}={value!r} is not valid, and engine has replaced {name}")
    kept = {name: value for name, value in values.items() if name not in old}
    engine = "auto"
    if old.get("packing") == "off":
        engine = "padded"
    elif (graphs := old.get("cuda_graphs", "auto")) != "auto":
        engine = "graph" if graphs == "on" else "packed"
    if engine == "auto":
        return kept
    if kept.get("engine", engine) != engine:
        raise ValueError(f"engine has replaced {' and '.join(old)}: leave out {', '.join(old)}")
    return {**kept, "engine": engine}


class GreedySettings(DecodingSettings):
    """Settings of the predictions on the eval split during training: greedy and short."""

    # Defaults are set per field, so that a file that sets one of them keeps the others.
    beams: int = Field(1, ge=1)
    """Hypotheses kept for each example; 1 is greedy search."""
    max_new_tokens: int = Field(50, ge=1)
    """Longest prediction in tokens, with its closing token."""
    no_repeat_ngram: int = Field(0, ge=0)
    """No n-gram of this many tokens occurs twice in a prediction; 0 allows all."""
    batch_size: int = Field(32, ge=1)
    """Examples decoded at once; changes speed and memory, not the search."""


class ScoringSettings(DecodingSettings):
    """Settings of the predictions on the test split and of their scoring."""

    decoder: Literal["harness", "ctranslate2"] = "harness"
    """Implementation of the search. ctranslate2 (an extra) is faster, and some of its predictions
    differ. Scores of different decoders are not compared."""
    examples: int | None = Field(None, ge=1)
    """Number of test examples to score, the same ones in every run; by default all."""

    @field_validator("decoder")
    @classmethod
    def _can_search_so(cls, value: str, info: ValidationInfo) -> str:
        if value == "ctranslate2" and info.data.get("early_stopping") == "never":
            raise ValueError(
                "ctranslate2 does not support test.early_stopping=never: it ends an example as "
                "soon as "
                "the number of finished hypotheses equals the number of beams"
            )
        return value


class ProbeSettings(Options):
    """Settings of the probe, which measures the recipe and full fine-tuning on the same batches."""

    baseline: str = "probe"
    """Baseline of relative speed and memory. ``probe`` measures full fine-tuning beside the recipe;
    ``off`` measures the recipe alone; the folder of an earlier run of ``full`` reuses the numbers
    of that run, if its fingerprint is equal."""
    warmup_steps: int = Field(3, ge=1)
    """Optimizer steps before the first timed window."""
    steps: int = Field(8, ge=1)
    """Optimizer steps per timed window."""
    rounds: int = Field(3, ge=2)
    """Rounds of four windows: full, recipe, recipe, full."""
    memory_steps: int = Field(3, ge=3)
    """Optimizer steps of the memory window, each on the longest batch."""
    training: bool = True
    """Measure the speed and memory of training. false saves the time where only quality is asked
    for; ``harness profile`` measures both later, apart from the runs."""
    inference: bool = True
    """Also measure decoding: latency, throughput, memory and size of the merged model. It takes at
    most 15 % of a run's time."""
