"""The steps of ``make gpu``: each ends, is stored at once, and is not run twice."""

from __future__ import annotations

import importlib
import json
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Import = Callable[[str], ModuleType]

STEPS = {
    "sound": """
        from gpu.step import run_step

        def run(result):
            result.case("one", lambda: {"number": 1})
            return "as it should be"

        raise SystemExit(run_step(run))
        """,
    "broken": """
        print("about to fall")
        raise ValueError("a kernel did not compile")
        """,
    "endless": """
        import subprocess, sys, time
        from pathlib import Path
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        Path("child.pid").write_text(str(child.pid))
        time.sleep(60)
        """,
    "slow": """
        import os, time
        from gpu.step import run_step

        def run(result):
            result.case("first", lambda: {"number": 1})
            print("the second case begins", flush=True)
            result.case("second", lambda: time.sleep(60) or {})
            return ""

        raise SystemExit(run_step(run))
        """,
    "one": """
        import time
        from pathlib import Path
        from gpu.step import run_step

        def run(result):
            Path("step 1").touch()
            for _ in range(200):
                if Path("step 2").exists():
                    return "both"
                time.sleep(0.1)
            raise TimeoutError("the other step does not run")

        raise SystemExit(run_step(run))
        """,
    "partly": """
        from pathlib import Path
        from gpu.step import run_step

        def fall():
            if not Path("mended").exists():
                raise MemoryError("out of memory\\nand more")
            return {"number": 2}

        def run(result):
            for name, measure in (("good", lambda: {"number": 1}), ("bad", fall)):
                result.case(name, measure)
            return "two cases"

        raise SystemExit(run_step(run))
        """,
}


STEPS["two"] = STEPS["one"].translate(str.maketrans("12", "21"))


@pytest.fixture
def root(tmp_path: Path, module: Import, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout that has the steps above."""
    benchmarks = tmp_path / "root" / "benchmarks"
    benchmarks.mkdir(parents=True)
    for name, code in STEPS.items():
        lines = code.strip("\n").splitlines()
        text = "\n".join(text.removeprefix(" " * 8) for text in lines)
        (benchmarks / f"{name}.py").write_text(text + "\n")
    real = Path(module("gpu").__file__ or "").parents[1]
    monkeypatch.setenv("PYTHONPATH", str(real))
    return benchmarks.parent


@pytest.fixture
def run(root: Path, tmp_path: Path, module: Import) -> Callable[..., int]:
    """Return a function that runs steps by name."""
    runner, card, listed = module("gpu.runner"), module("gpu.card"), module("gpu.step_list")

    def call(
        *names: str,
        seconds: float = 60,
        share: float = 1,
        out: Path | None = None,
        together: bool = False,
    ) -> int:
        steps = [listed.Step(name, name, share, name, together) for name in names]
        device = card.Card("NVIDIA H100 80GB HBM3", "cpu", {"name": "NVIDIA H100 80GB HBM3"})
        folder = tmp_path / "results" / device.slug
        status: int = runner.Runner(root, folder, device, steps, True, seconds, out).run()
        return status

    return call


def state(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "results" / "nvidia-h100-80gb-hbm3"
    steps: dict[str, Any] = json.loads((folder / "steps.json").read_text())["steps"]
    return steps


def test_other_steps_run_after_one_that_fails(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("broken", "sound") == 1
    states = state(tmp_path)
    assert states["broken"]["status"] == "failed"
    assert "a kernel did not compile" in states["broken"]["summary"]
    assert states["sound"] | {"seconds": 0} == {
        "status": "ok",
        "seconds": 0,
        "summary": "as it should be",
    }
    printed = capsys.readouterr().out.splitlines()
    assert [text.split()[:3] for text in printed] == [
        ["1/2", "broken", "failed"],
        ["2/2", "sound", "ok"],
    ]
    folder = tmp_path / "results" / "nvidia-h100-80gb-hbm3"
    assert "about to fall" in (folder / "broken.log").read_text()
    assert json.loads((folder / "card.json").read_text())["name"] == "NVIDIA H100 80GB HBM3"


def test_finished_cases_are_not_run_again(
    run: Callable[..., int], root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results" / "nvidia-h100-80gb-hbm3"
    assert run("sound", "partly") == 1
    first = json.loads((folder / "partly.json").read_text())
    assert first["cases"]["bad"]["failure"] == "MemoryError: out of memory"
    assert state(tmp_path)["partly"]["summary"] == (
        "two cases; 1 failed, first bad: MemoryError: out of memory"
    )
    (root / "mended").touch()
    before = (folder / "sound.json").stat().st_mtime_ns
    assert run("sound", "partly") == 0
    assert (folder / "sound.json").stat().st_mtime_ns == before
    assert "good: is stored" in (folder / "partly.log").read_text()
    assert json.loads((folder / "partly.json").read_text())["cases"]["bad"]["number"] == 2


def test_other_code_measures_everything_again(
    run: Callable[..., int], root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results" / "nvidia-h100-80gb-hbm3"
    run("sound")
    before = json.loads((folder / "sound.json").read_text())["code"]
    (root / "benchmarks" / "other.py").write_text("changed = True\n")
    run("sound")
    assert json.loads((folder / "sound.json").read_text())["code"] != before
    assert "is stored" not in (folder / "sound.log").read_text()


def test_time_that_runs_out_ends_a_step_and_its_children(
    run: Callable[..., int], root: Path, tmp_path: Path
) -> None:
    assert run("endless", "sound", seconds=26, share=20) == 1
    states = state(tmp_path)
    assert states["endless"]["status"] == "unfinished"
    assert states["endless"]["seconds"] < 15  # 26 seconds, less the 20 of the other step.
    assert states["sound"]["status"] == "ok"
    child = Path(f"/proc/{(root / 'child.pid').read_text()}/status")
    for _ in range(50):
        if not child.exists() or "zombie" in child.read_text():
            return
        time.sleep(0.1)
    raise AssertionError("the child lives on")


def test_a_step_without_time_is_not_started(run: Callable[..., int], tmp_path: Path) -> None:
    assert run("sound", seconds=1) == 1
    assert state(tmp_path)["sound"]["summary"] == "no time was left for it"


def test_the_archive_has_all_results_after_each_step(
    run: Callable[..., int], tmp_path: Path
) -> None:
    run("sound", "broken", out=tmp_path / "out")
    (archive,) = (tmp_path / "out").iterdir()
    assert archive.name == "gpu-nvidia-h100-80gb-hbm3.tar.gz"
    with tarfile.open(archive) as file:
        names = {Path(name).name for name in file.getnames()}
    logs = {"sound.log", "broken.log"}
    assert names == {"README.md", "card.json", "steps.json", "sound.json", *logs}


def in_archive(folder: Path, name: str) -> dict[str, Any]:
    """Return the record of a file in the archive; it is empty while there is none."""
    record: dict[str, Any] = {}
    for archive in folder.glob("*.tar.gz"):
        with tarfile.open(archive) as file:
            for entry in file.getmembers():
                if Path(entry.name).name == name and (content := file.extractfile(entry)):
                    record = json.load(content)
    return record


def interrupt_when(condition: Callable[[], bool]) -> threading.Thread:
    """Interrupt this thread, as Ctrl-C does, as soon as a condition holds."""
    here = threading.get_ident()

    def wait() -> None:
        for _ in range(600):
            if condition():
                signal.pthread_kill(here, signal.SIGINT)
                return
            time.sleep(0.05)

    waiting = threading.Thread(target=wait)
    waiting.start()
    return waiting


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Let SIGINT raise, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupted_call_leaves_finished_cases_in_the_archive(
    run: Callable[..., int], tmp_path: Path
) -> None:
    folder, out = tmp_path / "results" / "nvidia-h100-80gb-hbm3", tmp_path / "out"
    log = folder / "slow.log"
    waiting = interrupt_when(lambda: log.exists() and "second" in log.read_text())
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run("slow", "sound", out=out)
    waiting.join()
    assert time.monotonic() - began < 30  # The step was killed, not waited for.
    assert in_archive(out, "slow.json")["cases"]["first"]["number"] == 1
    entry = in_archive(out, "steps.json")["steps"]["slow"]
    assert (entry["status"], entry["summary"]) == ("unfinished", "stopped")
    assert "sound" not in state(tmp_path)


@pytest.mark.usefixtures("_interruptible")
def test_the_archive_is_refreshed_while_a_step_runs(
    run: Callable[..., int], module: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("gpu.runner"), "REFRESH", 0.2)
    out = tmp_path / "out"
    waiting = interrupt_when(lambda: bool(in_archive(out, "slow.json").get("cases")))
    with pytest.raises(KeyboardInterrupt):
        run("slow", out=out)
    waiting.join()


def test_steps_that_only_compare_run_at_the_same_time(
    run: Callable[..., int], tmp_path: Path
) -> None:
    assert run("one", "two", together=True) == 0
    assert {entry["summary"] for entry in state(tmp_path).values()} == {"both"}


def test_an_archive_stays_small(module: Import, tmp_path: Path) -> None:
    folder = tmp_path / "card"
    folder.mkdir()
    (folder / "small.json").write_bytes(b"{}")
    (folder / "large.json").write_bytes(os.urandom(50_000))
    (folder / "long.log").write_bytes(os.urandom(400_000))
    archive = module("gpu.archive").write_archive(folder, tmp_path / "out", most=310_000)
    assert archive.stat().st_size < 320_000
    with tarfile.open(archive) as file:
        sizes = {Path(entry.name).name: entry.size for entry in file.getmembers()}
    assert sizes == {"small.json": 2, "large.json": 50_000}
    archive = module("gpu.archive").write_archive(folder, tmp_path / "out")
    with tarfile.open(archive) as file:
        assert {Path(entry.name).name: entry.size for entry in file.getmembers()} == {
            "small.json": 2,
            "large.json": 50_000,
            "long.log": 256 * 2**10,
        }


@pytest.mark.parametrize(
    ("name", "slug"),
    [("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"), ("A40 (µ)/..", "a40"), ("", "unnamed")],
)
def test_a_card_names_its_folder(module: Import, name: str, slug: str) -> None:
    assert module("gpu.card").slug_of(name) == slug


@pytest.mark.parametrize(
    ("before", "after"), [(None, "0"), ("", ""), ("2,3", "2"), ("MIG-1/2,MIG-3", "MIG-1/2")]
)
def test_contenders_see_one_device(
    module: Import, monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    if before is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    assert module("visible_device").first_visible(os.environ) == after
    importlib.reload(module("solitude"))  # The server that starts the trainer's processes.
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after


def test_make_test_sees_no_device() -> None:
    """Tests that choose the device automatically then run on the CPU."""
    makefile = (Path(__file__).parents[3] / "Makefile").read_text()
    for mark in ("not slow and not gpu", "slow and not gpu"):
        (command,) = [text for text in makefile.splitlines() if f'-m "{mark}"' in text]
        assert command.strip().startswith("CUDA_VISIBLE_DEVICES= ")


def test_a_machine_without_a_card_gets_an_error(
    module: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = module("gpu.card")
    monkeypatch.setenv("PYTHONPATH", str(Path(card.__file__ or "").parents[1]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(card.CardError, match=r"There is no CUDA device here.\n.*gpu-tiny"):
        card.ask_for_card("cuda")
