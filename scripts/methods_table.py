"""Write the table of docs/methods.md from the code: python scripts/methods_table.py."""

from __future__ import annotations

import re
from pathlib import Path

from transformers import T5Config

from compressors.methods import METHODS
from harness.api.options import describe
from harness.api.plugins import installed
from harness.backbones.t5 import T5
from harness.costs.capabilities import find_capabilities

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"
_HEAD = "| method | trains | options | merges | adapter | learning rate | take it |\n"
_VARIES = {"peft": ("by type", "by type")}
"""Method that has no defaults to probe -> its cells."""


class _Small(T5):
    """A T5 whose layers fit the default options of all methods."""

    def config(self) -> T5Config:
        """Return a configuration of two layers."""
        return T5Config(d_model=128, d_kv=32, d_ff=256, num_heads=4, num_layers=2, vocab_size=64)


def table() -> str:
    """Return the table of all methods that train few weights, in Markdown.

    Whether a method merges, and has an adapter for PEFT, is found by applying it to shapes.
    """
    lines = [_HEAD, "| --- | --- | --- | --- | --- | --- | --- |\n"]
    for name, method in METHODS.items():
        options = describe(installed().compressors.find(name).load().Options)
        defaults = ", ".join(f"`{option}={default}`" for option, _, default, _ in options)
        rate = f"{method.rate:g}" if isinstance(method.rate, float) else ""
        merges, adapter = _VARIES.get(name) or _probe(name)
        cells = [
            f"`{name}`",
            method.trains,
            defaults or "none",
            merges,
            adapter,
            ", ".join(part for part in (rate, method.source) if part),
            method.take,
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def _probe(name: str) -> tuple[str, str]:
    """Return whether a method merges, and its format of adapters."""
    found = find_capabilities(_Small("small"), installed().recipe(name))
    return "yes" if found.merges else "no", "PEFT" if found.adapter_format else "no"


def main() -> None:
    """Replace the table of the page."""
    text = PAGE.read_text("utf-8")
    old = re.search(r"(?m)^\| method \|.*\n(?:\|.*\n)+", text)
    if old is None:
        raise ValueError(f"{PAGE} has no table of methods")
    PAGE.write_text(text.replace(old[0], table()), "utf-8")


if __name__ == "__main__":
    main()
