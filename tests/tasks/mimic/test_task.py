"""The tasks on prepared notes: where they are found, how they are split, and their defaults."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from harness import HarnessError, Preparation, Splits
from tasks.mimic.prepare import COUNTS, EXAMPLES
from tasks.mimic.task import Discharge, MimicOptions, Radiology

PARTS = ("train", "eval", "test")
Prepared = tuple[type[Discharge] | type[Radiology], Path]


@pytest.fixture(scope="module", params=[Discharge, Radiology])
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The class of a task and the folder of its 600 synthetic notes."""
    folder = tmp_path_factory.mktemp("data") / f"mimic_{request.param.kind}"
    request.param.prepare(Preparation(folder, synthetic=600))
    return request.param, folder


def splits(prepared: Prepared, seed: int = 0, **options: Any) -> Splits:
    kind, folder = prepared
    return kind(folder.name, MimicOptions(path=folder, **options)).splits(seed)


def patients(prepared: Prepared, dataset: Splits) -> list[set[str]]:
    """Return the set of patients of each split."""
    rows = parquet.read_table(prepared[1] / EXAMPLES).to_pylist()
    of = {row["id"]: row["subject_id"] for row in rows}
    return [{of[id_] for id_ in getattr(dataset, part)["id"]} for part in PARTS]


def test_no_patient_is_on_two_sides(prepared: Prepared) -> None:
    train, evaluation, test = patients(prepared, splits(prepared))
    assert not train & evaluation | train & test | evaluation & test


def test_the_papers_split_does_not_look_at_patients(prepared: Prepared) -> None:
    dataset = splits(prepared, split="paper")
    total = sum(len(getattr(dataset, part)) for part in PARTS)
    assert len(dataset.eval) == len(dataset.test) == round(total / 10)
    train, _, test = patients(prepared, dataset)
    assert train & test


@pytest.mark.parametrize("split", ["patient", "paper"])
def test_every_example_is_in_one_split_whatever_the_runs_seed(
    prepared: Prepared, split: str
) -> None:
    first, again = (splits(prepared, seed, split=split) for seed in (0, 1))
    other = splits(prepared, split=split, split_seed=1)
    rows = parquet.read_table(prepared[1] / EXAMPLES).select(["id", "source", "target"]).to_pylist()
    rows_of_splits = [row for part in PARTS for row in getattr(first, part)]
    assert sorted(rows_of_splits, key=str) == sorted(rows, key=str)
    assert first.test.to_list() == again.test.to_list()
    assert first.test.to_list() != other.test.to_list()


def test_notes_left_out_and_leakage_are_passed_on(prepared: Prepared) -> None:
    dataset = splits(prepared)
    assert dataset.skipped.keys() == {"no section has a title of the target"}
    assert sum(len(getattr(dataset, part)) for part in PARTS) + sum(dataset.skipped.values()) == 600
    texts = [list(getattr(dataset, part)["source"]) for part in PARTS]
    pairs = itertools.chain(*(itertools.product(*two) for two in itertools.combinations(texts, 2)))
    assert dataset.leakage["exact"] == sum(one == other for one, other in pairs)
    assert dataset.leakage["near"] >= 0


def test_found_in_the_data_folder(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, folder = prepared
    monkeypatch.setenv("HARNESS_DATA", str(folder.parent))
    dataset = kind(folder.name, MimicOptions()).splits(0)
    assert dataset.test.to_list() == splits(prepared).test.to_list()


@pytest.mark.parametrize("place", ["nowhere", "option", "variable"])
def test_where_nothing_is_found_each_way_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    if place == "variable":
        monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    options = MimicOptions(path=tmp_path) if place == "option" else MimicOptions()
    with pytest.raises(HarnessError, match="mimic_radiology were not found") as caught:
        Radiology("mimic_radiology", options).splits(0)
    for way in (
        "harness prepare mimic_radiology --notes radiology.csv.gz",
        "task_options.path=DIR",
        "HARNESS_DATA=",
        "--synthetic",
    ):
        assert way in (caught.value.hint or "")


@pytest.mark.parametrize("name", [EXAMPLES, COUNTS])
def test_a_damaged_folder_is_a_clear_error(tmp_path: Path, name: str) -> None:
    Radiology.prepare(Preparation(tmp_path / "out", synthetic=50))
    (tmp_path / "out" / name).write_bytes(b"{")
    with pytest.raises(HarnessError, match=name):
        Radiology("mimic_radiology", MimicOptions(path=tmp_path / "out")).splits(0)


def test_defaults_are_the_papers() -> None:
    for kind, share in ((Discharge, 0.3), (Radiology, 0.1)):
        task = kind(kind.__name__, MimicOptions())
        assert (task.prefix, task.max_source_length, task.max_target_length) == (
            "summarize: ",
            1024,
            128,
        )
        assert task.eval_share == share
        names = {name for metric in task.metrics() for name in metric.names}
        assert {"rouge1", "rouge2", "rougeL"} <= names


def test_loading_leaves_no_copy_of_confidential_text(tmp_path: Path) -> None:
    folder, home = tmp_path / "data", tmp_path / "home"
    home.mkdir()
    Radiology.prepare(Preparation(folder, synthetic=50))
    code = (
        "from tasks.mimic.task import *\n"
        f"Radiology('x', MimicOptions(path={str(folder)!r})).splits(0)\n"
    )
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home), "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""
    assert list(home.rglob("*")) == []
