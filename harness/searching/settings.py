"""Settings of a search in its folder: a later start must ask the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import HarnessError, first_line
from harness.records.atomic import write_text
from harness.records.record import Record
from harness.searching.needs import Needs

FILE = "search.json"


class SearchSettings(Record):
    """All that decides which candidates a search looks at, but its budget and its finals."""

    backbone: str
    """Backbone."""
    task: str
    """Task."""
    templates: list[str]
    """Recipes with alternatives."""
    rates: int
    """Number of learning rates of each recipe."""
    seed: int
    """Seed of the search."""
    needs: Needs
    """Limits relative to full fine-tuning."""
    settings: dict[str, Any]
    """Settings of all runs."""
    reference: str
    """Id of the run of full fine-tuning. It changes with the code, the packages, the data and the
    device, and then no run of the search can be resumed or compared."""

    def keep(self, folder: Path) -> None:
        """Write these settings, or check that the folder holds a search with the same.

        Raises:
            HarnessError: it holds another search.
        """
        file = folder / FILE
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(file, self.model_dump_json(indent=2) + "\n")
            return
        try:
            before = SearchSettings.model_validate_json(file.read_text("utf-8"))
        except (OSError, ValidationError) as error:
            raise HarnessError(
                f"{str(file)!r} cannot be read: {first_line(error)}.",
                "Name another folder: --out FOLDER",
            ) from error
        different = [
            name for name in type(self).model_fields if getattr(self, name) != getattr(before, name)
        ]
        if different == ["reference"]:
            raise HarnessError(
                f"The code, a package, the data or the device changed since the search in "
                f"{str(folder)!r} began, so that its runs cannot be compared with new ones.",
                "Begin another search: --out FOLDER",
            )
        if different:
            raise HarnessError(
                f"The folder {str(folder)!r} holds a search with other {' and '.join(different)}.",
                "Name another folder: --out FOLDER. To resume that search, give its own command.",
            )
