"""A plugin whose compressors fail, each in a different way."""

from harness import Register, hookimpl


@hookimpl
def register_compressors(register: Register) -> None:
    """Register the compressors."""
    register("hungry", "harness_mishaps.mishaps:Hungry", "takes memory by the token, under a limit")
    register("crash", "harness_mishaps.mishaps:Crash", "ends its process in training")
    register("stall", "harness_mishaps.mishaps:Stall", "never finishes a step")
