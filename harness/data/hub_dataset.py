"""Data sets of the Hugging Face hub, or of its local cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import HarnessError, first_line

if TYPE_CHECKING:
    from datasets import DatasetDict

_PARQUET = "refs/convert/parquet"
"""The branch where the hub keeps its own Parquet copy of a data set."""


def load_from_hub(
    reference: str, config: str | None = None, revision: str | None = None
) -> DatasetDict:
    """Download a data set, or take it from the cache, where the library keeps a copy.

    Args:
        reference: ``org/name``.
        config: which of its configurations, where it has several.
        revision: branch, tag or commit; by default the newest.

    Raises:
        HarnessError: it cannot be had; the hint names the other ways.
    """
    import datasets

    try:
        try:
            return datasets.load_dataset(reference, config, revision=revision)
        except RuntimeError as error:
            # Some are still published as a loading script, which nobody should run.
            if revision is not None or "scripts are no longer supported" not in str(error):
                raise
            return datasets.load_dataset(reference, config, revision=_PARQUET)
    # The library lets through whatever its HTTP client and its readers raise, which is no
    # documented set; to a user all of it means the same.
    except Exception as error:
        raise HarnessError(
            f"{reference} could not be had from the Hugging Face hub: {first_line(error)}",
            "Check the id and the network. On a machine without one, load it once elsewhere and "
            "copy the cache ($HF_HOME), or save its splits as files and name their folder: "
            "--task FOLDER",
        ) from error
