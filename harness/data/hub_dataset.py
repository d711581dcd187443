"""Data sets of the Hugging Face hub, or of its local cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import HarnessError, first_line

if TYPE_CHECKING:
    from datasets import DatasetDict

_PARQUET = "refs/convert/parquet"
"""Branch with the hub's Parquet copy of a data set."""


def load_from_hub(
    reference: str, config: str | None = None, revision: str | None = None
) -> DatasetDict:
    """Download a data set, or read it from the library's cache.

    Args:
        reference: ``org/name``.
        config: name of the configuration, if it has several.
        revision: branch, tag or commit; by default the newest.

    Raises:
        HarnessError: it is not available; the hint names other ways.
    """
    import datasets

    try:
        try:
            return datasets.load_dataset(reference, config, revision=revision)
        except RuntimeError as error:
            # Some data sets are still published as a loading script, which is not executed.
            if revision is not None or "scripts are no longer supported" not in str(error):
                raise
            return datasets.load_dataset(reference, config, revision=_PARQUET)
    # The errors of the library's HTTP client and readers are not documented. To a user they all
    # mean that the data set is not available.
    except Exception as error:
        raise HarnessError(
            f"{reference} is not available from the Hugging Face hub: {first_line(error)}",
            "Check the id and the network. On a machine without one, load it once elsewhere and "
            "copy the cache ($HF_HOME), or save its splits as files and name their folder: "
            "--task FOLDER",
        ) from error
