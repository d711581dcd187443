"""Teachers: a run with its merged weights, its identity, its size, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import harness
from harness import HarnessError
from harness.api.plugins import installed
from harness.model.composition import compose, kept_layers, layers
from harness.records.atomic import write_text
from harness.records.report import Report
from harness.records.run_folder import SPEC, RunFolder
from harness.running.identity import identity
from harness.spec.run_spec import RunSpec
from harness.training.resolved_run import resolve_run
from harness.training.teacher_model import TeacherModel, find_teacher
from harness.training.trained_run import open_run
from harness.training.trained_weights import FILE, save_weights

RECIPE = "lora_ff+lprun"


@pytest.fixture(scope="module")
def taught(make_report: Callable[..., Report], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of nano-t5, whose trained weights are the initial ones with noise."""
    plugins = installed()
    backbone = plugins.backbone("nano-t5")
    model = backbone.load("pretrained")
    before = layers(model, backbone)
    model = compose(model, backbone, plugins.recipe(RECIPE))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in trained.values():
            weight.add_(torch.randn_like(weight) * 0.05)
    kept = kept_layers(before, layers(model, backbone))
    version = backbone.version()
    report = make_report(
        id="taught", backbone="nano-t5", backbone_version=version, recipe=RECIPE, layers_kept=kept
    )
    folder = RunFolder(tmp_path_factory.mktemp("runs"), report.id)
    spec = RunSpec(recipe=RECIPE, device="cpu", preset="quick")
    write_text(folder.work / SPEC, spec.to_toml())
    save_weights(trained, folder.work)
    return folder.finish(report)


def teacher_of(place: object) -> TeacherModel:
    teacher = find_teacher(installed().recipe(f"distill:teacher={place}"))
    assert teacher
    return teacher


def test_a_run_teaches_with_its_merged_weights(taught: Path) -> None:
    teacher = teacher_of(taught)
    model: Any = teacher.load()
    shapes = {name: tensor.shape for name, tensor in teacher.skeleton().state_dict().items()}
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == shapes
    assert not any("lora" in name for name, _ in model.named_parameters())
    ids = torch.tensor([[5, 7, 11, 13, 17, 1]])

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return torch.as_tensor(model.eval()(input_ids=ids, labels=ids).logits)

    run = open_run(taught)
    torch.testing.assert_close(logits(model), logits(run.load()), rtol=1e-4, atol=1e-3)
    assert (logits(model) - logits(run.untrained())).abs().max() > 0.1
    assert run.report.layers_kept
    assert teacher.layers(model)["encoder"] == run.report.layers_kept.encoder
    assert len(run.report.layers_kept.encoder) == len(model.encoder.block) < 12
    assert teacher.seconds == 321.5


def test_another_teacher_is_another_run_and_a_moved_one_is_the_same(
    taught: Path, tmp_path: Path
) -> None:
    plugins = installed()
    backbone, task = plugins.backbone("nano-t5"), plugins.task("radiology_demo", {})

    def id_of(folder: Path) -> str:
        text = f"distill:teacher={folder}"
        run = resolve_run(RunSpec(recipe=text, device="cpu"), backbone, plugins.recipe(text))
        return identity(run, task, "", plugins)

    moved = Path(shutil.copytree(taught, tmp_path / "elsewhere"))
    assert id_of(moved) == id_of(taught)
    weights = load_file(moved / FILE)
    save_file({name: tensor + 1 for name, tensor in weights.items()}, moved / FILE)
    assert id_of(moved) != id_of(taught)


@pytest.mark.slow
def test_a_plan_counts_a_run_as_the_teacher(taught: Path, tiny_settings: dict[str, object]) -> None:
    settings = {**tiny_settings, "train.batch_size": 1}
    recipes = f"distill:teacher={taught},distill"
    plans = harness.plan("nano-t5", recipes, settings=settings)
    small, original = (plan.memory.parts.teacher if plan.memory else 0 for plan in plans)
    weights = {id(p): p for p in teacher_of(taught).load().parameters()}.values()
    assert small == sum(p.nbytes for p in weights)
    assert original == 4 * plans[1].parameters.original
    assert plans[0].flop_limit_relative_speed > plans[1].flop_limit_relative_speed


def test_what_is_no_teacher_is_refused_by_name(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(HarnessError, match="neither a run nor a model"):
            teacher_of(place)


def test_a_teacher_with_another_vocabulary_is_refused(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = teacher_of(taught)
    student = installed().backbone("nano-t5")
    teacher.check(student)
    tokenizer = student.tokenizer()
    tokenizer.add_tokens(["<new>"])
    monkeypatch.setattr(student, "tokenizer", lambda: tokenizer)
    monkeypatch.setattr(student, "version", lambda: "another")
    with pytest.raises(HarnessError, match="another vocabulary"):
        teacher.check(student)


@pytest.mark.slow
def test_a_run_learns_from_a_run(
    taught: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    teacher = Path(shutil.copytree(taught, tmp_path / "teacher"))
    text = f"distill:teacher={teacher},hidden=0.1+lora_ff+lprun"
    results = tmp_path / "runs"
    run = harness.run(compressor=text, settings=tiny_settings, results=results, progress=False)
    assert run.report.status == "ok", run.report.failure
    assert run.report.teacher_seconds == 321.5
    assert run.report.memory
    assert run.report.memory.parts
    assert run.report.memory.parts.teacher == sum(
        p.nbytes for p in {id(p): p for p in teacher_of(taught).load().parameters()}.values()
    )
    # The trained model needs no teacher any more.
    shutil.rmtree(teacher)
    assert open_run(run.folder).load()
