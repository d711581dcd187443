"""Built-in backbones, registered like those of any plugin."""

from harness import Register, hookimpl
from harness.backbones.references import is_folder, looks_like_hub_id
from harness.backbones.shapes import SHAPES


@hookimpl
def register_backbones(register: Register) -> None:
    """Register the embedded nano-t5, well-known T5 and BART models, folders and hub ids."""
    register(
        "nano-t5",
        "harness.backbones.nano:NanoT5",
        "embedded 12+12 thin layers, 6.6 M parameters, pre-trained; needs no download",
    )
    for name, shape in SHAPES.items():
        register(name, f"harness.backbones.{shape.family}", shape.summary)
    register.family(
        "local folder",
        "harness.backbones.references:open_reference",
        "a folder with config.json, model.safetensors and a tokenizer",
        accepts=is_folder,
    )
    register.family(
        "hub id",
        "harness.backbones.references:open_reference",
        "any T5 or BART model of the hub, as organisation/name",
        accepts=looks_like_hub_id,
    )
