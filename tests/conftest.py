"""Tiny models of every family, finished runs, and the command line as a function."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import ForkServerProcess, SpawnProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Set before any Hugging Face library is imported: no test may use the network.
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis
import pytest
from typer.testing import CliRunner, Result

from harness import clock
from harness.clock import ManualClock
from harness.measurement.request_server import PRELOADED

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness import Backbone
    from harness.records.report import Report

# Examples are the same every time, and a slow shared core does not fail a test.
hypothesis.settings.register_profile("seeded", derandomize=True, deadline=None)
hypothesis.settings.load_profile("seeded")

_PRELOADED = [
    "compressors.lora",
    "harness.backbones.nano",
    "harness.costs.memory_estimate",
    "harness.measurement.process",
    *PRELOADED,
]
_start_fresh = SpawnProcess._Popen


@pytest.hookimpl(tryfirst=True)  # Before slow tests are left out.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark a test slow with families of backbones that its marker ``fast_on`` does not name."""
    for item in items:
        marker = item.get_closest_marker("fast_on")
        if marker and isinstance(item, pytest.Function):
            family = item.callspec.params["backbone"]
            if family not in marker.args:
                item.add_marker(pytest.mark.slow)


@pytest.fixture
def forget_plugins() -> Iterator[None]:
    """Forget, after a test, the plugins' modules that it imported, and no others."""
    before = set(sys.modules)
    yield
    for name in [name for name in sys.modules if name.startswith("harness_")]:
        if name not in before:
            del sys.modules[name]


@pytest.fixture
def tiny_settings() -> dict[str, object]:
    """Settings of a run that trains two steps and predicts two examples."""
    return {
        "device": "cpu",
        "train.max_steps": 2,
        "train.batch_size": 2,
        "train.warmup_steps": 1,
        "train.eval_examples": 2,
        "greedy.max_new_tokens": 4,
        "test.examples": 2,
        "test.beams": 1,
        "test.max_new_tokens": 4,
        "probe.baseline": "off",
        "probe.warmup_steps": 1,
        "probe.steps": 1,
        "probe.rounds": 2,
        "probe.inference": False,
    }


@pytest.fixture(scope="session", autouse=True)
def _quick_processes() -> Iterator[None]:
    """Fork measured and similar processes from a server that has imported their modules.

    A fresh interpreter imports torch and transformers for some five seconds, which is longer than
    a test's model trains. Tests of the processes themselves use ``fresh_processes``.
    """
    # The server skips modules that it does not find.
    assert all(map(importlib.util.find_spec, _PRELOADED))
    multiprocessing.set_forkserver_preload(_PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        # The server has the environment of its start; see ``MeasuredProcess``.
        patch.setenv("KINETO_LOG_LEVEL", "99")
        patch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")
        patch.setattr(SpawnProcess, "_Popen", staticmethod(ForkServerProcess._Popen))
        # Some code under test preloads other modules, which would count if it came first.
        patch.setattr("multiprocessing.forkserver.set_forkserver_preload", lambda names: None)
        yield


@pytest.fixture
def fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start measured processes as users' runs do, each as a fresh interpreter."""
    monkeypatch.setattr(SpawnProcess, "_Popen", staticmethod(_start_fresh))


@pytest.fixture(params=["forked", pytest.param("fresh", marks=pytest.mark.slow)])
def any_processes(request: pytest.FixtureRequest) -> None:
    """Start measured processes as forks, and if slow tests run, also as fresh interpreters."""
    if request.param == "fresh":
        request.getfixturevalue("fresh_processes")


@pytest.fixture(params=["t5", "gated-t5", "bart"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """A backbone of each family in turn, 8+7 layers of width 16; it needs no download.

    The depths differ, so that a test notices if the stacks are confused.
    """
    from transformers import BartConfig, PreTrainedConfig, T5Config

    from harness.backbones.bart import Bart
    from harness.backbones.t5 import T5

    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}

    class TinyT5(T5):
        def config(self) -> PreTrainedConfig:
            return T5Config(
                vocab_size=48,
                d_model=16,
                d_kv=8,
                d_ff=24,
                num_heads=2,
                num_layers=8,
                num_decoder_layers=7,
                decoder_start_token_id=0,
                **(gated if request.param == "gated-t5" else {}),
            )

    class TinyBart(Bart):
        def config(self) -> PreTrainedConfig:
            return BartConfig(
                vocab_size=48,
                d_model=16,
                encoder_layers=8,
                decoder_layers=7,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=24,
                decoder_ffn_dim=24,
                max_position_embeddings=40,
                init_std=0.2,
                forced_eos_token_id=None,
            )

    return TinyBart("tiny-bart") if request.param == "bart" else TinyT5("tiny-t5")


@pytest.fixture
def make_model(backbone: Backbone) -> Callable[[], PreTrainedModel]:
    """Return a function that builds the backbone's model, always with the same random weights."""
    import torch

    def make() -> PreTrainedModel:
        torch.manual_seed(0)
        return backbone.load("random")

    return make


@pytest.fixture
def eight_bits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Find bitsandbytes, which ``make install`` puts where only these tests look for it."""
    from transformers.utils import is_bitsandbytes_available

    monkeypatch.syspath_prepend(Path(__file__).parents[1] / ".venv" / "bitsandbytes")
    pytest.importorskip("bitsandbytes")
    is_bitsandbytes_available.cache_clear()
    yield
    is_bitsandbytes_available.cache_clear()


@pytest.fixture
def manual_clock() -> Iterator[ManualClock]:
    """Replace the clock of this process by one that only sleep advances."""
    manual = ManualClock()
    previous = clock.use(manual)
    yield manual
    clock.use(previous)


@pytest.fixture(scope="session")
def install_package(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Install a package with pip, as a function that returns the folder it is in."""

    def install(package: Path) -> Path:
        # It is built from a copy, since setuptools writes into the source folder.
        source = shutil.copytree(package, tmp_path_factory.mktemp("source") / package.name)
        site = tmp_path_factory.mktemp(package.name)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        target = ["--no-build-isolation", "--target", str(site), str(source)]
        subprocess.run([*pip, *target], check=True)
        return site

    return install


@pytest.fixture
def harness() -> Callable[..., Result]:
    """The command line, in this process, as a function of its arguments."""
    from harness.cli.main import app

    def call(*arguments: str, columns: int = 120) -> Result:
        return CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)})

    return call


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    """Build the report of a good run; keywords replace its top-level fields."""
    from harness.records.report import Report

    def make(**changes: Any) -> Report:
        quality = {
            name: {
                "value": value,
                "ci": [value - 1.5, value + 1.5],
                "signature": f"{name}|measure:f1",
                "higher_is_better": True,
            }
            for name, value in {"rouge1": 41.25, "rouge2": 18.5, "rougeL": 33.0}.items()
        }
        values = {
            "id": "tiny-full-notes-s0-0123abcd",
            "status": "ok",
            "backbone": "tiny",
            "recipe": "full",
            "task": "notes",
            "seed": 0,
            "started": "2024-05-06T07:08:09+00:00",
            "seconds": 321.5,
            "data": {
                "train": 48,
                "eval": 6,
                "test": 6,
                "skipped": {"target is empty": 2},
                "cut_sources": 1,
                "cut_targets": 0,
                "sha256": "ab" * 32,
            },
            "layers_kept": {"encoder": [1, 2, 3], "decoder": [1, 2, 3]},
            "parameters": {
                "original": 2000,
                "total": 2000,
                "trainable": 2000,
                "trainable_pct_of_original": 100.0,
                "trainable_pct_of_total": 100.0,
            },
            "speed": {
                "tokens_per_s": 500.0,
                "samples_per_s": 25.0,
                "baseline": "off",
                "engine": "packed",
                "schedule_sha256": "cd" * 32,
                "window_seconds": [1.0, 1.1, 0.9, 1.0],
            },
            "memory": {
                "peak_bytes": 2**30,
                "static_bytes": 2**29,
                "reserved_bytes": None,
                "tensor_bytes": 2**28,
            },
            "training": {
                "steps": 12,
                "planned_steps": 12,
                "best_step": 9,
                "best_value": 40.0,
                "learning_rate": 1e-3,
                "stopped": "finished",
                "seconds": 100.0,
            },
            "quality": quality,
            "not_computed": {"bertscore": "there is no model"},
            "decoding": "beam_search|beams:6",
            "handover": {"largest_logit_difference": 1e-6},
            "fingerprint": {
                "device": "cpu",
                "driver": None,
                "cpu": "Some Processor",
                "threads": 2,
                "versions": {"torch": "2.13.0", "transformers": "5.24.0"},
                "dtype": "float32",
                "matmul_precision": "highest",
                "attention": "sdpa",
                "git": "0" * 40,
            },
        }
        return Report.model_validate({**values, **changes})

    return make


@pytest.fixture(scope="session")
def write_run(make_report: Callable[..., Report]) -> Callable[..., Path]:
    """Write the folder of a good run whose examples score what is requested.

    The keyword ``lower_is_better`` names the metrics of which less is better.
    """
    from harness.records.atomic import write_lines
    from harness.records.run_folder import RunFolder

    def write(
        results: Path,
        scores: dict[str, list[float]],
        lower_is_better: Sequence[str] = (),
        **changes: Any,
    ) -> Path:
        values = {"recipe": "full", "seed": 0, "backbone": "tiny", "task": "notes", **changes}
        name = "-".join(str(values[key]) for key in ("backbone", "recipe", "task", "seed"))
        quality = {
            metric: {
                "value": sum(examples) / len(examples),
                "ci": [sum(examples) / len(examples) - 1, sum(examples) / len(examples) + 1],
                "signature": f"{metric}|measure:f1",
                "higher_is_better": metric not in lower_is_better,
            }
            for metric, examples in scores.items()
        }
        report = make_report(**{"id": name, "quality": quality, **values})
        folder = RunFolder(results, report.id)
        rows = zip(*scores.values(), strict=True)
        write_lines(
            folder.work / "predictions.jsonl",
            (
                {
                    "id": f"t{number}",
                    "source": f"Source {number} of the notes.",
                    "reference": f"Reference {number}.",
                    "prediction": f"Prediction {number} of {report.recipe}.",
                    "scores": {m: round(v, 4) for m, v in zip(scores, row, strict=True)},
                }
                for number, row in enumerate(rows)
            ),
        )
        return folder.finish(report)

    return write
