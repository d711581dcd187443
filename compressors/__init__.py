"""Built-in compressors, registered like those of any plugin."""

from compressors.methods import METHODS
from harness import Register, hookimpl


@hookimpl
def register_compressors(register: Register) -> None:
    """Register the baseline, layer pruning, and the methods that train few weights."""
    register("full", "compressors.full:Full", "full fine-tuning, the baseline")
    register(
        "lprun", "compressors.lprun:LayerPruning", "drop Transformer layers, then train the rest"
    )
    register(
        "distill", "compressors.distill:Distill", "imitate a teacher: the original, a run, a model"
    )
    register(
        "cache_encoder",
        "compressors.cache_encoder:EncoderCache",
        "compute the outputs of a frozen encoder once, and store them",
    )
    register(
        "prune_ffn",
        "compressors.prune_ffn:NeuronPruning",
        "drop neurons of feed-forward layers, then train the rest",
    )
    register("int8", "compressors.quantized:Quantized", "frozen weights in 8 bits under LoRA")
    register(
        "nf4", "compressors.quantized:Quantized", "frozen weights in 4 bits under LoRA (QLoRA)"
    )
    register(
        "prune_heads",
        "compressors.prune_heads:HeadPruning",
        "drop attention heads of T5, then train the rest",
    )
    for name, method in METHODS.items():
        register(name, method.target, method.summary)
