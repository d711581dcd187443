"""BERTScore: greedy matching of contextual embeddings, with the bert-score package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from harness import HarnessError, Metric, Score
from tasks.metrics.checkpoint import Checkpoint

MODEL = "HARNESS_BERTSCORE_MODEL"
LAYERS = "HARNESS_BERTSCORE_LAYERS"


class BertScore(Metric):
    """BERTScore F1 (Zhang et al. 2020), raw and, if the package has a baseline, rescaled.

    The model is loaded for one call of ``score`` and freed afterwards, so it uses no memory in
    other phases of a run. Blank texts score 0 before rescaling. With several references the best
    one counts, as in the package.

    Args:
        model: a local folder or hub id; by default ``$HARNESS_BERTSCORE_MODEL``, else
            roberta-large. A folder with the name of a model in the package's table, such as
            ``models/roberta-large``, uses that model's layer and baseline.
        num_layers: layer whose output is compared; by default ``$HARNESS_BERTSCORE_LAYERS``,
            else the layer that the package's authors tuned for the model.
        device: device of the model; by default a GPU if there is one.
        batch_size: number of texts that are embedded at once.
    """

    several_references: ClassVar[bool] = True

    def __init__(
        self,
        model: str | None = None,
        num_layers: int | None = None,
        device: str | None = None,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        self.checkpoint = Checkpoint(model or os.environ.get(MODEL, "roberta-large"), MODEL)
        self.num_layers = num_layers or _layers_setting()
        self.device = device
        self.batch_size = batch_size
        self.names = ("bertscore", "bertscore_rescaled") if self._baselines() else ("bertscore",)

    def unavailable(self) -> str | None:
        """Return why this metric cannot be computed here, with the remedy, or ``None``."""
        if missing := self.checkpoint.missing():
            return missing
        if self._layer() is None:
            return (
                f"bert-score knows no tuned layer for {self.checkpoint.name!r}. "
                f"Set {LAYERS} to the number of the layer to compare."
            )
        return None

    def score(
        self,
        sources: Sequence[str],
        predictions: Sequence[str],
        references: Sequence[str | list[str]],
    ) -> dict[str, Score]:
        """Score all examples; the sources are not used."""
        if reason := self.unavailable():
            raise HarnessError("BERTScore cannot be computed.", reason)
        layer = self._layer()
        assert layer is not None
        lists = [[texts] if isinstance(texts, str) else texts for texts in references]
        pairs = [
            (prediction, reference)
            for prediction, texts in zip(predictions, lists, strict=True)
            for reference in texts
        ]
        f1_of_pairs = iter(self._f1(pairs, layer))
        raw = [max(islice(f1_of_pairs, len(texts))) for texts in lists]
        is_best = any(not isinstance(texts, str) for texts in references)
        best = "|references:best" if is_best else ""
        signature = (
            f"model:{self.checkpoint.name}|weights:sha256-{self.checkpoint.digest()}"
            f"|layer:{layer}|measure:f1|idf:no|bert-score:{_version('bert-score')}"
            f"|transformers:{_version('transformers')}{best}"
        )
        scores = {"bertscore": Score.mean([100 * f for f in raw], f"bertscore|{signature}")}
        baseline = _baseline_f1(self._baselines(), layer)
        if baseline is not None:
            rescaled = [100 * (f - baseline) / (1 - baseline) for f in raw]
            scores["bertscore_rescaled"] = Score.mean(
                rescaled, f"bertscore|baseline:en-{baseline}|{signature}"
            )
        return scores

    def _f1(self, pairs: Sequence[tuple[str, str]], layer: int) -> list[float]:
        """Return the F1 of each (prediction, reference), between -1 and 1."""
        import torch
        from bert_score.utils import bert_cos_score_idf

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, tokenizer = _load_encoder(self.checkpoint, layer, device)
        weights: defaultdict[int | None, float] = defaultdict(lambda: 1.0)
        weights[tokenizer.cls_token_id] = weights[tokenizer.sep_token_id] = 0.0

        # Texts of similar length need little padding. The package keeps the embeddings of all texts
        # of a call, so each call has a bounded number of them.
        filled = [i for i, pair in enumerate(pairs) if all(text.strip() for text in pair)]
        filled.sort(key=lambda i: max(map(len, pairs[i])), reverse=True)
        values = [0.0] * len(pairs)
        chunk = 16 * self.batch_size
        for start in range(0, len(filled), chunk):
            indices = filled[start : start + chunk]
            scores = bert_cos_score_idf(
                model,
                [pairs[i][1] for i in indices],
                [pairs[i][0] for i in indices],
                tokenizer,
                weights,
                batch_size=self.batch_size,
                device=device,
            )
            for index, value in zip(indices, scores[:, 2].tolist(), strict=True):
                values[index] = value
        return values

    def _layer(self) -> int | None:
        if self.num_layers is not None:
            return self.num_layers
        from bert_score.utils import model2layers

        layer: int | None = model2layers.get(self.checkpoint.name)
        return layer

    def _baselines(self) -> Path | None:
        """Return the package's table of English baselines by layer, without importing it."""
        spec = importlib.util.find_spec("bert_score")
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent / "rescale_baseline" / "en"
        table = folder / f"{self.checkpoint.name}.tsv"
        return table if table.is_file() else None


def _load_encoder(checkpoint: Checkpoint, layer: int, device: str) -> tuple[Any, Any]:
    """Load the encoder up to ``layer``, and its tokenizer.

    The package's own loader is not used: it takes any path that contains "t5" for a T5, and
    depends on an option of the tokenizer's ``encode`` that transformers 5 ignores.
    """
    from transformers import (
        AutoConfig,
        AutoModel,
        AutoTokenizer,
        GPT2Tokenizer,
        RobertaTokenizer,
    )

    folder = str(checkpoint.folder)
    config = AutoConfig.from_pretrained(folder)
    if not 1 <= layer <= config.num_hidden_layers:
        raise HarnessError(
            f"{checkpoint.name!r} has {config.num_hidden_layers} layers, not {layer}.",
            f"Set {LAYERS} to one of its layers.",
        )
    config.num_hidden_layers = layer
    model = AutoModel.from_pretrained(folder, config=config)
    if config.is_encoder_decoder:
        model = model.get_encoder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if isinstance(tokenizer, RobertaTokenizer | GPT2Tokenizer):
        tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
    positions = getattr(config, "max_position_embeddings", None)
    if positions and tokenizer.model_max_length > positions:
        # RoBERTa's positions begin after two that stand for padding.
        tokenizer.model_max_length = positions - 2
    return model.to(device).eval(), tokenizer


def _layers_setting() -> int | None:
    text = os.environ.get(LAYERS)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise HarnessError(
            f"{LAYERS}={text!r} is not a whole number.", f"For example: {LAYERS}=17"
        ) from None


def _baseline_f1(table: Path | None, layer: int) -> float | None:
    """Read the baseline of F1 from the line of the layer: layer, P, R, F."""
    if table is None:
        return None
    for line in table.read_text().splitlines()[1:]:
        number, _, _, f1 = line.split(",")
        if int(number) == layer:
            return float(f1)
    return None


def _version(package: str) -> str:
    return importlib.metadata.version(package)
