"""Decoding with a merged model in a process of its own, which decodes on request."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from harness import clock
from harness.errors import HarnessError
from harness.measurement.decoding_work import FrozenDecoding, Sources
from harness.measurement.memory import memory_reached
from harness.measurement.recipe_process import RecipeProcess
from harness.measurement.request_server import Service
from harness.spec.decoding import DecodingSettings
from harness.spec.run_spec import RunSpec

if TYPE_CHECKING:
    import torch

    from harness.evaluation.decoding import IdSearch


class Sizes(NamedTuple):
    """Bytes of parameters in the precision in which they are saved; shared ones count once."""

    model: int
    """All parameters of the merged model."""
    trained: int
    """Parameters that are trained."""


class DecodingWindow(NamedTuple):
    """Seconds of the parts of a window."""

    latencies: list[float]
    """Each example, decoded alone."""
    prefills: list[float]
    """The first token of each example, decoded alone."""
    batch: float | None
    """The batch; None if it was not requested."""


class DecodingProcess(RecipeProcess):
    """Decodes with a recipe's merged model in a fresh process of its own; a context manager.

    The process starts to load the model at once, and ``wait`` waits for it, so that two of them
    load at the same time. See ``MeasuredProcess`` for its errors.

    Args:
        spec: the recipe, the backbone and the settings.
        work: the sources and the settings of the search.
    """

    def __init__(self, spec: RunSpec, work: FrozenDecoding) -> None:
        super().__init__(spec.recipe, spec.device, _DecodingService)
        self.sizes: Sizes
        self._send("prepare", spec, work)

    def wait(self) -> None:
        """Wait until the model is loaded and merged."""
        self.sizes = self._receive()

    def window(self, examples: int, *, batch: bool) -> DecodingWindow:
        """Decode the first ``examples`` sources one by one, and the batch if it is requested."""
        window: DecodingWindow = self._ask("window", examples, batch)
        return window

    def memory(self) -> tuple[int, int]:
        """Return the bytes held, and the peak while the longest sources are decoded.

        It makes the allocator slower, so no window may be timed afterwards.
        """
        static, peak = self._ask("memory")
        return static, peak


class _DecodingService(Service):
    """Decodes with a merged model, within the process of a request server."""

    work: FrozenDecoding
    device: torch.device | None = None
    search: IdSearch
    end: frozenset[int]

    def prepare(self, spec: RunSpec, work: FrozenDecoding) -> Sizes:
        """Load the backbone, apply the recipe and merge it; return the sizes of the result."""
        import torch

        from harness.api.plugins import installed
        from harness.evaluation.decoding import searching_ids, store_weights_in
        from harness.evaluation.search_state import SpecialTokens
        from harness.model.composition import compose, count_parameters
        from harness.training.resolved_run import resolve_run
        from harness.training.run_context import load_original, run_context

        self.work = work
        plugins = installed()
        backbone, recipe = plugins.backbone(spec.backbone), plugins.recipe(spec.recipe)
        run = replace(resolve_run(spec, backbone, recipe), calibration=work.calibration)
        self.device = run.device
        context = run_context(run, drawn_on_device=True)
        model = load_original(run, drawn_on_device=True)
        model = compose(model, backbone, recipe, context).to(run.device)
        trained = count_parameters(model).trainable_bytes
        with torch.no_grad():
            for compressor in reversed(recipe.compressors):
                # What cannot be merged decodes as it is.
                with suppress(HarnessError):
                    model = compressor.merge(model)
        sizes = Sizes(count_parameters(model).total_bytes, trained)
        store_weights_in(model, run.dtype)
        self.end = frozenset(SpecialTokens.of(model).end)
        self._context = searching_ids(model, shared_beams=run.shared_beams, dtype=run.dtype)
        self.search = self._context.__enter__()
        if run.device.type == "cuda":
            self._record_ahead()
        return sizes

    def _record_ahead(self) -> None:
        """Decode each size twice, so that its steps are recorded and windows only replay."""
        from harness.evaluation.recorded_search import rounded_width

        every = [*([source] for source in self.work.sources), self.work.batch]
        sizes = {(len(rows), rounded_width(max(map(len, rows)))): rows for rows in every}
        for sources in sizes.values():
            for settings in (self.work.settings, self.work.first_token):
                for _ in range(2):
                    self.search(sources, settings)

    def memory_reached(self, error: Exception) -> int | None:
        return memory_reached(error, self.device)

    def window(self, examples: int, batch: bool) -> DecodingWindow:
        work = self.work
        sources = work.sources[:examples]
        return DecodingWindow(
            latencies=[self._seconds([source], work.settings) for source in sources],
            prefills=[self._seconds([source], work.first_token) for source in sources],
            batch=self._seconds(work.batch, work.settings) if batch else None,
        )

    def memory(self) -> tuple[int, int]:
        from harness.measurement.memory import peak_of_work

        decode = partial(self.search, self.work.longest, self.work.settings)
        assert self.device is not None
        return peak_of_work(decode, self.device)

    def _seconds(self, sources: Sources, settings: DecodingSettings) -> float:
        """Decode sources at once, and check that each generated as many tokens as it should."""
        self._wait()
        began = clock.seconds()
        ids = self.search(sources, settings)
        self._wait()
        seconds = clock.seconds() - began
        tokens = settings.max_new_tokens
        early = [row for row in ids[:, 1:tokens].tolist() if not self.end.isdisjoint(row)]
        if ids.shape[1] != 1 + tokens or early:
            raise RuntimeError(f"an example did not generate {tokens} tokens")
        return seconds

    def _wait(self) -> None:
        import torch

        if self.device is not None and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
