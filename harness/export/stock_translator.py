"""Program that loads an export with CTranslate2 and a tokenizer alone and writes what it computes.

It is started as ``python -P stock_translator.py REQUEST`` and cannot import the harness.
``REQUEST`` is a JSON file; the result goes to the file that it names.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path


def main(path: str) -> None:
    """Compute log-probabilities and predictions as a user would, and write them."""
    # Before anything else is imported: a model that needs these modules fails to load.
    for name in ("harness", "compressors", "tasks"):
        sys.modules[name] = None  # type: ignore[assignment]

    import ctranslate2
    from transformers import AutoTokenizer, GenerationConfig

    request = json.loads(Path(path).read_text("utf-8"))
    folder = request["folder"]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    translator = ctranslate2.Translator(folder, intra_threads=request["threads"])
    texts = [request["prefix"] + text for text in request["sources"]]
    ids = tokenizer(texts, truncation=True, max_length=request["max_source_length"]).input_ids
    sources = [tokenizer.convert_ids_to_tokens(row) for row in ids]
    # CTranslate2 adds the end token itself.
    targets = [tokenizer.convert_ids_to_tokens(row[:-1]) for row in request["targets"]]
    scored = translator.score_batch(sources, targets, max_input_length=0)
    first = GenerationConfig.from_pretrained(folder).forced_bos_token_id
    prefix = None if first is None else [tokenizer.convert_ids_to_tokens([first])]

    def predict(**search: object) -> list[str]:
        texts = []
        for start in range(0, len(sources), request["batch_size"]):
            batch = sources[start : start + request["batch_size"]]
            results = translator.translate_batch(
                batch, target_prefix=prefix and prefix * len(batch), **search
            )
            for result in results:
                row = tokenizer.convert_tokens_to_ids(result.hypotheses[0])
                texts.append(tokenizer.decode(row, skip_special_tokens=True).strip())
        return texts

    result = {
        "sources": ids,
        "log_probabilities": [score.log_probs for score in scored],
        "predictions": predict(**request["search"]),
        "greedy": predict(**{**request["search"], "beam_size": 1}),
        "libraries": {
            name: importlib.metadata.version(name) for name in ("ctranslate2", "transformers")
        },
    }
    Path(request["result"]).write_text(json.dumps(result), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
