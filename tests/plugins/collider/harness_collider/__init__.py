"""A plugin that claims a name that is taken, and one that is free."""

from harness import Register, hookimpl


@hookimpl
def register_compressors(register: Register) -> None:
    """Register a second ``lora_ff``, and a compressor of its own."""
    register("lora_ff", "harness_collider:Nothing", "another LoRA")
    register("lora_other", "compressors.lora:LoraQV", "LoRA under another name")
