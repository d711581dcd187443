"""Compare generation with transformers' own: python benchmarks/decoding.py [--threads N].

Same model (t5-small's shape, random weights), same sources, in one process, interleaved. The peer
is ``generate`` as Seq2SeqTrainer.predict calls it: batches of 8 in the order given. With random
weights hardly any example ends before the greatest length, so what is gained by examples that
leave the batch does not show here.
"""

import argparse
import random
import statistics
import time

import torch
from transformers import PreTrainedModel

from harness.backbones.t5 import T5
from harness.evaluation.decoding import generate
from harness.evaluation.settings import DecodingSettings

PEER_BATCH = 8
Rows = list[list[int]]


class _Ids:
    """Stands for a tokenizer: what is compared are token ids."""

    def batch_decode(self, rows: torch.Tensor, skip_special_tokens: bool) -> list[str]:
        """Write ids, without padding (0) and end (1)."""
        assert skip_special_tokens
        return [" ".join(str(i) for i in row if i > 1) for row in rows.tolist()]


def _sources(examples: int, mean: float = 130, longest: int = 512) -> Rows:
    rng = random.Random(0)
    lengths = [min(longest, 2 + int(rng.gammavariate(2, mean / 2))) for _ in range(examples)]
    return [[*(rng.randrange(5, 32000) for _ in range(n - 1)), 1] for n in lengths]


def _peer(model: PreTrainedModel, sources: Rows, settings: DecodingSettings) -> list[str]:
    texts = []
    for start in range(0, len(sources), PEER_BATCH):
        batch = sources[start : start + PEER_BATCH]
        width = max(map(len, batch))
        rows = model.generate(
            input_ids=torch.tensor([row + [0] * (width - len(row)) for row in batch]),
            attention_mask=torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in batch]),
            num_beams=settings.beams,
            max_new_tokens=settings.max_new_tokens,
            no_repeat_ngram_size=settings.no_repeat_ngram,
            early_stopping=False,
            length_penalty=1.0,
        )
        texts += _Ids().batch_decode(rows, skip_special_tokens=True)
    return texts


def main() -> None:
    """Print the time of each contender in every round, and ratios of examples a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = T5("t5-small").load("random").eval()
    sources = _sources(arguments.examples)
    settings = DecodingSettings(max_new_tokens=arguments.max_new_tokens)
    contenders = {
        "transformers, batches of 8": lambda: _peer(model, sources, settings),
        "harness, float32": lambda: generate(model, _Ids(), sources, settings),
        "harness, bfloat16": lambda: generate(
            model, _Ids(), sources, settings, dtype=torch.bfloat16
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    texts: dict[str, list[str]] = {}
    for round_ in range(arguments.rounds):
        # There and back: a machine that warms up or slows down favours nobody.
        order = list(contenders) if round_ % 2 == 0 else list(contenders)[::-1]
        for name in order:
            start = time.perf_counter()
            texts[name] = contenders[name]()
            seconds[name].append(time.perf_counter() - start)
            print(f"round {round_ + 1}: {name} {seconds[name][-1]:.1f} s", flush=True)
    peer, *_ = contenders
    for name in contenders:
        ratios = [p / own for p, own in zip(seconds[peer], seconds[name], strict=True)]
        same = sum(a == b for a, b in zip(texts[peer], texts[name], strict=True))
        print(
            f"{name:28} {statistics.median(ratios):5.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
            f"  same outputs: {same} of {len(sources)}"
        )


if __name__ == "__main__":
    main()
