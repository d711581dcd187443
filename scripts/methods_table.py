"""Write the table of docs/methods.md from the code: python scripts/methods_table.py."""

from __future__ import annotations

import re
from pathlib import Path

from compressors.methods import METHODS
from harness.api.options import describe
from harness.api.plugins import installed

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
_HEAD = "| method | trains | options | merges | learning rate | take it |\n"


def table() -> str:
    """Return the table of all methods that train few weights, in Markdown."""
    lines = [_HEAD, "| --- | --- | --- | --- | --- | --- |\n"]
    for name, method in METHODS.items():
        options = describe(installed().compressors.find(name).load().Options)
        defaults = ", ".join(f"`{option}={default}`" for option, _, default, _ in options)
        rate = f"{method.rate:g}" if isinstance(method.rate, float) else ""
        cells = [
            f"`{name}`",
            method.trains,
            defaults or "none",
            "yes" if method.merges else "no",
            ", ".join(part for part in (rate, method.source) if part),
            method.take,
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def main() -> None:
    """Replace the table of the page."""
    text = PAGE.read_text("utf-8")
    old = re.search(rf"(?m){re.escape(_HEAD)}(?:\|.*\n)+", text)
    if old is None:
        raise ValueError(f"{PAGE} has no table with the head {_HEAD!r}")
    PAGE.write_text(text.replace(old[0], table()), "utf-8")


if __name__ == "__main__":
    main()
