"""The adapter and the search that a request asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.api.options import validate
from harness.errors import HarnessError, did_you_mean
from harness.serving.batch_queue import Group
from harness.serving.limits import Limits
from harness.serving.refusal import RefusalError
from harness.spec.decoding import DecodingSettings


def resolve_group(
    defaults: DecodingSettings,
    limits: Limits,
    adapters: Sequence[str],
    adapter: str | None,
    options: Mapping[str, Any],
) -> Group:
    """Return the adapter and the complete settings of a request.

    Args:
        defaults: settings of the model.
        limits: most beams and tokens of a prediction.
        adapters: names of all adapters.
        adapter: name of the adapter; None is the model without adapters.
        options: settings that replace the model's.

    Raises:
        RefusalError: there is no such adapter, or a setting is out of bounds.
    """
    if adapter is not None and adapter not in adapters:
        message = f"There is no such adapter. {did_you_mean(adapter, adapters)}"
        raise RefusalError(404, "unknown_adapter", message)
    # The batch size is the server's, and texts that differ in it alone share a batch.
    values = {**defaults.model_dump(), **options, "batch_size": 1}
    try:
        settings = validate(DecodingSettings, values, "The search")
    except HarnessError as error:
        raise RefusalError(422, "bad_setting", error.message) from None
    for name, most in (
        ("beams", limits.max_beams),
        ("max_new_tokens", limits.max_new_tokens),
    ):
        if getattr(settings, name) > most:
            raise RefusalError(422, "bad_setting", f"{name} is at most {most} on this server.")
    return Group(adapter, settings)
