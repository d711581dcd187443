"""Storage of many tasks: measured files, sums worked by hand, and the plan's numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from harness import HarnessError, export_run, plan, storage
from harness.export.entry import size_of
from harness.export.forms import find_form
from harness.export.manifest import Form
from harness.export.request import ExportRequest
from harness.export.storage import RecipeStorage, StorageOfTasks
from harness.export.workspace import Workspace
from harness.training.trained_run import open_run
from harness.training.trained_weights import FILE

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def results(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a T5: full once, pruning with LoRA on two tasks."""
    folder = tmp_path_factory.mktemp("storage") / "results"
    make_run("t5", "full", results=folder)
    for task in ("notes", "letters"):
        make_run("t5", "lora_ff+lprun", results=folder, id=f"pruned-{task}", task=task)
    make_run("t5", "lora_ff+lprun", seed=1, results=folder, id="another-seed", task="notes")
    return folder


@pytest.fixture(scope="module")
def measured(results: Path) -> StorageOfTasks:
    (storage_of_t5,) = storage(results, tasks=[1, 10])
    return storage_of_t5


def recipe(measured: StorageOfTasks, name: str) -> RecipeStorage:
    return next(entry for entry in measured.recipes if entry.recipe == name)


def header(folder: Path) -> int:
    """Return the bytes before the tensors in the files of a folder."""
    return sum(
        8 + int.from_bytes(path.read_bytes()[:8], "little") for path in folder.glob("*.safetensors")
    )


def test_the_sum_is_a_base_once_and_an_adapter_for_each_task(measured: StorageOfTasks) -> None:
    assert measured.full is not None
    assert measured.full_measured_on == "a trained model"
    pruned = recipe(measured, "lora_ff+lprun")
    assert pruned.form == "adapter"
    assert sorted(pruned.measured) == ["letters", "notes"]
    assert pruned.base_is_shared is True
    assert pruned.base is not None

    own, once, full = pruned.bytes_per_task, pruned.base.total, measured.full.total

    sums = {entry.tasks: entry for entry in pruned.sums}
    assert sorted(sums) == [1, 2, 10]
    for number in (1, 2, 10):
        assert sums[number].total_bytes == number * own + once
        assert sums[number].relative_to_full == pytest.approx((number * own + once) / number / full)
    whole = recipe(measured, "full")
    assert whole.base is None
    assert [entry.total_bytes for entry in whole.sums] == [full, 2 * full, 10 * full]
    assert [entry.relative_to_full for entry in whole.sums] == [1, 1, 1]
    assert measured.recipes[0] is whole


@pytest.fixture(scope="module")
def exports(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exports of both tasks: an adapter with its base inside, and one whose base is beside it."""
    place = tmp_path_factory.mktemp("exports")
    export_run(results / "pruned-notes", place / "inside", form="adapter")
    export_run(results / "pruned-letters", place / "letters", form="adapter", base=place / "base")
    return place


def test_the_bytes_are_those_of_an_export_without_card_and_manifest(
    measured: StorageOfTasks, exports: Path
) -> None:
    sizes = size_of(exports / "letters")
    own = recipe(measured, "lora_ff+lprun").measured["letters"]
    base = recipe(measured, "lora_ff+lprun").base
    assert own.weights == sizes["adapter_model.safetensors"]
    assert own.settings == sizes["adapter_config.json"] + sizes["generation_config.json"]
    assert base is not None
    assert base.total == sum(size_of(exports / "base").values())
    assert base.weights == (exports / "base" / "model.safetensors").stat().st_size
    assert base.tokenizer > 0


def test_exported_folders_are_measured_as_they_are(
    exports: Path, measured: StorageOfTasks, tmp_path: Path
) -> None:
    (exported,) = storage(exports, tasks=[4])

    (pruned,) = exported.recipes
    assert sorted(pruned.measured) == ["letters", "notes"]
    assert pruned.base_is_shared is True
    assert pruned.base == recipe(measured, "lora_ff+lprun").base
    weights = {files.weights for files in pruned.measured.values()}
    assert weights == {f.weights for f in recipe(measured, "lora_ff+lprun").measured.values()}
    assert exported.full is None
    assert {entry.relative_to_full for entry in pruned.sums} == {None}
    copy = shutil.copytree(exports, tmp_path / "exports")
    shutil.rmtree(copy / "base")
    (left,) = storage(copy, tasks=[4])
    assert list(left.recipes[0].measured) == ["notes"]
    assert "../base" in left.skipped[str(copy / "letters")]


def write(folder: Path, form: Form, place: Path) -> None:
    """Export a run without its check: ``model``, and ``base`` for an adapter."""
    base = place / "base" if form == "adapter" else None
    request = ExportRequest(out=place / "model", form=form, base=base)
    run = open_run(folder)
    with Workspace(request.out) as workspace:
        find_form(form).write(run, run.load(), workspace, request)
        workspace.commit()


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param("t5", "full", marks=pytest.mark.slow),
        pytest.param("t5", "lprun", marks=pytest.mark.slow),
        pytest.param("t5", "lora_qv", marks=pytest.mark.slow),
        ("t5", "lora_ff+lprun"),
        pytest.param("gated-t5", "lora_ff+lprun", marks=pytest.mark.slow),
        ("bart", "full"),
        ("bart", "lora_ff+lprun"),
    ],
)
def test_the_plan_computes_the_same_bytes_within_the_headers(
    family: str, name: str, make_run: MakeRun, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = make_run(family, name, results=tmp_path / "results")
    (stored,) = storage(folder, tasks=[3])[0].recipes
    (planned,) = plan(str(tiny_folders[family]), name, tasks=3)
    (own,) = stored.measured.values()
    write(folder, stored.form, tmp_path)
    model = open_run(folder).untrained()
    # Files also hold BART's bias of the logits, which is not a parameter.
    constant = sum(buffer.nbytes for name, buffer in model.named_buffers() if "logits" in name)
    assert bool(constant) == (family == "bart")
    own_bytes = own.weights - header(tmp_path / "model")
    if stored.form == "merged":
        assert (own_bytes, planned.storage.base_bytes) == (
            planned.storage.bytes_per_task + constant,
            0,
        )
        return
    # Biases that each task trains are in the base too, since it is a whole model.
    biases = sum(p.nbytes for n, p in model.named_parameters() if p.requires_grad and "bias" in n)
    assert bool(biases) == (family == "bart")
    assert stored.base is not None
    assert own_bytes == planned.storage.bytes_per_task
    base_bytes = stored.base.weights - header(tmp_path / "base")
    assert base_bytes == planned.storage.base_bytes + constant + biases


def test_full_is_measured_on_the_original_if_no_run_trained_it(
    results: Path, measured: StorageOfTasks
) -> None:
    (pruned,) = storage(results / "pruned-notes", tasks=[2])

    assert pruned.full == measured.full
    assert pruned.full_measured_on.startswith("the original")


def test_a_run_without_weights_is_named(results: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(results, tmp_path / "results")
    (copy / "pruned-letters" / FILE).unlink()

    (left,) = storage(copy, tasks=[2])

    assert list(recipe(left, "lora_ff+lprun").measured) == ["notes"]
    assert "no trained weights" in left.skipped[str(copy / "pruned-letters")]
    with pytest.raises(HarnessError, match="No files can be measured"):
        storage(copy / "pruned-letters")


def test_the_command_prints_the_table_and_json(
    results: Path, measured: StorageOfTasks, harness: Callable[..., Result]
) -> None:
    shown = harness("storage", str(results), "--tasks", "1,10", columns=160)
    assert shown.exit_code == 0, shown.output
    assert "10 tasks" in shown.output
    share = recipe(measured, "lora_ff+lprun").sums[-1].relative_to_full
    assert f"{share:.1%}" in shown.output
    assert "Measured: the files of exported models of letters, notes" in shown.output
    assert "Computed: N tasks = N x each task + once" in shown.output

    printed = harness("storage", str(results), "--tasks", "1,10", "--json")
    assert json.loads(printed.stdout) == [measured.model_dump(mode="json")]


@pytest.mark.parametrize("tasks", ["0", "two", ""])
def test_a_wrong_number_of_tasks_is_an_error(
    tasks: str, results: Path, harness: Callable[..., Result]
) -> None:
    result = harness("storage", str(results), "--tasks", tasks)

    assert result.exit_code == 2
    assert "--tasks 1,2,5,10" in result.output
