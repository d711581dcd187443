"""Methods of PEFT that replace chosen layers: configuration class, options and peculiarities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from compressors.targets import TargetOptions
from harness import Options


class Ia3Options(TargetOptions):
    """Options of ``ia3``."""

    targets: str = "kv-ffn.out"
    """Layers to adapt, by role. Outputs are scaled, except that of ffn.out the inputs are, as in
    the paper."""


class VeraOptions(TargetOptions):
    """Options of ``vera``."""

    r: int = Field(256, ge=1)
    """Rank of the two random matrices that all layers share."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the update's input."""
    d_initial: float = 0.1
    """Initial value of the trained vector between the matrices."""


class LycorisOptions(TargetOptions):
    """Options of ``loha``."""

    r: int = Field(8, ge=1)
    """Rank of each factor."""
    alpha: float = Field(8, gt=0)
    """Scale of the update: it is multiplied by alpha / r."""
    rank_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the rows of the update."""
    module_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of leaving out the update of a layer in a training step."""


class LokrOptions(LycorisOptions):
    """Options of ``lokr``."""

    factor: int = Field(-1, ge=-1)
    """Size of the smaller Kronecker factor; -1 makes both as equal as they can be."""


class OftOptions(TargetOptions):
    """Options of ``oft``."""

    block: int = Field(32, ge=2)
    """Size of the orthogonal blocks; it must divide the layer's inputs."""
    module_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of leaving out a block in a training step."""
    coft: bool = False
    """Keep the rotation within a small distance of the identity."""


class BoftOptions(TargetOptions):
    """Options of ``boft``."""

    block: int = Field(4, ge=2)
    """Size of the orthogonal blocks; it must divide the layer's inputs."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Probability of replacing a block by the identity in a training step."""


class FourierOptions(TargetOptions):
    """Options of ``fourierft``."""

    n: int = Field(1000, ge=1)
    """Number of trained coefficients of the spectrum of each layer's update."""
    scaling: float = Field(150.0, gt=0)
    """Factor of the update."""


class WaveOptions(TargetOptions):
    """Options of ``waveft``."""

    n: int = Field(2592, ge=1)
    """Number of trained wavelet coefficients of each layer's update."""
    scaling: float = Field(25.0, gt=0)
    """Factor of the update."""


class VbloraOptions(TargetOptions):
    """Options of ``vblora``."""

    r: int = Field(4, ge=1)
    """Rank of the update."""
    vectors: int = Field(256, ge=2)
    """Number of vectors in the bank that all layers share."""
    length: int = Field(128, ge=1)
    """Length of a vector; it must divide inputs and outputs of the layers."""
    topk: int = Field(2, ge=1)
    """Vectors that are mixed for each part of a matrix."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the update's input."""


class HraOptions(TargetOptions):
    """Options of ``hra``."""

    r: int = Field(8, ge=2, multiple_of=2)
    """Number of reflections; even, so that the rotation begins as the identity."""
    orthogonal: bool = False
    """Make the reflections orthogonal to each other (Gram-Schmidt)."""


class MissOptions(TargetOptions):
    """Options of ``miss``."""

    r: int = Field(64, ge=1)
    """Number of shards of the layer's inputs; at most the layer's width."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the update's input."""


class RandloraOptions(TargetOptions):
    """Options of ``randlora``."""

    r: int = Field(32, ge=1)
    """Rank of the random bases; a smaller rank trains more weights."""
    alpha: float = Field(640, gt=0)
    """Scale of the update: it is multiplied by alpha / r / the square root of the bases."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the update's input."""


class ShiraOptions(TargetOptions):
    """Options of ``shira``."""

    r: int = Field(32, ge=1)
    """Trained weights of a layer, as many as LoRA of this rank has; less than the layer's width."""


class C3aOptions(TargetOptions):
    """Options of ``c3a``."""

    block: int = Field(128, ge=1)
    """Size of the circular blocks; it must divide inputs and outputs of the layers."""


class RoadOptions(TargetOptions):
    """Options of ``road``."""

    variant: Literal["road_1", "road_2", "road_4"] = "road_1"
    """Parameters that a pair of outputs has: 2, 4 or 8 for two outputs."""
    group: int = Field(64, ge=2, multiple_of=2)
    """Outputs that are paired with each other; it must divide the layer's outputs."""


class DeloraOptions(TargetOptions):
    """Options of ``delora``."""

    r: int = Field(8, ge=1)
    """Rank of the update."""
    strength: float = Field(15, gt=0)
    """Initial bound of the update's norm, relative to the weight's."""
    module_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the update's input."""


class GraloraOptions(TargetOptions):
    """Options of ``gralora``."""

    r: int = Field(32, ge=1)
    """Rank of the update; a multiple of k."""
    alpha: float = Field(64, gt=0)
    """Scale of the update: it is multiplied by alpha / r."""
    k: int = Field(2, ge=1)
    """Parts into which inputs and outputs are divided; it must divide both."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of the update's input."""


class NoOptions(Options):
    """Options of a method that has none."""


@dataclass(frozen=True)
class Kind:
    """A method of PEFT that replaces layers of the model.

    Attributes:
        config: name of the configuration class in ``peft``.
        options: model of the options.
        fields: option -> field of the configuration, where the names differ.
        constants: fields of the configuration that are always set.
        seed: field of the configuration that takes the run's seed.
        needs_values: whether it cannot be applied to layers on the meta device.
        graph_safe: see ``Compressor``.
        divides_inputs: option that must divide the inputs of every layer.
    """

    config: str
    options: type[Options]
    fields: tuple[tuple[str, str], ...] = ()
    constants: tuple[tuple[str, object], ...] = ()
    seed: str | None = None
    needs_values: bool = False
    graph_safe: bool = False
    divides_inputs: str | None = None


def _dropout(name: str) -> tuple[tuple[str, str], ...]:
    return (("dropout", f"{name}_dropout"),)


KINDS = {
    "ia3": Kind("IA3Config", Ia3Options, graph_safe=True),
    "vera": Kind(
        "VeraConfig", VeraOptions, _dropout("vera"), seed="projection_prng_key", graph_safe=True
    ),
    # Their module_dropout draws on the host, which a recorded step would not repeat.
    "loha": Kind("LoHaConfig", LycorisOptions),
    "lokr": Kind("LoKrConfig", LokrOptions, (("factor", "decompose_factor"),)),
    "oft": Kind("OFTConfig", OftOptions, (("block", "oft_block_size"),), divides_inputs="block"),
    "boft": Kind(
        "BOFTConfig",
        BoftOptions,
        (("block", "boft_block_size"), *_dropout("boft")),
        needs_values=True,
        divides_inputs="block",
    ),
    "fourierft": Kind(
        "FourierFTConfig", FourierOptions, (("n", "n_frequency"),), seed="random_loc_seed"
    ),
    "vblora": Kind(
        "VBLoRAConfig",
        VbloraOptions,
        (("vectors", "num_vectors"), ("length", "vector_length"), *_dropout("vblora")),
    ),
    "hra": Kind("HRAConfig", HraOptions, (("orthogonal", "apply_GS"),)),
    "miss": Kind("MissConfig", MissOptions, _dropout("miss"), graph_safe=True),
    "randlora": Kind(
        "RandLoraConfig",
        RandloraOptions,
        (("alpha", "randlora_alpha"), *_dropout("randlora")),
        seed="projection_prng_key",
    ),
    "shira": Kind("ShiraConfig", ShiraOptions, seed="random_seed", needs_values=True),
    "c3a": Kind("C3AConfig", C3aOptions, (("block", "block_size"),)),
    "road": Kind("RoadConfig", RoadOptions, (("group", "group_size"),), graph_safe=True),
    "waveft": Kind("WaveFTConfig", WaveOptions, (("n", "n_frequency"),), seed="random_loc_seed"),
    "delora": Kind(
        "DeloraConfig", DeloraOptions, (("strength", "delora_lambda"),), graph_safe=True
    ),
    "gralora": Kind(
        "GraloraConfig",
        GraloraOptions,
        (("k", "gralora_k"), *_dropout("gralora")),
        graph_safe=True,
    ),
    "ln_tuning": Kind("LNTuningConfig", NoOptions, graph_safe=True),
}
"""Name of a compressor -> its method in PEFT."""
