"""Pre-train nano-t5 from scratch: tokenizer, denoising, weights.

    python pretrain.py --corpus corpus.jsonl --work WORK

writes WORK/model, the folder that the package embeds; `corpus.py` makes the corpus. Killed and
started again it goes on from its last checkpoint.

The objective is T5's span corruption (Raffel et al. 2020, section 3.1.4) in the mixture that small
budgets need. Of each four batches, one corrupts 15 % of the tokens in spans of mean length 3, as
T5; one half of them in spans of mean length 8, the "extreme" denoiser of UL2 (Tay et al. 2023),
which trains the decoder to write; two mark a single long span that lacks a few words and ask for
the whole of it, akin to BART's text infilling (Lewis et al. 2020), which trains the decoder to
copy. Hidden matrices are optimized by Muon, everything else by AdamW.

Depth comes late, because shallow steps are cheap: most steps train 3+3 layers, then each layer is
made four, every one with a quarter of its output, and the 12+12 are trained on together
(progressive stacking, Gong et al. 2019; the quarters nearly keep what the model computes).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

VOCABULARY = 8192
SENTINELS = 48
PAD, EOS, UNK = 0, 1, 2
SHAPE: dict[str, Any] = {
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 512,
    "num_heads": 4,
    "vocab_size": VOCABULARY,
    "dropout_rate": 0.0,
    "decoder_start_token_id": PAD,
    "tie_word_embeddings": True,
}
RAW_TOKENS = 160
BATCH = 32
STAGES = ((3, 1400, 100), (12, 300, 60))  # (layers of each stack, steps, steps of warm-up)
MUON_LR, ADAM_LR = 0.02, 1e-2
HELD_OUT_TOKENS = 50_000


def train_tokenizer(corpus: Path, folder: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; digits stand alone, so that numbers are read digit by digit."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(SENTINELS))]
    tokenizer.train_from_iterator(
        documents(corpus),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - SENTINELS,
            special_tokens=["<pad>", "</s>", "<unk>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_special_tokens(sentinels)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", EOS)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=sentinels,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    assert len(fast) == VOCABULARY
    fast.save_pretrained(folder)
    return fast


def documents(corpus: Path) -> Iterator[str]:
    """Yield the documents of a corpus."""
    with corpus.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def encode(corpus: Path, tokenizer: PreTrainedTokenizerFast) -> NDArray[np.uint16]:
    """Return the whole corpus as one row of tokens, each document ended by </s>."""
    texts = list(documents(corpus))
    rows = []
    for start in range(0, len(texts), 2000):
        ids = tokenizer(texts[start : start + 2000], verbose=False).input_ids
        rows += [np.array(row, np.uint16) for row in ids]
    return np.concatenate(rows)


def corrupt(
    tokens: NDArray[Any], share: float, mean_span: float, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Replace random spans by sentinels; return (source, target), both of a fixed length.

    The source keeps the other tokens with one sentinel a span; the target is each sentinel
    followed by what it stands for, and </s>.
    """
    noise = round(len(tokens) * share)
    spans = round(noise / mean_span)
    kept = _segments(len(tokens) - noise, spans, random)
    gone = _segments(noise, spans, random)
    ends = np.cumsum(np.stack([kept, gone], 1).ravel())
    pieces = np.split(tokens.astype(np.int64), ends[:-1])
    sentinels = VOCABULARY - 1 - np.arange(spans)
    source = [part for i in range(spans) for part in (pieces[2 * i], sentinels[i : i + 1])]
    target = [part for i in range(spans) for part in (sentinels[i : i + 1], pieces[2 * i + 1])]
    return np.concatenate([*source, [EOS]]), np.concatenate([*target, [EOS]])


def rewrite(
    tokens: NDArray[Any], random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Mark a span, drop a tenth of its tokens without a trace, and ask for all of it."""
    tokens = tokens.astype(np.int64)
    start = int(random.integers(0, len(tokens) - SPAN))
    span = tokens[start : start + SPAN]
    dropped = round(0.1 * SPAN)
    # Runs of dropped tokens of mean length 2, as for noise spans.
    kept = _segments(SPAN - dropped, dropped // 2, random)
    gone = _segments(dropped, dropped // 2, random)
    mask = np.repeat(np.tile([True, False], len(kept)), np.stack([kept, gone], 1).ravel())
    first, last = VOCABULARY - 1, VOCABULARY - 2
    source = [tokens[:start], [first], span[mask], [last], tokens[start + SPAN :], [EOS]]
    return np.concatenate(source), np.concatenate([[first], span, [EOS]])


def _segments(total: int, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Cut ``total`` into ``count`` positive lengths, all cuts equally likely."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff(cuts, prepend=0, append=total)


SPAN = 56
DENOISERS: dict[str, Callable[..., tuple[NDArray[np.int64], NDArray[np.int64]]]] = {
    "span_corruption": lambda tokens, random: corrupt(tokens, 0.15, 3.0, random),
    "extreme": lambda tokens, random: corrupt(tokens, 0.5, 8.0, random),
    "rewrite": rewrite,
}

CYCLE = ("span_corruption", "rewrite", "extreme", "rewrite")


def batch(
    tokens: NDArray[np.uint16], step: int, held_out: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (sources, targets) of a step; a function of the step alone, so that it can resume."""
    random = np.random.default_rng([step, held_out])
    denoise = DENOISERS[CYCLE[step % len(CYCLE)]]
    low, high = (0, HELD_OUT_TOKENS) if held_out else (HELD_OUT_TOKENS, len(tokens))
    rows = [
        denoise(tokens[start : start + RAW_TOKENS], random)
        for start in random.integers(low, high - RAW_TOKENS, BATCH)
    ]
    sources, targets = zip(*rows, strict=True)
    return torch.from_numpy(np.stack(sources)), torch.from_numpy(np.stack(targets))


def learning_rate(stage: int, step: int) -> float:
    """Warm up and hold; in the last stage fall linearly to nothing instead."""
    _, steps, warm_up = STAGES[stage]
    last = stage == len(STAGES) - 1
    return min(1.0, (step + 1) / warm_up, (1 - step / steps) if last else 1.0)


def main() -> None:
    """Train the tokenizer and the model, and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    folder = arguments.work / "model"
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    else:
        tokenizer = train_tokenizer(arguments.corpus, folder)
    tokens = encode(arguments.corpus, tokenizer)
    print(f"{len(tokens):,} tokens", flush=True)  # noqa: T201
    model = train(tokens, arguments.work)
    model.config.dropout_rate = 0.1  # For fine-tuning; pre-training never sees a text often.
    # Half precision on disk only: it is loaded as float32.
    model.half().save_pretrained(folder)


def train(tokens: NDArray[np.uint16], work: Path) -> T5ForConditionalGeneration:
    """Train stage by stage."""
    model = build(STAGES[0][0])
    seen = 0
    for stage, (depth, steps, _) in enumerate(STAGES):
        if stage:
            model = deepen(model, depth)
        train_stage(model, stage, tokens, seen, work)
        seen += steps
    return model


def build(depth: int) -> T5ForConditionalGeneration:
    """Return a model of so many layers in each stack with random weights."""
    torch.manual_seed(0)
    config = T5Config(
        **SHAPE,
        num_layers=depth,
        num_decoder_layers=depth,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    return T5ForConditionalGeneration._from_config(config, attn_implementation="eager")


@torch.no_grad()
def deepen(shallow: T5ForConditionalGeneration, depth: int) -> T5ForConditionalGeneration:
    """Return a model whose layers are those of ``shallow``, each one several times in a row."""
    deep = build(depth)
    copies = depth // len(shallow.encoder.block)
    state = shallow.state_dict()
    for name, parameter in deep.named_parameters():
        match = re.fullmatch(r"(\w+)\.block\.(\d+)\.(.*)", name)
        if match is None:
            parameter.copy_(state[name])
            continue
        stack, index, rest = match.groups()
        parameter.copy_(state[f"{stack}.block.{int(index) // copies}.{rest}"])
        if rest.endswith((".o.weight", ".wo.weight")):
            parameter.div_(copies)
    return deep


def train_stage(
    model: T5ForConditionalGeneration,
    stage: int,
    tokens: NDArray[np.uint16],
    seen: int,
    work: Path,
) -> None:
    """Train in place, from the stage's checkpoint if there is one; losses are nats per token."""
    hidden = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and ".block." in name and "relative" not in name
    }
    others = [p for name, p in model.named_parameters() if name not in hidden]
    optimizers = [
        torch.optim.Muon(hidden.values(), lr=MUON_LR, weight_decay=0.0, momentum=0.95),
        torch.optim.AdamW(others, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    rates = (MUON_LR, ADAM_LR)
    step = 0
    checkpoint = work / f"stage{stage}.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step = state["step"]

    def loss_of(sources: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            loss: torch.Tensor = model(input_ids=sources, labels=targets, use_cache=False).loss
        return loss

    losses: list[float] = []
    began = time.perf_counter()
    while step < STAGES[stage][1]:
        scale = learning_rate(stage, step)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * scale
        loss = loss_of(*batch(tokens, seen + step))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        step += 1
        if step % 100 and step != STAGES[stage][1]:
            continue
        row = {
            "layers": STAGES[stage][0],
            "step": step,
            "seconds": round(time.perf_counter() - began),
            "tokens": (seen + step) * BATCH * RAW_TOKENS,
            "loss": round(sum(losses) / len(losses), 4),
            **held_out_losses(loss_of, tokens),
        }
        print(json.dumps(row), flush=True)  # noqa: T201
        with (work / "history.jsonl").open("a") as history:
            history.write(json.dumps(row) + "\n")
        if not math.isfinite(row["loss"]):
            raise SystemExit("The loss is not finite.")
        losses.clear()
        state = {
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "step": step,
        }
        torch.save(state, work / "checkpoint.tmp")
        (work / "checkpoint.tmp").replace(checkpoint)


@torch.no_grad()
def held_out_losses(loss_of: Any, tokens: NDArray[np.uint16]) -> dict[str, float]:
    """Return the loss of each denoiser on text that is never trained on."""
    return {
        f"held_out_{name}": round(loss_of(*batch(tokens, step, held_out=True)).item(), 4)
        for step, name in enumerate(CYCLE[:3])
    }


if __name__ == "__main__":
    main()
