"""A third party's plugin: it registers one compressor, by name, without importing it."""

from harness import Register, hookimpl


@hookimpl
def register_compressors(register: Register) -> None:
    """Register BitFit."""
    register("bitfit", "harness_bitfit.bitfit:BitFit", "train biases and norms only")
