"""Program that loads an exported model with stock libraries alone and writes what it computes.

It is started as ``python -P stock_process.py REQUEST`` and cannot import the harness. ``REQUEST``
is a JSON file; the result goes to the two files that it names.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any


def main(path: str) -> None:
    """Compute logits and predictions as a user would, and write them."""
    # Before anything else is imported: a model that needs these modules fails to load.
    for name in ("harness", "compressors", "tasks"):
        sys.modules[name] = None  # type: ignore[assignment]

    import torch
    import transformers
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, GenerationConfig

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    request = json.loads(Path(path).read_text("utf-8"))
    torch.set_num_threads(request["threads"])
    folder, base = request["folder"], request["base"]
    tokenizer = AutoTokenizer.from_pretrained(base or folder, local_files_only=True)
    model = load(folder) if base is None else load_adapted(base, folder)
    sources = [request["prefix"] + text for text in request["sources"]]
    cut = {"truncation": True, "max_length": request["max_source_length"]}
    ids = tokenizer(sources, **cut).input_ids
    labels = tokenizer(
        text_target=request["targets"], truncation=True, max_length=request["max_target_length"]
    ).input_ids
    pairs = list(enumerate(zip(ids, labels, strict=True)))
    predictions = []
    with torch.inference_mode():
        tensors = {str(number): logits(model, *pair) for number, pair in pairs}
        search = GenerationConfig.from_pretrained(folder)
        for start in range(0, len(sources), request["batch_size"]):
            batch = sources[start : start + request["batch_size"]]
            inputs = tokenizer(batch, padding=True, return_tensors="pt", **cut)
            output = model.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                generation_config=search,
            )
            texts = tokenizer.batch_decode(output, skip_special_tokens=True)
            predictions += [text.strip() for text in texts]
        del model
        if base is not None and has_second_loader(folder):
            # transformers' own loader of adapters, beside PEFT's.
            second = load(base)
            second.load_adapter(folder)
            second.eval()
            tensors |= {f"second.{number}": logits(second, *pair) for number, pair in pairs[:2]}
    save_file(tensors, request["logits"])
    libraries = ["torch", "transformers", *([] if base is None else ["peft"])]
    result = {
        "sources": ids,
        "targets": labels,
        "predictions": predictions,
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
    }
    Path(request["result"]).write_text(json.dumps(result), "utf-8")


def load(folder: str) -> Any:
    """Load a model strictly: no weight is missing, left over or of another shape."""
    from transformers import AutoModelForSeq2SeqLM

    model, info = AutoModelForSeq2SeqLM.from_pretrained(
        folder, output_loading_info=True, local_files_only=True
    )
    problems = {
        kind: sorted(map(str, info[kind]))[:3]
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if info.get(kind)
    }
    if problems:
        raise ValueError(f"the weights do not fit the configuration: {problems}")
    return model.eval()


def load_adapted(base: str, folder: str) -> Any:
    """Load an adapter by PEFT on its base."""
    from peft import PeftModel

    return PeftModel.from_pretrained(load(base), folder).eval()


def has_second_loader(folder: str) -> bool:
    """Return whether transformers can load an adapter by itself.

    PEFT refuses it for virtual tokens, and for methods whose layers share weights. transformers
    does not find the lengths of DoRA, which PEFT saves under a shorter name.
    """
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    config = PeftConfig.from_pretrained(folder)
    tuner: Any = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]
    lengths = getattr(config, "use_dora", False)
    return not (config.is_prompt_learning or tuner.uses_shared_state or lengths)


def logits(model: Any, source: list[int], target: list[int]) -> Any:
    """Return the logits of the target's tokens.

    They are computed without labels: PEFT adds to the loss of AdaLoRA, and fails to if it was
    loaded to predict.
    """
    import torch

    shifted = model.prepare_decoder_input_ids_from_labels(labels=torch.tensor([target]))
    output = model(input_ids=torch.tensor([source]), decoder_input_ids=shifted)
    return output.logits[0].float().contiguous()


if __name__ == "__main__":
    main(sys.argv[1])
