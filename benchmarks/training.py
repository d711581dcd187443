"""Compare the lean engine with Seq2SeqTrainer + PEFT: python benchmarks/training.py --help.

Random weights, made-up samples of skewed lengths; every arm trains the same samples for the same
number of steps, each window in a fresh process. The order within a round is A B ... B A, so that
a drift of the machine meets all arms alike; the numbers are medians over the windows, the range is
over them. Beside the ratio to the best peer by the wall clock stands the one by processor time,
which other work on the machine leaves nearly alone. Memory is the growth of the process over the
built model. Losses differ by dropout's random numbers.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import (
    PreTrainedModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from harness import Backbone
from harness.composition import compose
from harness.measurement.memory import reset_peak, resident
from harness.plugins import installed
from harness.recipe import Recipe, parse
from harness.training.engine import Engine, PaddedEngine
from harness.training.examples import Example
from harness.training.packing import choose_engine

LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Arm:
    """One way to train."""

    name: str
    lean: bool
    dtype: str
    grouped: bool = False


ARMS = (
    Arm("Trainer + PEFT, float32", False, "float32"),
    Arm("  grouped by length", False, "float32", grouped=True),
    Arm("Trainer + PEFT, bf16", False, "bfloat16"),
    Arm("  grouped by length", False, "bfloat16", grouped=True),
    Arm("this engine, float32", True, "float32"),
    Arm("this engine, bfloat16", True, "bfloat16"),
)


@dataclass(frozen=True)
class Case:
    """What all arms train."""

    shape: str
    recipe: str
    batch: int
    steps: int
    warmup: int
    threads: int
    full_length: bool

    @property
    def backbone(self) -> Backbone:
        """The model, by its shape."""
        backbone: Backbone = installed().backbones.find(self.shape).load()(self.shape)
        return backbone

    @property
    def batches(self) -> list[list[Example]]:
        """The same ones each time."""
        count = self.batch * (self.warmup + self.steps)
        examples = make_examples(count, self.backbone.config().vocab_size, self.full_length)
        return [examples[i : i + self.batch] for i in range(0, count, self.batch)]

    @property
    def title(self) -> str:
        """What is trained, and how much of a padded batch is real."""
        padded = sum(len(b) * max(len(e.source) for e in b) for b in self.batches)
        lengths = [len(e.source) for batch in self.batches for e in batch]
        return (
            f"{self.shape}, {self.recipe}: {self.steps} steps of {self.batch}; sources of "
            f"{statistics.mean(lengths):.0f} tokens on average, {sum(lengths) / padded:.0%} of the "
            f"padded ones; {self.threads} threads"
        )


@dataclass
class Window:
    """What one arm took for its timed steps.

    Attributes:
        tokens: of the sources and targets that it saw; grouping by length changes which.
        wall: seconds.
        processor: seconds, of all threads.
        memory: growth of the process over the built model at its peak, in bytes.
        losses: of all steps, the warm-up's too.
    """

    tokens: int
    wall: float
    processor: float
    memory: int
    losses: list[float]

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.wall

    @property
    def processor_rate(self) -> float:
        """Tokens a second of processor time."""
        return self.tokens / self.processor


class Clock:
    """Starts after the warm-up steps; reads time, tokens and the peak of memory."""

    def __init__(self, warmup: int) -> None:
        self.warmup = warmup
        self.began: tuple[float, float] | None = None
        self.tokens = 0
        self.at_rest = resident("VmRSS")

    def step_done(self, steps: int, tokens: int) -> None:
        """Note how many steps were taken so far, and how many tokens the last one saw."""
        self.tokens += tokens
        if steps == self.warmup:
            reset_peak()
            self.tokens = 0
            self.began = time.perf_counter(), time.process_time()

    def read(self, losses: list[float]) -> Window:
        """Return what passed since."""
        assert self.began is not None
        wall, processor = time.perf_counter(), time.process_time()
        return Window(
            self.tokens,
            wall - self.began[0],
            processor - self.began[1],
            resident("VmHWM") - self.at_rest,
            losses,
        )


def make_examples(count: int, vocabulary: int, full_length: bool) -> list[Example]:
    """Sources of about 130 tokens on average and at most 512, targets of 60 and at most 128."""
    rng = random.Random(0)

    def text(median: int, limit: int) -> list[int]:
        length = (
            limit
            if full_length
            else min(limit, max(8, round(rng.lognormvariate(0, 0.75) * median)))
        )
        return [*rng.choices(range(3, vocabulary), k=length - 1), 1]

    return [Example(text(98, 512), text(50, 128)) for _ in range(count)]


def lean(
    model: PreTrainedModel,
    engine_of: Callable[[PreTrainedModel], Engine],
    batches: Sequence[Sequence[Example]],
    warmup: int,
) -> Window:
    """Train a composed model in the smallest loop there is."""
    engine = engine_of(model)
    clock = Clock(warmup)
    accelerator = Accelerator(cpu=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01, fused=True)
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    losses = []
    for done, examples in enumerate(batches, start=1):
        batch = engine.collate(examples)
        loss = engine.loss_sum(model, batch) / batch.target_tokens
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        clock.step_done(done, batch.source_tokens + batch.target_tokens)
    engine.release(model)
    return clock.read(losses)


def peer(
    model: Any, batches: Sequence[Sequence[Example]], warmup: int, bf16: bool, grouped: bool
) -> Window:
    """Train what PEFT made of the model with transformers' own trainer."""
    pad = PaddedEngine(model.config.pad_token_id, torch.float32, "cpu")
    losses: list[float] = []

    seen: list[int] = []

    class Recording(Seq2SeqTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            losses.append(loss.item())
            seen.append(int(inputs["attention_mask"].sum() + (inputs["labels"] >= 0).sum()))
            return loss

    class Timing(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.step_done(state.global_step, seen[-1])

    examples = [example for batch in batches for example in batch]
    # The trainer groups by the length of input_ids.
    rows = [{"input_ids": e.source, "labels": e.target} for e in examples]
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=len(batches[0]),
            max_steps=len(batches),
            learning_rate=LEARNING_RATE,
            weight_decay=0.01,
            max_grad_norm=1.0,
            lr_scheduler_type="constant",
            train_sampling_strategy="group_by_length" if grouped else "sequential",
            optim="adamw_torch_fused",
            bf16=bf16,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        trainer = Recording(
            model,
            arguments,
            train_dataset=rows,
            data_collator=lambda b: (
                pad.collate([Example(r["input_ids"], r["labels"]) for r in b]).tensors
            ),
            callbacks=[Timing()],
        )
        clock = Clock(warmup)
        trainer.train()
        return clock.read(losses)


def with_peft(model: PreTrainedModel, backbone: Backbone, recipe: Recipe) -> Any:
    """Apply a recipe the way a user of PEFT would."""
    for compressor in recipe.compressors:
        roles = getattr(compressor, "roles", ())
        if not roles:
            model = compressor.apply(model, backbone)
            continue
        options = compressor.options
        targets = [name for role in roles for name in backbone.modules(model, role)]
        config = LoraConfig(
            task_type="SEQ_2_SEQ_LM",
            r=options.r,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            bias="lora_only" if options.bias else "none",
            target_modules=targets,
        )
        return get_peft_model(model, config)
    return model


def run_window(arm: Arm, case: Case) -> Window:
    """Train one arm on a case, from the same start as all others."""
    torch.set_num_threads(case.threads)
    backbone = case.backbone
    recipe = parse(case.recipe, installed().compressors)
    batches = case.batches
    torch.manual_seed(0)
    model = backbone.load("random")
    torch.manual_seed(1)
    if not arm.lean:
        model = with_peft(model, backbone, recipe)
        return peer(model, batches, case.warmup, arm.dtype == "bfloat16", arm.grouped)
    model = compose(model, backbone, recipe)

    def engine(model: PreTrainedModel) -> Engine:
        return choose_engine(
            model,
            backbone,
            device=torch.device("cpu"),
            dtype=getattr(torch, arm.dtype),
            pad_token_id=model.config.pad_token_id,
            packing="on",
        )

    return lean(model, engine, batches, case.warmup)


def compare(case: Case, rounds: int) -> Table:
    """Run the arms, A B ... B A, each window in a process of its own; return the table."""
    windows: dict[Arm, list[Window]] = {arm: [] for arm in ARMS}
    for _ in range(rounds):
        for arm in [*ARMS, *reversed(ARMS)]:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                windows[arm].append(process.submit(run_window, arm, case).result())

    def median(arm: Arm, value: str) -> float:
        values: list[float] = [getattr(window, value) for window in windows[arm]]
        return statistics.median(values)

    table = Table(title=case.title)
    columns = ("tokens/s", "x float32", "x best", "range", "by CPU time", "MB", "last loss")
    for column in ("", *columns):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)

    def best(value: str) -> float:
        return max(median(arm, value) for arm in ARMS if not arm.lean)

    for arm in ARMS:
        rates = [window.rate / best("rate") for window in windows[arm]]
        table.add_row(
            arm.name,
            f"{median(arm, 'rate'):,.0f}",
            f"{median(arm, 'rate') / median(ARMS[0], 'rate'):.2f}",
            f"{statistics.median(rates):.2f}",
            f"{min(rates):.2f} to {max(rates):.2f}",
            f"{median(arm, 'processor_rate') / best('processor_rate'):.2f}",
            f"{median(arm, 'memory') / 1e6:,.0f}",
            f"{windows[arm][0].losses[-1]:.4f}",
        )
    return table


def main() -> None:
    """Print one table for each shape and recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["t5-small", "bart-base"])
    parser.add_argument("--recipes", nargs="+", default=["lora_ff", "lora_ff+lprun", "full"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8, help="timed steps a window")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="each holds two windows an arm")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--full-length", action="store_true", help="nothing to gain from packing")
    options = parser.parse_args()
    console = Console(width=120)
    for shape in options.shapes:
        for recipe in options.recipes:
            case = Case(
                shape,
                recipe,
                options.batch,
                options.steps,
                options.warmup,
                options.threads,
                options.full_length,
            )
            console.print(compare(case, options.rounds))


if __name__ == "__main__":
    main()
