"""Predictions that several processes make together."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.evaluation.decoding import batches, searching
from harness.running.setup import Setup
from harness.spec.decoding import DecodingSettings
from harness.training.exchange import bytes_from_main, merged
from harness.training.processes import Processes
from harness.training.resolved_run import ResolvedRun
from harness.training.trainer import Trainer


def predict_together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[Sequence[int]],
    settings: DecodingSettings,
    *,
    run: ResolvedRun,
    processes: Processes,
    earlier: Mapping[int, str] | None = None,
    on_batch: Callable[[dict[int, str]], None] | None = None,
) -> list[str]:
    """Return a prediction for every source, in every process; all of them must call this.

    Args:
        model: the model, with the same weights in all processes.
        tokenizer: turns the predicted ids into text.
        sources: token ids of each source.
        settings: the settings of the search.
        run: tells the precision, and whether beams may share a cache.
        processes: the processes; each predicts a share of the batches.
        earlier: index of a source -> its prediction from an earlier start; the main process's
            count.
        on_batch: is called after each batch of this process, and at the end with those of the
            others.
    """
    texts = json.loads(bytes_from_main(processes, json.dumps(dict(earlier or {})).encode()))
    own = {int(index): text for index, text in texts.items()}
    left = batches(sources, settings.batch_size, own)[processes.rank :: processes.size]
    with searching(model, tokenizer, shared_beams=run.shared_beams, dtype=run.dtype) as search:
        for batch in left:
            found = search([sources[index] for index in batch], settings)
            decoded = dict(zip(batch, found, strict=True))
            own |= decoded
            if on_batch:
                on_batch(decoded)
    together = merged(processes, own)
    others = {index: text for index, text in together.items() if index not in own}
    if on_batch and others:
        on_batch(others)
    return [together[index] for index in range(len(sources))]


def predict_eval_split(setup: Setup, trainer: Trainer) -> list[str]:
    """Predict the eval split during training, together with the other processes."""
    inputs, run = setup.inputs, setup.run
    sources = [example.source for example in inputs.eval.examples]
    with trainer.unpatched() as model:
        return predict_together(
            model,
            inputs.tokenizer,
            sources,
            run.spec.greedy,
            run=run,
            processes=trainer.processes,
        )


def predict_test_split(
    setup: Setup,
    trainer: Trainer,
    earlier: Mapping[int, str] | None = None,
    on_batch: Callable[[dict[int, str]], None] | None = None,
) -> list[str]:
    """Predict the test split with the best weights, together with the other processes.

    Args:
        setup: the data and the settings.
        trainer: holds the model, without the engine's patches.
        earlier: see ``predict_together``.
        on_batch: see ``predict_together``.
    """
    inputs = setup.inputs
    return predict_together(
        trainer.model,
        inputs.tokenizer,
        [example.source for example in inputs.test.examples],
        setup.run.spec.test,
        run=setup.run,
        processes=trainer.processes,
        earlier=earlier,
        on_batch=on_batch,
    )
