"""A third party's plugin whose compressors go wrong, each in a way of its own."""

from harness import Register, hookimpl


@hookimpl
def register_compressors(register: Register) -> None:
    """Register them."""
    register("hungry", "harness_mishaps.mishaps:Hungry", "takes memory by the token, under a limit")
    register("crash", "harness_mishaps.mishaps:Crash", "ends its process in training")
    register("stall", "harness_mishaps.mishaps:Stall", "never finishes a step")
