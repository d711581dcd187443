"""SummaC: entailment of each predicted sentence by the source, with the summac package."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import HarnessError, Metric, Score
from tasks.metrics.checkpoint import Checkpoint
from tasks.metrics.entailment import Entailment
from tasks.metrics.sentences import SIGNATURE as SENTENCES

NLI = "HARNESS_SUMMAC_NLI"
CONV = "HARNESS_SUMMAC_CONV"

_DEFAULT_NLI = "tals/albert-xlarge-vitaminc-mnli"
# The published convolution was trained with these settings; it has one weight for each bin.
_CONV_SETTINGS = {"bins": "percentile", "nli_labels": "e", "agg": "mean"}
_WINDOW = 256


def default_entailment() -> Entailment:
    """Return the NLI model of ``$HARNESS_SUMMAC_NLI``, by default that of the package (ViTC)."""
    return _entailment(os.environ.get(NLI, _DEFAULT_NLI))


@functools.lru_cache(maxsize=1)
def _entailment(reference: str) -> Entailment:
    """Return one model for all metrics, so that it runs once for all of them."""
    return Entailment(Checkpoint(reference, NLI))


class SummaCZeroShot(Metric):
    """SummaC-ZS (Laban et al. 2022), which has no trained part except the NLI model.

    The value of a predicted sentence is the highest entailment by any source sentence minus the
    highest contradiction. The score is the mean over the predicted sentences, from -100 to 100. As
    in the package, sentences with at most ten characters do not count, and a prediction without
    longer sentences scores 0.

    Args:
        entailment: NLI model; share it between both variants to run it once.
    """

    names = ("summac_zs",)
    needs_sources = True

    def __init__(self, entailment: Entailment | None = None) -> None:
        super().__init__()
        self.entailment = entailment or default_entailment()

    def unavailable(self) -> str | None:
        """Return why this metric cannot be computed here, with the remedy, or ``None``."""
        return _package_missing() or self.entailment.missing()

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Score all examples against their sources; the references are not used."""
        _require(self)
        from summac.model_summac import SummaCZS

        images = self.entailment.images(sources, predictions)
        scorer = SummaCZS(granularity="sentence", imager_load_cache=False, device="cpu")
        examples = [100 * float(scorer.image2score(image)) for image in images]
        signature = f"summac_zs|op:max-mean|{_signature(self.entailment)}"
        return {"summac_zs": Score.mean(examples, signature)}


class SummaCConv(Metric):
    """SummaC-Conv (Laban et al. 2022): a trained convolution over histograms of entailment.

    Args:
        entailment: NLI model; the published weights were trained with ViTC.
        weights: state dict of the convolution, as safetensors or in torch's format, which is
            loaded without unpickling objects; by default the file ``$HARNESS_SUMMAC_CONV``.
    """

    names = ("summac_conv",)
    needs_sources = True

    def __init__(
        self, entailment: Entailment | None = None, weights: str | Path | None = None
    ) -> None:
        super().__init__()
        self.entailment = entailment or default_entailment()
        chosen = weights or os.environ.get(CONV)
        self.weights = Path(chosen) if chosen else None

    def unavailable(self) -> str | None:
        """Return why this metric cannot be computed here, with the remedy, or ``None``."""
        if self.weights is None or not self.weights.is_file():
            what = f"no file {str(self.weights)!r}" if self.weights else "no file"
            return (
                f"The weights of SummaC's convolution are missing: {what}. Download "
                f"summac_conv_vitc_sent_perc_e.bin from https://github.com/tingofurro/summac "
                f"and set {CONV} to its path."
            )
        return _package_missing() or self.entailment.missing()

    def score(
        self, sources: Sequence[str], predictions: Sequence[str], references: Sequence[str]
    ) -> dict[str, Score]:
        """Score all examples against their sources; the references are not used."""
        _require(self)
        import torch

        assert self.weights is not None
        scorer = _convolution(self.weights)
        images = self.entailment.images(sources, predictions)
        examples: list[float] = []
        with torch.inference_mode():
            for start in range(0, len(images), _WINDOW):
                logits, _, _ = scorer(None, None, images=images[start : start + _WINDOW])
                examples += (100 * logits.softmax(dim=-1)[:, 1]).tolist()
        digest = hashlib.sha256(self.weights.read_bytes()).hexdigest()[:12]
        signature = f"summac_conv|conv:sha256-{digest}|{_signature(self.entailment)}"
        return {"summac_conv": Score.mean(examples, signature)}


def _require(metric: Metric) -> None:
    if reason := metric.unavailable():
        raise HarnessError(f"{metric.names[0]} cannot be computed.", reason)


def _package_missing() -> str | None:
    if importlib.util.find_spec("summac"):
        return None
    # Its declared dependencies pin a version of huggingface-hub that other packages do not support.
    return "The package summac is not installed: pip install --no-deps summac==0.0.4"


def _signature(entailment: Entailment) -> str:
    checkpoint = entailment.checkpoint
    return (
        f"nli:{checkpoint.name}|weights:sha256-{checkpoint.digest()}|granularity:sentence"
        f"|sentences:{SENTENCES}|summac:{importlib.metadata.version('summac')}"
        f"|transformers:{importlib.metadata.version('transformers')}"
    )


def _convolution(path: Path) -> Any:
    from summac.model_summac import SummaCConv as Scorer

    scorer = Scorer(
        models=["vitc"],  # sets the number of NLI models; none is loaded here
        granularity="sentence",
        device="cpu",
        start_file=None,
        imager_load_cache=False,
        **_CONV_SETTINGS,
    )
    try:
        scorer.load_state_dict(_state_dict(path))
    except RuntimeError as error:  # names or shapes that do not fit
        raise HarnessError(
            f"{path} does not hold the weights of SummaC's convolution: {error}",
            f"Set {CONV} to summac_conv_vitc_sent_perc_e.bin of the summac project.",
        ) from error
    return scorer.eval()


def _state_dict(path: Path) -> Mapping[str, Any]:
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the errors of readers of damaged files are not documented
        raise HarnessError(
            f"{path} is not a file of weights that can be loaded safely: {error}",
            f"Set {CONV} to a state dict saved by torch.save or as safetensors.",
        ) from error
    if not isinstance(loaded, Mapping):
        raise HarnessError(f"{path} holds a {type(loaded).__name__}, not a state dict.")
    return loaded
