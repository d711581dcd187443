"""Pages quote the examples exactly, and name only files that exist."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from harness import plan

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "harness_examples"
PAGES = {
    "__init__": "plugins",
    "backbone": "write-a-backbone",
    "compressor": "write-a-compressor",
    "distillation": "write-a-compressor",
    "executor": "write-an-executor",
    "influence": "write-a-compressor",
    "metric": "write-a-metric",
    "observer": "write-an-observer",
    "sparsity": "write-a-compressor",
    "task": "write-a-task",
    "thinning": "write-a-compressor",
}
"""Example -> the page that explains it."""


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def test_each_example_has_its_page() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PAGES)


@pytest.mark.parametrize("example", PAGES)
def test_a_page_quotes_the_whole_example_as_it_is(example: str) -> None:
    text = textwrap.indent((EXAMPLES / f"{example}.py").read_text(), "    ")
    assert f"\n\n{text}\n" in page(PAGES[example]), "Copy the file into the page."


def test_the_index_and_the_readme_lead_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in {*PAGES.values(), "architecture"} - {"plugins"}:
        assert f"docs/{name}.md" in readme
        assert name == "architecture" or f"({name}.md)" in page("plugins")


def test_every_path_on_the_page_of_the_architecture_exists() -> None:
    text = re.sub(r"(?m)^    .*$", "", page("architecture"))
    paths = [span for span in re.findall(r"`([^`\s]+)`", text) if "/" in span]
    assert len(paths) > 50
    assert not [path for path in paths if not (ROOT / path).exists()]
    assert not [path for path in paths if path.endswith("/") != (ROOT / path).is_dir()]


@pytest.mark.parametrize("file", sorted((ROOT / "docs").glob("*.md")), ids=lambda file: file.stem)
def test_every_link_of_a_page_leads_somewhere(file: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", file.read_text())
    broken = [link for link in links if ":" not in link and not (file.parent / link).exists()]
    assert not broken


@pytest.mark.slow
def test_the_page_on_storage_quotes_the_plan() -> None:
    text = page("storage")
    for backbone in ("t5-large", "bart-large"):
        for computed in plan(backbone, "full,lora_ff+lprun", tasks=10):
            storage = computed.storage
            once = f"{storage.base_bytes / 1e6:,.1f} MB" if storage.base_bytes else "-"
            cells = [
                backbone,
                computed.recipe,
                once,
                f"{storage.bytes_per_task / 1e6:,.1f} MB",
                f"{storage.total_bytes / 1e9:.2f} GB",
                f"{100 * storage.relative_to_full:.1f} %",
            ]
            assert f"| {' | '.join(cells)} |" in text
