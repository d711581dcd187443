"""A finished run's report, and a backbone in a folder, small enough to train in a test."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


Execute = Callable[[Path, Sequence[str]], subprocess.CompletedProcess[str]]


class StockServer:
    """The process of ``stock_server.py``; it is started when it is first used."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, program: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Execute a program in a fork of the process."""
        from harness.export.check import ENVIRONMENT

        if self._process is None:
            words = [sys.executable, "-P", str(Path(__file__).with_name("stock_server.py"))]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                words, env={**os.environ, **ENVIRONMENT}, stdin=pipe, stdout=pipe, text=True
            )
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([str(program), *arguments]) + "\n")
        self._process.stdin.flush()
        status, written = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess([str(program), *arguments], status, "", written)

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


@pytest.fixture(scope="session")
def stock_server() -> Iterator[StockServer]:
    """One such process for all tests."""
    server = StockServer()
    yield server
    server.close()


@pytest.fixture
def forked_checks(stock_server: StockServer, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """Check exports in forks of a process that has imported the stock libraries.

    A fresh interpreter imports them for some five seconds. Tests of the process itself use
    ``fresh_checks``.
    """
    from harness.export import check

    original = check._execute
    monkeypatch.setattr(check, "_execute", stock_server)
    return original


@pytest.fixture
def fresh_checks(forked_checks: Execute, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check exports as users' exports are, each in a fresh interpreter."""
    monkeypatch.setattr("harness.export.check._execute", forked_checks)


@pytest.fixture(scope="session")
def inference_of() -> Callable[..., dict[str, Any]]:
    """Build the costs of decoding, as a report holds them.

    ``speed`` is relative to full fine-tuning; without one there is no baseline.
    """

    def make(
        latency: float = 0.2,
        speed: float | None = None,
        peak_bytes: int = 2**30,
        model_bytes: int = 1000,
        **changes: Any,
    ) -> dict[str, Any]:
        why = {"not_measured": {"relative": "no baseline: off"}}
        timing: dict[str, Any] = {"seconds": latency, **(why if speed is None else {})}
        if speed is not None:
            ratio = {"relative": speed, "relative_ci": [0.9 * speed, 1.1 * speed]}
            timing |= {**ratio, "noise_floor": 1.02}
        batch = {"batch_size": 16, "examples_per_s": 16 / latency, "output_tokens_per_s": 640.0}
        return {
            "search": "beams:6|max_new_tokens:40",
            "beams": 6,
            "output_tokens": 40,
            "source_tokens": 190.5,
            "sources_sha256": "ab" * 32,
            "examples": 8,
            "rounds": 3,
            "baseline": "off" if speed is None else "full on the same sources, interleaved",
            "latency": {**timing, "median_seconds": latency, "p95_seconds": 1.5 * latency},
            "prefill": timing,
            "per_token": timing,
            "throughput": {**timing, **batch},
            "memory": {
                "peak_bytes": peak_bytes,
                "static_bytes": peak_bytes // 2,
                "relative": None if speed is None else peak_bytes / 2**30,
            },
            "size": {
                "model_bytes": model_bytes,
                "model_relative": None if speed is None else model_bytes / 1000,
                "trained_bytes": model_bytes // 10,
                "trained_relative": None if speed is None else model_bytes / 10_000,
            },
            "seconds": 12.0,
            **changes,
        }

    return make


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a T5 of 6+6 thin layers, random weights, and nano-t5's tokenizer."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from harness.backbones.nano import NanoT5

    tokenizer = NanoT5("nano-t5").tokenizer()
    folder = tmp_path_factory.mktemp("backbones") / "tiny-t5"
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_heads=4,
        num_layers=6,
        decoder_start_token_id=0,
    )
    torch.manual_seed(0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with foreign modules that have the names of the harness's packages."""
    folder = tmp_path_factory.mktemp("strangers")
    for name in ("tasks.py", "compressors/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise RuntimeError(f'{__file__} was imported')\n")
    return folder


@pytest.fixture(scope="session")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of sixty short findings with their impressions."""
    rng = random.Random(0)
    sites, findings = ["lung", "liver", "spleen", "kidney"], ["nodule", "cyst", "scar", "stone"]
    rows = []
    for number in range(60):
        site, finding, other = rng.choice(sites), rng.choice(findings), rng.choice(sites)
        source = f"There is a {finding} in the {site}. The {other} is normal. Case {number}."
        rows.append({"id": f"n{number}", "source": source, "target": f"{finding} in the {site}"})
    path = tmp_path_factory.mktemp("data") / "notes.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def short_run(tiny_t5: Path, notes: Path) -> list[str]:
    """The command of a run of a few steps; appended options take precedence."""
    settings = {
        "device": "cpu",
        "train.batch_size": 4,
        "train.max_steps": 6,
        "train.warmup_steps": 1,
        "train.adapter_learning_rate": 0.01,
        "train.eval_every_epochs": 0.25,
        "train.precision": "float32",
        "greedy.max_new_tokens": 8,
        "test.beams": 2,
        "test.max_new_tokens": 8,
        "test.batch_size": 2,
        "probe.baseline": "off",
        "probe.warmup_steps": 1,
        "probe.steps": 1,
        "probe.rounds": 2,
        "probe.inference": "false",
    }
    chosen = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return ["run", "--backbone", str(tiny_t5), "--task", str(notes), *chosen]


@dataclass(frozen=True)
class FinishedRun:
    """A successful run: the result of the command and the folder of the run."""

    result: Result
    folder: Path


@pytest.fixture(scope="session")
def finished_run(short_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """One complete run, which several tests read and none changes."""
    from harness.cli.main import app

    results = tmp_path_factory.mktemp("runs") / "results"
    command = [*short_run, "--compressor", "lora_ff+lprun", "--out", str(results)]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    (folder,) = results.iterdir()
    return FinishedRun(result, folder)


@pytest.fixture(scope="module")
def chrome() -> Iterator[Chrome]:
    """A Chromium without a window; the test is skipped where there is none with its driver."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="the package selenium is missing")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    names = ("chromium", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip(
            "there is no Chromium with its chromedriver (Debian: chromium, chromium-driver)"
        )
    options = Options()
    options.binary_location = browser
    # Chrome cannot sandbox itself as root or in a container.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.set_script_timeout(60)
    yield chrome
    chrome.quit()
