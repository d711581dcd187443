"""Built-in compressors, registered like those of any plugin."""

from harness import Register, hookimpl


@hookimpl
def register_compressors(register: Register) -> None:
    """Register the methods of Zhu et al. 2023."""
    register("full", "compressors.full:Full", "full fine-tuning, the baseline")
    register(
        "lprun", "compressors.lprun:LayerPruning", "drop Transformer layers, then train the rest"
    )
    register("lora_qv", "compressors.lora:LoraQV", "LoRA on all query and value projections")
    register("lora_ff", "compressors.lora:LoraFF", "LoRA on both feed-forward projections")
