"""Compare the speed of our ROUGE with that of rouge_score: python benchmarks/rouge.py.

Both score the same pairs, one after another. The expensive parts are the longest common subsequence
of long texts that share words, and stemming. The benchmark fails if texts are short or all of one
length, if they share no word or every word, and if the two give different scores.
"""

import random
import time
from collections.abc import Callable, Sequence

from demands import demand, demand_spread
from rouge_score.rouge_scorer import RougeScorer

from tasks.metrics.rouge import Rouge, rouge

EXAMPLES = 350
WORDS_A_TEXT = (20, 120)
VOCABULARY = 5000
ENDINGS = ("", "", "", "s", "ed", "ing", "ly", "ations")


def make_pairs(count: int) -> list[tuple[str, str]]:
    """Return pairs of prediction and reference; a prediction keeps three of five words."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    stems = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(VOCABULARY)]
    # Word frequencies follow Zipf's law: the k-th most frequent word has weight 1 / k.
    weights = [1 / rank for rank in range(1, VOCABULARY + 1)]

    def pair() -> tuple[str, str]:
        expected = rng.choices(stems, weights, k=rng.randint(*WORDS_A_TEXT))
        others = rng.choices(stems, weights, k=len(expected))
        mixed = [e if rng.random() < 0.6 else o for e, o in zip(expected, others, strict=True)]
        return text(mixed[: rng.randint(10, 120)]), text(expected)

    def text(words: list[str]) -> str:
        return " ".join(word + rng.choice(ENDINGS) for word in words)

    return [pair() for _ in range(count)]


def _rate(score: Callable[[str, str], object], pairs: list[tuple[str, str]]) -> float:
    start = time.perf_counter()
    for prediction, reference in pairs:
        score(prediction, reference)
    return len(pairs) / (time.perf_counter() - start)


def check_texts(pairs: Sequence[tuple[str, str]]) -> None:
    """Fail if texts are short or of one length, or share too few or too many words."""
    lengths = [len(text.split()) for pair in pairs for text in pair]
    demand(sum(lengths) >= 40 * len(lengths), "texts are short")
    demand_spread(lengths, "texts")
    common = [len({*a.split()} & {*b.split()}) / len({*b.split()}) for a, b in pairs]
    shared = sum(common) / len(common)
    demand(0.05 < shared < 0.9, f"texts share {shared:.0%} of their words")


def check_scores(pairs: Sequence[tuple[str, str]], package: RougeScorer) -> None:
    """Fail if the two give different scores, or stemming changes none."""
    plain = RougeScorer(["rouge1"])
    rises = [
        package.score(r, p)["rouge1"].fmeasure > plain.score(r, p)["rouge1"].fmeasure
        for p, r in pairs
    ]
    demand(any(rises), "no word is found by its stem alone")
    for prediction, reference in pairs:
        expected = [s.fmeasure for s in package.score(reference, prediction).values()]
        scores = rouge(prediction, reference)
        same = all(abs(a - b) < 1e-6 for a, b in zip(scores, expected, strict=True))
        demand(same, f"scores differ: {scores} and {expected}")


def main() -> None:
    """Print examples per second of both, on one core, and the ratio."""
    pairs = make_pairs(EXAMPLES)
    check_texts(pairs)
    package = RougeScorer(list(Rouge.names), use_stemmer=True)
    rouge("running", "runs")  # imports nltk
    check_scores(pairs[:50], package)
    timed = pairs[50:350]
    package_rate = _rate(lambda prediction, reference: package.score(reference, prediction), timed)
    own_rate = _rate(rouge, timed)
    print(f"rouge_score.RougeScorer.score  {package_rate:10,.0f} examples/s")
    ratio = own_rate / package_rate
    print(f"tasks.metrics.rouge.rouge      {own_rate:10,.0f} examples/s   {ratio:.1f}x")


if __name__ == "__main__":
    main()
