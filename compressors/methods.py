"""The methods that train few weights: what each is, and its documented learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_COMPARISON = "PEFT's method comparison on MetaMathQA"
_INJECTED = "compressors.injected"


@dataclass(frozen=True)
class Method:
    """A registered method, as the list of compressors and its page of the docs show it.

    Attributes:
        target: the class, as ``package.module:Class``.
        summary: one line for the list.
        trains: what is trained.
        rate: documented peak learning rate; None takes ``train.default_adapter_learning_rate``, and
            "full" the rate of full fine-tuning.
        source: origin of the learning rate.
        take: when to take it.
    """

    target: str
    summary: str
    trains: str
    rate: float | Literal["full"] | None
    source: str
    take: str


METHODS: dict[str, Method] = {
    "lora_qv": Method(
        "compressors.lora:LoraQV",
        "LoRA on all query and value projections",
        "two thin matrices for each query and value projection",
        None,
        "Zhu et al. 2023: 1e-4",
        "to compare with Zhu et al. 2023",
    ),
    "lora_ff": Method(
        "compressors.lora:LoraFF",
        "LoRA on both feed-forward projections",
        "two thin matrices for each feed-forward projection",
        None,
        "Zhu et al. 2023: 1e-4",
        "first: most tools read it, and its products are fused here",
    ),
    "lora": Method(
        "compressors.lora:LoraAt",
        "LoRA on layers of chosen roles; also rsLoRA, DoRA, PiSSA, OLoRA, EVA, LoftQ, LoRA+",
        "two thin matrices for each layer; DoRA also the length of each output's weights",
        1e-4,
        _COMPARISON,
        "to try a variant of LoRA, or other layers",
    ),
    "adalora": Method(
        "compressors.adalora:AdaLora",
        "LoRA whose ranks are distributed over the layers during training",
        "two thin matrices and a diagonal for each layer",
        1e-4,
        _COMPARISON,
        "with a long training and a small budget of ranks; it trains in one process",
    ),
    "ia3": Method(
        f"{_INJECTED}:ia3",
        "(IA)3: scale keys, values and hidden units by learned vectors",
        "a vector for each layer",
        3e-3,
        "Liu et al. 2022, of T0",
        "if adapters must be tiny",
    ),
    "vera": Method(
        f"{_INJECTED}:vera",
        "VeRA: scale random low-rank matrices that all layers share",
        "two vectors for each layer",
        1e-3,
        _COMPARISON,
        "if adapters must be tiny",
    ),
    "vblora": Method(
        f"{_INJECTED}:vblora",
        "VB-LoRA: compose low-rank matrices of vectors from one bank",
        "one bank of vectors, and weights of the mixtures for each layer",
        5e-4,
        _COMPARISON,
        "if adapters must be tiny",
    ),
    "loha": Method(
        f"{_INJECTED}:loha",
        "LoHa: the elementwise product of two low-rank updates",
        "four thin matrices for each layer",
        1e-4,
        _COMPARISON,
        "if an update needs a higher rank than LoRA's at equal size",
    ),
    "lokr": Method(
        f"{_INJECTED}:lokr",
        "LoKr: a Kronecker product as the update",
        "two small factors for each layer",
        3e-3,
        _COMPARISON,
        "if adapters must be small",
    ),
    "oft": Method(
        f"{_INJECTED}:oft",
        "OFT: rotate inputs by block-diagonal orthogonal matrices",
        "skew-symmetric blocks for each layer",
        1e-4,
        _COMPARISON,
        "if the weights' angles should stay",
    ),
    "boft": Method(
        f"{_INJECTED}:boft",
        "BOFT with one factor: rotate blocks of the inputs, and scale the outputs",
        "orthogonal blocks and a scale of the outputs for each layer",
        1e-4,
        _COMPARISON,
        "as oft, with smaller blocks; it is slow",
    ),
    "hra": Method(
        f"{_INJECTED}:hra",
        "HRA: rotate inputs by a chain of learned reflections",
        "one vector for each reflection of each layer",
        1e-4,
        "none is documented for text; that of oft",
        "as oft, with fewer weights",
    ),
    "fourierft": Method(
        f"{_INJECTED}:fourierft",
        "FourierFT: learn a few coefficients of the update's spectrum",
        "coefficients for each layer",
        1e-4,
        _COMPARISON,
        "if adapters must be tiny; it is slow",
    ),
    "waveft": Method(
        f"{_INJECTED}:waveft",
        "WaveFT: learn a few wavelet coefficients of the update",
        "coefficients for each layer",
        1e-4,
        _COMPARISON,
        "if adapters must be tiny; it is slow",
    ),
    "miss": Method(
        f"{_INJECTED}:miss",
        "MiSS: one shared shard that is repeated over the inputs",
        "one thin matrix for each layer",
        1e-4,
        _COMPARISON,
        "for half of LoRA's weights at equal rank",
    ),
    "randlora": Method(
        f"{_INJECTED}:randlora",
        "RandLoRA: full-rank updates from scaled random bases",
        "two small matrices of scales for each layer",
        1e-4,
        _COMPARISON,
        "if low rank is too little",
    ),
    "shira": Method(
        f"{_INJECTED}:shira",
        "SHiRA: train a few weights at random places",
        "some weights of each layer",
        3e-4,
        _COMPARISON,
        "if several adapters are to be added to each other",
    ),
    "c3a": Method(
        f"{_INJECTED}:c3a",
        "C3A: circular convolutions as the update",
        "circulant blocks for each layer",
        3e-1,
        _COMPARISON,
        "if an update needs full rank with few weights",
    ),
    "road": Method(
        f"{_INJECTED}:road",
        "RoAd: rotate and scale pairs of outputs",
        "an angle and a length for each pair of outputs",
        1e-3,
        _COMPARISON,
        "if adapters must be tiny",
    ),
    "delora": Method(
        f"{_INJECTED}:delora",
        "DeLoRA: low-rank updates with a learned bound of their size",
        "two thin matrices and a bound for each layer",
        1e-3,
        _COMPARISON,
        "if training must bear high learning rates",
    ),
    "gralora": Method(
        f"{_INJECTED}:gralora",
        "GraLoRA: a low-rank update for each block of a matrix",
        "two thin matrices for each block of each layer",
        2e-4,
        _COMPARISON,
        "if LoRA's quality no longer rises with its rank",
    ),
    "ln_tuning": Method(
        f"{_INJECTED}:ln_tuning",
        "train the norms only",
        "scales (and shifts) of all norms",
        1e-4,
        _COMPARISON,
        "as the smallest baseline",
    ),
    "prompt": Method(
        "compressors.prompts:Prompt",
        "prompt tuning: trained vectors in front of each source",
        "one vector for each virtual token",
        3e-1,
        "Lester et al. 2021, of T5, with Adafactor",
        "to have one frozen model with many tasks in one batch",
    ),
    "ptuning": Method(
        "compressors.prompts:Ptuning",
        "p-tuning: vectors in front of each source, made by a small network",
        "one vector for each virtual token, and the network",
        1e-4,
        _COMPARISON,
        "as prompt, if that does not learn",
    ),
    "prefix": Method(
        "compressors.prefix:Prefix",
        "prefix tuning: trained keys and values in front of each target",
        "a key and a value for each virtual token of each decoder layer",
        1e-3,
        _COMPARISON,
        "as prompt, with more weights; the decoder sees it directly",
    ),
    "bitfit": Method(
        "compressors.partial:BitFit",
        "train biases and norms only",
        "all biases, and scales of all norms",
        1e-3,
        "the code of Ben Zaken et al. 2022, for BERT",
        "as a small baseline without new weights",
    ),
    "houlsby": Method(
        "compressors.bottleneck:Houlsby",
        "bottleneck adapters after attention and feed-forward layers",
        "a small network after each sub-layer",
        3e-4,
        "Houlsby et al. 2019, the middle of their three",
        "to compare with the first adapters; decoding stays slower",
    ),
    "pfeiffer": Method(
        "compressors.bottleneck:Pfeiffer",
        "bottleneck adapters after feed-forward layers",
        "a small network after each feed-forward layer",
        1e-4,
        "Pfeiffer et al. 2021",
        "as houlsby, with fewer weights",
    ),
    "freeze": Method(
        "compressors.partial:Freeze",
        "train some layers and freeze the rest, such as freeze:top=2",
        "the layers themselves",
        "full",
        "that of full fine-tuning",
        "as the simplest baseline",
    ),
    "peft": Method(
        "compressors.peft_other:OtherPeft",
        "any other method of PEFT that replaces layers: peft:type=lily",
        "as PEFT documents it",
        1e-4,
        "none; that of lora",
        "to try a method without a name here",
    ),
}
"""Registered name -> method, in the order of the page."""
