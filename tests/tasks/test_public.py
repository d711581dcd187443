"""Data sets of the hub: by name and by id, from a hub that is a local folder, or out of reach."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import HarnessError, Task
from harness.api.options import validate
from harness.api.plugins import installed
from tasks.public import HubOptions, HubTask

NAMES = ["xsum", "cnn_dailymail", "samsum", "dialogsum"]


def write_split(
    folder: Path, name: str, count: int, columns: tuple[str, ...] = ("document", "summary", "id")
) -> None:
    """Write a split as the hub would serve it; the library reads a folder like a repository."""
    folder.mkdir(exist_ok=True)
    rows = [
        dict(zip(columns, (f"{name} text {i}", f"{name} sum {i}", f"{name}{i}"), strict=True))
        for i in range(count)
    ]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def task(reference: str, **options: Any) -> Task[Any]:
    kind: type[Task[Any]] = installed().tasks.find(reference).load()
    return kind(reference, validate(kind.Options, options, "test"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the library's own cache within the test."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("name", [*NAMES, "hub:some/thing"])
def test_a_hub_that_cannot_be_reached_is_one_clear_error(name: str) -> None:
    with pytest.raises(HarnessError, match="is not available from the Hugging Face hub") as caught:
        task(name).splits(0)
    for way in ("network", "HF_HOME", "--task FOLDER"):
        assert way in (caught.value.hint or "")


@pytest.mark.parametrize("name", NAMES)
def test_named_sets_have_summaries_defaults(name: str) -> None:
    chosen = task(name)
    assert chosen.name == name
    assert (chosen.prefix, chosen.max_source_length, chosen.max_target_length) == (
        "summarize: ",
        1024,
        128,
    )
    assert chosen.length_profile.source_mean <= chosen.max_source_length
    assert any("rouge1" in metric.names for metric in chosen.metrics())


def test_any_id_is_a_task_and_its_name_is_the_id() -> None:
    assert installed().tasks.find("hub:org/name").load() is HubTask
    chosen = task("hub:org/name", max_source_length=99)
    assert (chosen.name, chosen.prefix, chosen.max_source_length) == ("org/name", "", 99)


def test_finding_a_task_of_the_hub_imports_no_heavy_module() -> None:
    code = (
        "import sys; from harness.api.plugins import installed; import tasks.public; "
        "installed().tasks.find('hub:a/b'); print({'datasets', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("names", [("train", "validation", "test"), ("train", "test"), ("train",)])
def test_splits_that_are_missing_are_made(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = tmp_path / "repository"
    for name in names:
        write_split(folder, name, 40)
    splits = HubTask(f"hub:{folder}", HubOptions()).splits(0)
    parts = (splits.train, splits.eval, splits.test)
    taken = [4 for _ in range(3 - len(names))]
    sizes = [40 if name in names else 4 for name in ("validation", "test")]
    assert [len(part) for part in parts] == [40 - sum(taken), *sizes]
    ids = [id_ for part in parts for id_ in part["id"]]
    assert len(set(ids)) == len(ids) == 40 * len(names)
    if "test" in names:
        assert splits.test[0] == {"id": "test0", "source": "test text 0", "target": "test sum 0"}


@pytest.mark.usefixtures("cache")
def test_columns_can_be_named(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    write_split(folder, "train", 20, columns=("a", "b", "c"))
    with pytest.raises(HarnessError, match="no column is obviously the source") as caught:
        HubTask(f"hub:{folder}", HubOptions()).splits(0)
    assert "a, b, c" in (caught.value.hint or "")
    options = HubOptions(source_column="a", target_column="b", id_column="c")
    assert HubTask(f"hub:{folder}", options).splits(0).train[0]["source"].startswith("train text")


@pytest.mark.usefixtures("cache")
def test_a_data_set_without_a_train_split(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    write_split(folder, "test", 20)
    with pytest.raises(HarnessError, match=r"no train split\. Its splits: test"):
        HubTask(f"hub:{folder}", HubOptions()).splits(0)
