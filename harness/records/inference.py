"""Records of what a model costs in use: decoding time, memory while decoding, and size on disk."""

from __future__ import annotations

from pydantic import Field

from harness.records.record import Record


class Timing(Record):
    """Time of a part of decoding, and its speed relative to full fine-tuning's."""

    seconds: float
    """Mean over all timed windows."""
    relative: float | None = None
    """Geometric mean over matched windows of the seconds of full / those of the recipe: more than 1
    is faster. Null without a baseline."""
    relative_ci: tuple[float, float] | None = None
    """95 % interval of ``relative`` (Student's t over the logarithms of the matched ratios)."""
    noise_floor: float | None = None
    """Ratio, at least 1, of full fine-tuning against itself in the same windows. A ``relative``
    that is not further from 1 is not significant."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason."""


class Latency(Timing):
    """Time to decode one example alone, at batch 1."""

    median_seconds: float
    """Median over all timed examples."""
    p95_seconds: float | None = None
    """95th percentile over all timed examples; null for fewer than 20."""


class Throughput(Timing):
    """Time to decode a batch of ``batch_size`` examples."""

    batch_size: int
    """Examples in the batch: those that the run decodes at once on the test split."""
    examples_per_s: float
    """Examples per second."""
    output_tokens_per_s: float
    """Output tokens per second, one hypothesis for each example."""


class DecodingMemory(Record):
    """Peak memory while the batch of the longest sources is decoded, by a process that only
    decodes."""

    peak_bytes: int
    """CUDA: most bytes allocated by tensors. CPU: most resident bytes of the process."""
    static_bytes: int
    """Bytes held between batches."""
    relative: float | None = None
    """peak_bytes / peak_bytes of full fine-tuning; null without a baseline."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason."""


class ModelSize(Record):
    """Bytes on disk, in the precision in which weights are saved; shared weights count once."""

    model_bytes: int
    """Weights of the merged model, which can be used alone."""
    model_relative: float | None = None
    """model_bytes / model_bytes of full fine-tuning; null without a baseline."""
    trained_bytes: int
    """Trained weights, which is what a run saves and what each task adds to a shared base."""
    trained_relative: float | None = None
    """trained_bytes / trained_bytes of full fine-tuning; null without a baseline."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason."""


class Inference(Record):
    """Decoding with the merged model, measured in windows of its own on fixed sources.

    The weights are those that training starts from. Untrained models end their texts anywhere, so
    every example generates the same number of tokens, and no end token is allowed before the last.
    """

    search: str
    """Settings of the search, those of the test split but for the number of tokens; its precision
    and version."""
    beams: int
    """Number of beams."""
    output_tokens: int
    """Tokens that each example generates, in the recipe and in full fine-tuning alike."""
    source_tokens: float
    """Mean source length in tokens, of the examples that latency is measured on."""
    sources_sha256: str
    """Hash of the sources that windows draw on; comparable numbers have equal hashes."""
    examples: int
    """Examples that each window decodes one by one."""
    rounds: int
    """Rounds of four windows: full, recipe, recipe, full; of two windows without a baseline."""
    baseline: str
    """Source of the baseline's numbers, or the reason why there are none."""
    latency: Latency
    """Time of an example at batch 1."""
    prefill: Timing
    """Time to the first token at batch 1: the encoder and one step of the decoder."""
    per_token: Timing | None = None
    """Time of each later token at batch 1; null if every example generates one token, or if windows
    were too short to tell."""
    throughput: Throughput | None = None
    """Time of a batch; null if a batch takes longer than the measurement may."""
    memory: DecodingMemory
    """Peak memory while decoding."""
    size: ModelSize
    """Bytes on disk."""
    seconds: float
    """Wall time of the whole measurement, with the start of its processes."""
    not_measured: dict[str, str] = Field(default_factory=dict)
    """Field that is null -> reason; nested fields are joined by dots."""
