"""Compare our ROUGE with the package in a plain loop: python benchmarks/rouge.py."""

import random
import time
from collections.abc import Callable

from rouge_score.rouge_scorer import RougeScorer

from tasks.metrics.rouge import Rouge, rouge

EXAMPLES = 2000
WORDS_A_TEXT = (20, 120)
VOCABULARY = 5000


def _texts(rng: random.Random) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(VOCABULARY)]
    # Word frequencies as in language: the k-th most frequent word at a rate of 1 / k.
    weights = [1 / rank for rank in range(1, VOCABULARY + 1)]
    lengths = [rng.randint(*WORDS_A_TEXT) for _ in range(EXAMPLES)]
    return [" ".join(rng.choices(vocabulary, weights, k=length)) for length in lengths]


def _rate(score: Callable[[str, str], object], pairs: list[tuple[str, str]]) -> float:
    start = time.perf_counter()
    for prediction, reference in pairs:
        score(prediction, reference)
    return len(pairs) / (time.perf_counter() - start)


def main() -> None:
    """Print examples a second of both, on one core, and their ratio."""
    rng = random.Random(0)
    pairs = list(zip(_texts(rng), _texts(rng), strict=True))
    package = RougeScorer(list(Rouge.names), use_stemmer=True)
    rouge("running", "runs")  # imports nltk
    plain = _rate(lambda prediction, reference: package.score(reference, prediction), pairs[:200])
    ours = _rate(rouge, pairs)
    print(f"rouge_score.RougeScorer.score  {plain:10,.0f} examples/s")
    print(f"tasks.metrics.rouge.rouge      {ours:10,.0f} examples/s   {ours / plain:.1f}x")


if __name__ == "__main__":
    main()
